// The rounds of chaos: starting and killing processes, reading the clients' files, and checking what must be there.
#include "tests/crash/chaos.h"

#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <set>
#include <sstream>

namespace sutra::test {
namespace {

constexpr size_t kVerifyMax = 400;  // texts looked up after one kill, the newest first

EngineOptions EngineOptionsOf(const ChaosOptions& options) {
  EngineOptions engine;
  engine.args = options.engine_args;
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
       << " pauses, " << totals.client_kills << " client kills; " << totals.acknowledged << " answers, "
       << totals.verified << " texts found again after a kill";
  if (!totals.failure.empty()) text << "; FAILED: " << totals.failure;
  return text.str();
}

Chaos::Chaos(ChaosOptions options)
    : options_(std::move(options)), random_(options_.seed), engine_(EngineOptionsOf(options_)) {
  for (int i = 0; i < options_.clients; ++i) {
    Client client;
    client.prefix = "chaos client " + std::to_string(i);
    client.oracle = engine_.directory() / ("oracle." + std::to_string(i));
    if (i == 0) client.corrupt_every = options_.corrupt_every;
    clients_.push_back(std::move(client));
  }
}

bool Chaos::Fail(const std::string& why) {
  if (totals_.failure.empty()) totals_.failure = why;
  return false;
}

bool Chaos::StartEngine() { return engine_.Start() || Fail("the engine did not start: " + engine_.Log()); }

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
                "--corrupt",
                std::to_string(client->corrupt_every)};
  spawn.log_path = engine_.directory() / "clients.log";
  spawn.pipe_output = true;
  client->process = std::make_unique<ChildProcess>(spawn);
  return true;
}

ChaosTotals Chaos::Run() {
  bool good = StartEngine() && EnginesFirstFootprint();
  for (Client& client : clients_) good = good && StartClient(&client);
  for (int round = 0; good && round < options_.rounds; ++round) good = Round();
  good = good && EndClients();
  for (const Client& client : clients_) totals_.acknowledged += AcknowledgedIn(client.oracle).size();
  return totals_;
}

bool Chaos::EnginesFirstFootprint() {
  if (!engine_.WaitLanes(0)) return Fail("the first lane was not taken down");
  first_footprint_ = FootprintOf(engine_.process().pid());
  return true;
}

bool Chaos::Round() {
  if (!WaitForAnswers(20 + random_() % 400)) return false;
  switch (random_() % 8) {
    case 0:
    case 1: return KillEngineUnderLoad();
    case 2:
    case 3:
    case 4: return KillEngineAndVerify();
    case 5: return StopEngine();
    case 6: return PauseEngine();
    default: return KillClient();
  }
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

// Clients are stopped while the engine's figures catch up: what this engine answered before that is written, and must
// be there after the kill. They continue when the check is done, so that no lost text is computed again before it is
// missed. (An engine killed under load may have answered within the write bound: such an answer proves nothing.)
bool Chaos::KillEngineAndVerify() {
  for (Client& client : clients_) client.process->Stop();
  if (!engine_.WaitWritten()) return Fail("the log does not catch up");
  const StatsSnapshot stats = engine_.Stats();
  if (stats.gauge("wal_dropped_inserts") == 0) kept_generations_.insert(stats.engine_generation);
  const std::vector<std::string> texts = TextsToFind();
  engine_.Kill();
  ++totals_.engine_kills;
  if (!StartEngine() || !VerifyShard(texts)) return false;
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
    if (replies[i].source != SUTRA_SOURCE_SHARD) {
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
  if (engine_.Stats().gauge("wal_dropped_inserts") == 0) kept_generations_.insert(stats.engine_generation);
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
    if (last == first_footprint_) return true;
    poll(nullptr, 0, 10);
  }
  return Fail("the engine began with " + ToText(first_footprint_) + " and ends with " + ToText(last));
}

}  // namespace sutra::test
