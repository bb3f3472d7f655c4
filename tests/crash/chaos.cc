// The rounds of chaos: starting and killing processes, reading the clients' files, and checking what must be there.
#include "tests/crash/chaos.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <set>
#include <sstream>

#include "engine/exit_code.h"
#include "shm/base/time.h"

namespace sutra::test {
namespace {

constexpr size_t kVerifyMax = 400;  // texts looked up after one kill, the newest first

EngineOptions EngineOptionsOf(const ChaosOptions& options, const WallClockJumps& clock) {
  EngineOptions engine;
  engine.args = options.engine_args;
  engine.data = options.data;
  if (options.clock_jumps) {
    for (const std::string& variable : clock.Environment()) engine.environment.push_back(variable);
  }
  return engine;
}

}  // namespace

std::vector<Acknowledged> AcknowledgedIn(const std::string& oracle) {
  std::vector<Acknowledged> acknowledged;
  std::istringstream lines(ReadFile(oracle));
  std::string line;
  while (std::getline(lines, line)) {
    if (lines.eof()) break;  // no newline: torn
    if (line.size() < 2 || line[0] != 'A') continue;
    char* rest = nullptr;
    Acknowledged one;
    one.id = std::strtoull(line.c_str() + 2, &rest, 10);
    one.generation = std::strtoull(rest, nullptr, 10);
    acknowledged.push_back(one);
  }
  return acknowledged;
}

std::string ToText(const ChaosTotals& totals) {
  std::ostringstream text;
  text << totals.engine_kills << " engine kills, " << totals.engine_stops << " stops, " << totals.engine_pauses
       << " pauses, " << totals.client_kills << " client kills";
  if (totals.clock_jumps > 0) text << ", " << totals.clock_jumps << " jumps of the clock";
  if (totals.removed_sockets > 0) text << ", " << totals.removed_sockets << " removed sockets";
  if (totals.full_disks > 0) text << ", " << totals.full_disks << " full disks";
  if (totals.full_shms > 0) text << ", " << totals.full_shms << " times a full /dev/shm";
  text << "; " << totals.acknowledged << " answers, " << totals.verified << " texts found again after a kill";
  if (!totals.failure.empty()) text << "; FAILED: " << totals.failure;
  return text.str();
}

Chaos::Chaos(ChaosOptions options)
    : options_(std::move(options)),
      random_(options_.seed),
      rounds_{&Chaos::KillEngineUnderLoad, &Chaos::KillEngineUnderLoad, &Chaos::KillEngineAndVerify,
              &Chaos::KillEngineAndVerify, &Chaos::KillEngineAndVerify, &Chaos::StopEngine,
              &Chaos::PauseEngine,         &Chaos::KillClient},
      clock_(clock_directory_ / "offset"),
      engine_(EngineOptionsOf(options_, clock_)) {
  if (options_.clock_jumps) rounds_.insert(rounds_.end(), 2, &Chaos::JumpClock);
  if (options_.removed_socket) rounds_.insert(rounds_.end(), 2, &Chaos::RemoveSocket);
  if (options_.data_disk != nullptr) rounds_.insert(rounds_.end(), 2, &Chaos::FillDataDisk);
  if (options_.shm_disk != nullptr) rounds_.push_back(&Chaos::FillShm);
  for (int i = 0; i < options_.clients; ++i) {
    Client client;
    client.prefix = "chaos client " + std::to_string(i);
    client.oracle = engine_.directory() / ("oracle." + std::to_string(i));
    if (i == 0) client.corrupt_every = options_.corrupt_every;
    if (i == 0) client.corrupt_polled_every = options_.corrupt_polled_every;
    clients_.push_back(std::move(client));
  }
}

bool Chaos::Fail(const std::string& why) {
  if (totals_.failure.empty()) totals_.failure = why;
  return false;
}

bool Chaos::StartEngine() {
  return (engine_.Start() || Fail("the engine did not start: " + engine_.Log())) && NothingEvicted();
}

bool Chaos::NothingEvicted() {
  uint64_t evicted = 0;
  const auto look = [&evicted](const StatsSnapshot& stats) {
    evicted = stats.gauge("cache_evictions");
    return true;
  };
  if (!engine_.WaitStats(look, 1)) return Fail("the engine's heart does not beat");
  if (evicted > 0) kept_generations_.clear();
  if (options_.data_disk != nullptr) return true;
  return evicted == 0 || Fail(std::to_string(evicted) + " entries evicted, although the log has room for all texts");
}

bool Chaos::StartClient(Client* client) {
  SpawnOptions spawn;
  spawn.args = {TestClientProgram(),
                "chaos",
                "--socket",
                engine_.socket(),
                "--oracle",
                client->oracle,
                "--prefix",
                client->prefix,
                "--seed",
                std::to_string(random_()),
                "--texts",
                std::to_string(options_.texts),
                "--corrupt",
                std::to_string(client->corrupt_every),
                "--corrupt-polled",
                std::to_string(client->corrupt_polled_every)};
  spawn.log_path = engine_.directory() / "clients.log";
  spawn.pipe_output = true;
  client->process = std::make_unique<ChildProcess>(spawn);
  return true;
}

ChaosTotals Chaos::Run() {
  bool good = StartEngine() && EnginesFirstFootprint();
  for (Client& client : clients_) good = good && StartClient(&client);
  for (int round = 0; good && round < options_.rounds; ++round) good = Round(round);
  good = good && EndClients();
  for (const Client& client : clients_) totals_.acknowledged += AcknowledgedIn(client.oracle).size();
  return totals_;
}

bool Chaos::EnginesFirstFootprint() {
  if (!engine_.WaitLanes(0)) return Fail("the first lane was not taken down");
  first_footprint_ = FootprintOf(engine_.process().pid());
  return true;
}

// The first round is of the kind that a variant is about.
bool Chaos::Round(int number) {
  const size_t drawn = random_() % rounds_.size();
  const auto kind = number == 0 ? rounds_.back() : rounds_[drawn];
  return WaitForAnswers(20 + random_() % 400) && NothingEvicted() && (this->*kind)();
}

// The engine answered this many more texts, and no client has found an error.
bool Chaos::WaitForAnswers(uint64_t more) {
  const uint64_t wanted = engine_.Stats().counter("replies_ok") + more;
  bool clients_good = true;
  const bool answered = engine_.WaitStats([&](const StatsSnapshot& stats) {
    clients_good = CheckClients();
    return !clients_good || stats.counter("replies_ok") >= wanted;
  });
  if (!clients_good) return false;
  return answered || Fail("the engine answers nothing any more");
}

// A client exits by itself only to report a wrong answer.
bool Chaos::CheckClients() {
  for (Client& client : clients_) {
    if (client.process->Running()) continue;
    const std::optional<ExitStatus> status = client.process->Wait(kWaitMs);
    return Fail(client.prefix + " ended with " + ToText(status.value_or(ExitStatus{})) + ": " + client.process->Log());
  }
  return true;
}

bool Chaos::KillEngineUnderLoad() {
  engine_.Kill();
  ++totals_.engine_kills;
  return StartEngine();
}

// Clients are stopped until the engine has nothing under way and its figures have caught up: all that this engine ever
// answered is written then, and must be there after the kill. (What is under way when the clients stop is answered into
// their lanes all the same; they read it when they continue, and count it as an answer of this engine.) They continue
// when the check is done, so that no lost text is computed again before it is missed. (An engine killed under load may
// have answered within the write bound: such an answer proves nothing.)
bool Chaos::KillEngineAndVerify() {
  for (Client& client : clients_) client.process->Stop();
  const auto idle = [](const StatsSnapshot& stats) { return stats.gauge("in_flight_texts") == 0; };
  if (!engine_.WaitStats(idle, 2)) return Fail("the engine does not end what it took");
  if (!engine_.WaitWritten()) return Fail("the log does not catch up");
  if (!NothingEvicted()) return false;
  const StatsSnapshot stats = engine_.Stats();
  const bool kept = stats.gauge("wal_dropped_inserts") == 0 && stats.gauge("cache_evictions") == 0;
  if (kept) kept_generations_.insert(stats.engine_generation);
  const std::vector<std::string> texts = TextsToFind();
  engine_.Kill();
  ++totals_.engine_kills;
  if (!StartEngine()) return false;
  if (!kept_generations_.empty() && !VerifyShard(texts)) return false;  // empty: the start evicted, by right
  for (Client& client : clients_) client.process->Continue();
  return true;
}

std::vector<std::string> Chaos::TextsToFind() const {
  std::vector<std::string> texts;
  for (const Client& client : clients_) {
    const std::vector<Acknowledged> acknowledged = AcknowledgedIn(client.oracle);
    std::set<uint64_t> newest;
    for (auto one = acknowledged.rbegin(); one != acknowledged.rend(); ++one) {
      if (newest.size() * clients_.size() >= kVerifyMax) break;
      if (kept_generations_.count(one->generation) != 0) newest.insert(one->id);
    }
    for (const uint64_t id : newest) texts.push_back(ChaosText(client.prefix, id));
  }
  return texts;
}

bool Chaos::VerifyShard(const std::vector<std::string>& texts) {
  if (texts.empty()) return true;
  ClientHandle client;
  if (client.Attach(engine_.socket()) != SUTRA_OK) return Fail(std::string("cannot attach: ") + sutra_error_text());
  const std::vector<Reply> replies = client.EmbedBatch(texts);
  for (size_t i = 0; i < texts.size(); ++i) {
    if (const std::string wrong = WhatIsWrong(replies[i], texts[i]); !wrong.empty()) {
      return Fail("after a kill, '" + texts[i].substr(0, 40) + "': " + wrong);
    }
    if (!replies[i].FromCache()) {
      return Fail("lost by a kill although it was written: '" + texts[i].substr(0, 40) + "'");
    }
    ++totals_.verified;
  }
  return true;
}

bool Chaos::StopEngine() {
  const StatsSnapshot stats = engine_.Stats();
  const ExitStatus status = engine_.Terminate();
  ++totals_.engine_stops;
  if (!status.exited || status.code != 0) return Fail("SIGTERM ended with " + ToText(status));
  const StatsSnapshot last = engine_.Stats();
  const bool kept = last.gauge("wal_dropped_inserts") == 0 && last.gauge("cache_evictions") == 0;
  if (kept) kept_generations_.insert(stats.engine_generation);
  return StartEngine();
}

bool Chaos::PauseEngine() {
  engine_.process().Stop();
  ++totals_.engine_pauses;
  // The length of the pause is random input: now and then longer than the clients' wake-up period.
  timespec pause = {0, static_cast<long>(random_() % 400'000'000)};
  ppoll(nullptr, 0, &pause, nullptr);
  engine_.process().Continue();
  return true;
}

bool Chaos::KillClient() {
  Client& victim = clients_[random_() % clients_.size()];
  victim.process->Kill();
  ++totals_.client_kills;
  return StartClient(&victim);
}

// The clock comes back before anyone could believe the jump. What was stored meanwhile is as good as the rest. An
// engine that starts before the host knows the time (1970) loses nothing either.
bool Chaos::JumpClock() {
  constexpr int64_t kHour = 3600, kDay = 24 * kHour;
  const int64_t since_1970 = static_cast<int64_t>(WallNs() / kNsPerSecond);
  const int64_t offsets[] = {kHour, 30 * kDay, 1000 * kDay, -kHour, -30 * kDay, 100 - since_1970};
  const int64_t offset = offsets[random_() % std::size(offsets)];
  ++totals_.clock_jumps;
  clock_.SetSeconds(offset);
  bool good = WaitForAnswers(20 + random_() % 100);
  if (good && offset < 0 && random_() % 2 == 0) good = KillEngineAndVerify();
  clock_.SetSeconds(0);
  return good && KillEngineAndVerify();
}

// Attached clients notice nothing; new ones can attach again soon.
bool Chaos::RemoveSocket() {
  ++totals_.removed_sockets;
  if (unlink(engine_.socket().c_str()) != 0) return Fail("there is no socket file");
  if (options_.socket_path_taken) WriteFile(engine_.socket(), "somebody else's");
  const uint64_t until_ns = MonotonicNs() + static_cast<uint64_t>(options_.wait_ms) * kNsPerMs;
  for (; MonotonicNs() < until_ns; poll(nullptr, 0, 10)) {
    ClientHandle client;
    if (client.Attach(engine_.socket()) == SUTRA_OK) return WaitForAnswers(20);
  }
  return Fail("nobody can attach any more after the socket file was removed");
}

// The engine answers on; if it dies with the disk full, the next one serves all the same. Later the log goes on.
bool Chaos::FillDataDisk() {
  ++totals_.full_disks;
  kept_generations_.clear();  // room may be made by evicting what was kept
  options_.data_disk->Fill();
  bool good = WaitForAnswers(200 + random_() % 1000);
  if (good && random_() % 2 == 0) good = KillEngineUnderLoad() && WaitForAnswers(20 + random_() % 400);
  if (!options_.disk_stays_full) options_.data_disk->Empty();
  const auto works = [](const StatsSnapshot& stats) {
    return stats.gauge("storage_failed") == 0 && stats.gauge("log_full") == 0;
  };
  return good &&
         (engine_.WaitStats(works, 1, options_.wait_ms) || Fail("the log takes nothing although there is room again"));
}

// No engine starts, and the reason is said; with room again one does.
bool Chaos::FillShm() {
  ++totals_.full_shms;
  ++totals_.engine_kills;
  engine_.Kill();
  unlink(engine_.stats_file().c_str());  // of the engine that was killed: its successor would take that room
  if (!options_.shm_stays_empty) options_.shm_disk->Fill();
  engine_.Launch();
  ClientHandle client;
  while (engine_.running() && client.Attach(engine_.socket()) != SUTRA_OK) poll(nullptr, 0, 1);
  if (client.get() != nullptr) return Fail("an engine serves although /dev/shm is full");
  const ExitStatus status = engine_.WaitEnd();
  options_.shm_disk->Empty();
  if (!status.exited || status.code != kExitCannotStart) return Fail("full /dev/shm: ended with " + ToText(status));
  if (engine_.Log().find("/dev/shm") == std::string::npos) return Fail("full /dev/shm: not said: " + engine_.Log());
  return StartEngine();
}

// Exactly what an engine that just began holds; where the disk may have no room for the log's reserve, its descriptor
// may be missing, and nothing else.
bool Chaos::HoldsWhatItShould(ProcessFootprint last) const {
  if (last == first_footprint_) return true;
  ++last.descriptors;
  return options_.data_disk != nullptr && last == first_footprint_;
}

// All clients leave in good order; the engine holds what an engine without clients holds.
bool Chaos::EndClients() {
  for (Client& client : clients_) client.process->Signal(SIGTERM);
  for (Client& client : clients_) {
    const std::optional<ExitStatus> status = client.process->Wait(kWaitMs);
    if (!status.has_value()) return Fail(client.prefix + " hangs");
    // A client started in the last round may be told to leave before it handles signals: then it had not begun.
    const bool not_begun = !status->exited && status->signal == SIGTERM;
    if (!not_begun && (!status->exited || status->code != 0)) {
      return Fail(client.prefix + " ended with " + ToText(*status) + ": " + client.process->Log());
    }
  }
  if (!engine_.WaitLanes(0)) return Fail("lanes are left over");
  ProcessFootprint last;
  // Descriptors of an attach that a kill cut short are closed within the second that an attach may take.
  for (int look = 0; look < 500; ++look) {
    last = FootprintOf(engine_.process().pid());
    if (HoldsWhatItShould(last)) return true;
    poll(nullptr, 0, 10);
  }
  return Fail("the engine began with " + ToText(first_footprint_) + " and ends with " + ToText(last));
}

}  // namespace sutra::test
