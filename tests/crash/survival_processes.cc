// The processes of a run: started, killed, stopped, and looked after.
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "engine/exit_code.h"
#include "tests/crash/survival.h"

namespace sutra::test {
namespace {

constexpr uint64_t kLookNs = 50 * kNsPerMs;
constexpr uint64_t kGapNs = 2 * kNsPerSecond;   // without an engine: the clients' time begins anew after it
constexpr uint64_t kEndNs = 30 * kNsPerSecond;  // of an engine that was asked to end
constexpr uint64_t kNoEngineNs = 30 * kNsPerSecond;

}  // namespace

void Survival::Fail(uint64_t* count, const std::string& what, uint64_t by) {
  *count += by;
  if (totals_.failures.size() < 50) totals_.failures.push_back(what);
  std::fprintf(stderr, "after %llu kills: %s\n", static_cast<unsigned long long>(totals_.kills), what.c_str());
}

// Alone it is either the engine itself or a standby that finds nobody to wait for.
void Survival::StartEngine(Member* engine) {
  std::vector<std::string>& args = engine->engine->options().args;
  std::erase(args, "--standby");
  if (!Alive(&engines_).empty() || Random(2) == 0) args.emplace_back("--standby");
  engine->engine->Launch();
  engine->alive_ns = MonotonicNs();
  engine->start_ns = engine->continue_ns = engine->asked_ns = 0;
  engine->may_end = engine->wedged = false;
}

void Survival::StartClient(Member* client) {
  client->tally_file = directory_ / ("tally." + std::to_string(++lives_));
  SpawnOptions spawn;
  spawn.args = {client->kind == "C"     ? SUTRA_SURVIVOR_C
                : client->kind == "C++" ? SUTRA_SURVIVOR_CPP
                                        : options_.rust_client};
  const bool few_slots = client->elder || Random(2) == 0;
  const bool one_lane = client->elder || Random(2) == 0;
  const bool damages = client == &clients_[0];
  const std::pair<const char*, std::string> arguments[] = {
      {"--socket", socket_},
      {"--tally", client->tally_file},
      {"--prefix", client->prefix},
      {"--seed", std::to_string(Random(1u << 31))},
      {"--deadline-ms", std::to_string(options_.deadline_ms)},
      {"--lanes", one_lane ? "1" : "3"},
      {"--slots", few_slots ? "16" : "0"},
      {"--corrupt", std::to_string(damages ? options_.corrupt_every : 0)},
      {"--fail-fast", options_.fail_fast ? "1" : "0"},
      {"--deaf-after", std::to_string(damages ? options_.deaf_after : 0)},
      {"--leak", std::to_string(damages ? options_.client_leak : 0)}};
  for (const auto& [name, value] : arguments) spawn.args.insert(spawn.args.end(), {name, value});
  spawn.log_path = directory_ / "clients.log";
  client->tally = TallyMap(client->tally_file.c_str());
  std::fill(std::begin(client->seen), std::end(client->seen), 0);
  client->process = std::make_unique<ChildProcess>(spawn);
  client->alive_ns = MonotonicNs();
  client->start_ns = client->continue_ns = 0;
  client->wedged = false;
}

// All at once, then reaped. In the middle of a run each comes back after a pause, mostly a short one.
void Survival::Kill(const std::vector<Member*>& victims) {
  for (Member* victim : victims) victim->child().Signal(SIGKILL);
  for (Member* victim : victims) {
    if (victim == Serving()) {
      ++totals_.engine_kills;
    } else {
      ++(victim->engine != nullptr ? totals_.standby_kills : totals_.client_kills);
    }
    ++totals_.kills;
  }
  for (Member* victim : victims) {
    victim->child().Kill();
    if (victim->engine == nullptr) EndOfClient(victim);
    const bool comes_back = drawing_ && !(victim->engine != nullptr && options_.never_restart);
    const uint64_t pause_ms = Random(8) == 0 ? Random(1000) : Random(60);
    victim->start_ns = comes_back ? MonotonicNs() + pause_ms * kNsPerMs : UINT64_MAX;
    victim->continue_ns = 0;
  }
  LookWhoServes();
}

void Survival::StopFor(Member* victim, uint64_t ns) {
  victim->child().Signal(SIGSTOP);
  victim->continue_ns = MonotonicNs() + ns + 1;
  ++totals_.stops;
}

// Running, and not stopped.
std::vector<Survival::Member*> Survival::Alive(std::vector<Member>* members) {
  std::vector<Member*> alive;
  for (Member& member : *members) {
    if (member.start_ns == 0 && member.continue_ns == 0 && member.child().Running()) alive.push_back(&member);
  }
  return alive;
}

// The one whose statistics are shown, unless it is stopped or gone.
Survival::Member* Survival::Serving() {
  for (Member* engine : Alive(&engines_)) {
    if (engine->child().pid() == serving_pid_) return engine;
  }
  return nullptr;
}

void Survival::LookWhoServes() {
  shard_open_ = false;
  const uint64_t now_ns = MonotonicNs();
  Result<StatsReader> reader = StatsReader::OpenSocket(socket_);
  if (reader.ok()) {
    if (Result<StatsSnapshot> stats = reader->Snapshot(); stats.ok()) {
      serving_pid_ = static_cast<pid_t>(stats->gauge(Gauge::kPid));
      shard_open_ = stats->gauge(Gauge::kShardState) == kShardOpen;
      if (std::exchange(serving_generation_, stats->engine_generation) != serving_generation_) ++totals_.takeovers;
    }
  }
  if (Serving() == nullptr) return;
  const uint64_t gap_ns = served_ns_ == 0 ? 0 : now_ns - served_ns_;
  totals_.longest_gap_ms = std::max(totals_.longest_gap_ms, gap_ns / kNsPerMs);
  if (gap_ns > kGapNs) gap_ended_ns_ = now_ns;
  served_ns_ = now_ns;
}

void Survival::Turn() {
  for (std::vector<Member>* members : {&engines_, &clients_}) {
    for (Member& member : *members) {
      const uint64_t now_ns = MonotonicNs();
      if (member.continue_ns != 0 && member.continue_ns <= now_ns) {
        member.child().Continue();
        member.continue_ns = 0;  // its time goes on: stops are short, and so many that it would never be over
      }
      if (member.start_ns == 0 || member.start_ns > now_ns) continue;
      if (member.engine == nullptr) {
        ++totals_.client_restarts;
        StartClient(&member);
      } else {
        ++totals_.restarts;
        StartEngine(&member);
      }
    }
  }
  LookWhoServes();
  if (MonotonicNs() >= next_look_ns_) {
    for (Member& engine : engines_) LookAtEngine(&engine);
    for (Member& client : clients_) LookAtClient(&client);
    std::erase_if(hand_overs_, [this](const std::unique_ptr<ChildProcess>& call) {
      if (call->Running()) return false;
      const ExitStatus status = call->Wait(1000).value_or(ExitStatus{});
      if (status.exited && status.code == kExitClean) ++totals_.hand_overs;
      return true;
    });
    Progress(false);
    next_look_ns_ = MonotonicNs() + kLookNs;
  }
  poll(nullptr, 0, 2);
}

bool Survival::WaitUntil(uint64_t timeout_ms, const std::function<bool()>& condition) {
  for (const uint64_t until_ns = MonotonicNs() + timeout_ms * kNsPerMs; !condition(); Turn()) {
    if (MonotonicNs() > until_ns) return condition();
  }
  return true;
}

void Survival::LookAtEngine(Member* engine) {
  const uint64_t now_ns = MonotonicNs();
  if (engine->start_ns != 0) return;
  if (engine->child().Running()) {
    const uint64_t since_ns = std::max(engine->asked_ns, engine->alive_ns);
    if (engine->asked_ns == 0 || engine->continue_ns != 0 || engine->wedged || now_ns - since_ns < kEndNs) return;
    engine->wedged = true;
    Fail(&totals_.wedged, engine->prefix + " does not end after SIGTERM");
    return Kill({engine});
  }
  const ExitStatus status = engine->child().Wait(1000).value_or(ExitStatus{});
  const bool asked = engine->may_end && ((status.exited && status.code == kExitClean) ||
                                         (!status.exited && status.signal == SIGTERM));  // before it was an engine
  // Started alone, when another one was faster.
  const bool locked_out = status.exited && status.code == kExitLocked;
  if (!asked && !locked_out) Fail(&totals_.ended, engine->prefix + " ended with " + ToText(status));
  engine->start_ns = drawing_ ? now_ns + Random(100) * kNsPerMs : UINT64_MAX;
  engine->continue_ns = 0;
}

// What its file says now, added to the totals; and whether its calls and its loop get answers.
void Survival::LookAtClient(Member* client) {
  if (client->start_ns != 0) return;
  const auto more = [client](TallyWord word) {
    const uint64_t now = TallyGet(client->tally, word);
    return now - std::exchange(client->seen[word], now);
  };
  const std::string name =
      client->prefix + " (" + client->kind + ", pid " + std::to_string(client->child().pid()) + ")";
  if (const uint64_t lost = more(kTallyLost)) Fail(&totals_.lost, name + ": calls without their vector", lost);
  if (const uint64_t wrong = more(kTallyWrong)) Fail(&totals_.wrong, name + ": wrong answers", wrong);
  if (const uint64_t late = more(kTallyOverdue)) Fail(&totals_.wedged, name + ": calls beyond their deadline", late);
  totals_.answers += more(kTallyAnswers);
  totals_.resubmitted += more(kTallyResubmitted);
  totals_.engines_of_one_client = std::max(totals_.engines_of_one_client, TallyGet(client->tally, kTallyEngines));
  if (!client->child().Running()) {
    const ExitStatus status = client->child().Wait(1000).value_or(ExitStatus{});
    Fail(&totals_.ended, name + " ended with " + ToText(status));
    client->start_ns = drawing_ ? 1 : UINT64_MAX;
    return;
  }
  const uint64_t now_ns = MonotonicNs();
  if (client->wedged || client->continue_ns != 0 || !drawing_ || options_.never_restart) return;
  for (const auto& [word, what] : {std::pair{kTallyBlockingNs, "calls"}, std::pair{kTallyLoopNs, "event loop"}}) {
    const uint64_t since_ns = std::max({TallyGet(client->tally, word), client->alive_ns, gap_ended_ns_});
    if (now_ns < since_ns + options_.wedged_ms * kNsPerMs || Serving() == nullptr) continue;
    client->wedged = true;
    Fail(&totals_.wedged, name + ": its " + what + " get no answer (" + client->tally_file + ")");
  }
}

// A client's last counts; its file goes with it.
void Survival::EndOfClient(Member* client) {
  if (client->tally == nullptr) return;
  const bool killed = client->start_ns == 0 && !client->child().Running();
  if (killed || client->start_ns != 0) {
    totals_.answers += TallyGet(client->tally, kTallyAnswers) - client->seen[kTallyAnswers];
    const uint64_t lost = TallyGet(client->tally, kTallyLost) - client->seen[kTallyLost];
    const uint64_t wrong = TallyGet(client->tally, kTallyWrong) - client->seen[kTallyWrong];
    if (lost > 0) Fail(&totals_.lost, client->prefix + ": calls without their vector", lost);
    if (wrong > 0) Fail(&totals_.wrong, client->prefix + ": wrong answers", wrong);
  }
  munmap(client->tally, kTallyWords * 8);
  client->tally = nullptr;
  unlink(client->tally_file.c_str());
}

}  // namespace sutra::test
