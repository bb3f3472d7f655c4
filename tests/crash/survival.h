// Chaos over real processes that must survive: up to three engines at one socket and one data directory, one of which
// serves while the others stand by, under clients in C, C++ and Rust that must never see an error.
//
// Drawn by the seed: SIGKILL of the engine that serves (a standby takes over, or one is started after a pause), of a
// standby, of all engines at once, and of clients, several processes at a time; SIGTERM and `--hand-over`; SIGSTOP of
// engines and clients, shorter than any deadline; a start in the middle of it. Counted, and 0 unless something is
// wrong:
//   lost    a call or ticket that ended without its vector; a text that was in the log and is not in the next engine's
//           shard. There is an engine again long before any deadline, so no client has a reason for it.
//   wrong   a vector of another text or of none; a ticket that is not the caller's, or was shown twice
//   wedged  a living client whose calls or whose event loop get no answer for wedged_ms, or whose call outlives its
//           deadline; an engine that does not end after SIGTERM; no engine serving although one should
//   leaked  what the last engine and the clients that lived through all engines hold more than fresh ones do; lanes;
//           files beside the socket and in /dev/shm
//   ended   processes that ended by themselves, or not as they should
// The clients count in files of their own (survivor.h), which their deaths do not touch.
//
// Thread rule: one thread, the main one (child_process.h); EmbedMeanwhile has one for its call. A run is a function of
// its seed, except for the operating system's timing.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "shm/base/time.h"
#include "tests/crash/survivor.h"
#include "tests/kit/engine_process.h"

namespace sutra::test {

struct SurvivalOptions {
  uint64_t kills = 200;
  uint64_t seed = 1;
  uint64_t wedged_ms = 20'000;
  bool end_at_first = false;      // at the first failure
  uint64_t deadline_ms = 30'000;  // of every call
  uint64_t progress_s = 5;        // between two lines about how far it is
  std::string rust_client;        // empty: none
  std::string keep;               // a directory for the logs of a run that failed

  // Canaries: what the harness must see.
  uint64_t corrupt_every = 0;   // a client damages every N-th vector
  bool fail_fast = false;       // the clients' requests end with their engine
  bool never_restart = false;   // no engine comes back
  uint64_t deaf_after = 0;      // a client's event loop misses every wake-up after its N-th answer
  uint64_t client_leak = 0;     // a client keeps a descriptor open per N batches
  bool lane_leak = false;       // somebody stays attached when all is over
  bool engine_forgets = false;  // --durability none
};

struct SurvivalTotals {
  uint64_t kills = 0, lost = 0, wrong = 0, wedged = 0, leaked = 0, ended = 0;
  uint64_t engine_kills = 0, standby_kills = 0, client_kills = 0, takeovers = 0, hand_overs = 0, terminations = 0;
  uint64_t stops = 0, restarts = 0, client_restarts = 0, answers = 0, resubmitted = 0, engines_of_one_client = 0;
  uint64_t found_again = 0;  // texts that the next engine's shard had
  uint64_t longest_gap_ms = 0, ms = 0;
  std::vector<std::string> failures;
  bool good() const { return lost + wrong + wedged + leaked + ended == 0; }
};
std::string ToJson(const SurvivalTotals& totals, const SurvivalOptions& options);

// What the descriptors of a process lead to.
std::string DescriptorsOf(pid_t pid);

class Survival {
 public:
  // `stop`: ends the run early and in good order.
  Survival(SurvivalOptions options, const std::atomic<bool>* stop);
  ~Survival();
  SurvivalTotals Run();

 private:
  struct Member {                           // a process of the run
    std::unique_ptr<EngineProcess> engine;  // of an engine: starts it
    std::string kind, prefix, tally_file;   // of a client
    std::unique_ptr<ChildProcess> process;  // of a client
    uint64_t* tally = nullptr;
    bool elder = false;               // of a client: never killed
    bool wedged = false;              // counted already
    bool may_end = false;             // of an engine: it was asked to
    uint64_t start_ns = 0;            // when to start it; 0 = it runs
    uint64_t alive_ns = 0;            // since when it runs
    uint64_t continue_ns = 0;         // when to continue it; 0 = it is not stopped
    uint64_t asked_ns = 0;            // of an engine: when it was asked to end; 0 = it was not
    uint64_t seen[kTallyWords] = {};  // of a client's counts, what the totals have
    ChildProcess& child() const { return engine != nullptr ? engine->process() : *process; }
  };

  // survival.cc: the course of a run.
  bool Prepare();
  void Draw();
  void KillServing(bool with_clients);
  void KillStandby();
  void KillAllEngines();
  void KillClients();
  void Terminate();
  void HandOver();
  void StopEngine();
  void StopClient();
  std::vector<Reply> EmbedMeanwhile(const std::vector<std::string>& texts);
  void CheckShard();
  void Progress(bool last);

  // survival_processes.cc: the processes.
  void StartEngine(Member* engine);
  void StartClient(Member* client);
  void Kill(const std::vector<Member*>& victims);
  void StopFor(Member* victim, uint64_t ns);
  void Turn();  // what is due; looks after everybody; sleeps a little
  bool WaitUntil(uint64_t timeout_ms, const std::function<bool()>& condition);
  void LookAtEngine(Member* engine);
  void LookAtClient(Member* client);
  void LookWhoServes();
  void EndOfClient(Member* client);
  Member* Serving();
  std::vector<Member*> Alive(std::vector<Member>* members);
  uint64_t Random(uint64_t below) { return random_() % below; }
  void Fail(uint64_t* count, const std::string& what, uint64_t by = 1);

  // survival_leaks.cc: the end.
  void EndAndLookForLeaks();
  bool QuietClients(const std::vector<Member*>& clients);
  void CompareClients();
  void EndClients();
  void LookAtEnginesRemains();
  void LookAtFiles();

  const SurvivalOptions options_;
  const std::atomic<bool>* const stop_;
  std::mt19937_64 random_;
  TempDir directory_;
  const std::string socket_, data_;
  std::vector<Member> engines_, clients_;
  std::vector<std::unique_ptr<ChildProcess>> hand_overs_;
  ClientHandle own_client_;
  ProcessFootprint most_;  // of an engine that just began, or just took over
  bool drawing_ = false;   // the run is in its middle: who is gone comes back
  uint64_t next_draw_ns_ = 0, next_look_ns_ = 0, next_progress_ns_ = 0, began_ns_ = 0;
  uint64_t serving_generation_ = 0, served_ns_ = 0, gap_ended_ns_ = 0;
  pid_t serving_pid_ = 0;
  bool shard_open_ = false;
  uint64_t lives_ = 0, samples_ = 0, sampled_at_kills_ = 0;
  SurvivalTotals totals_;
};

}  // namespace sutra::test
