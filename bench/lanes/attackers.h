// Client processes that misbehave, or are merely many: each is this program again (`lane_bench --attack NAME SOCKET`),
// at the lowest priority, so that what the engine does for it is measured and not the CPU time that it takes itself.
//
// An attacker prints one line once it is under way, "ready WHAT" or "refused WHY", and goes on until it is killed.
// Thread rule: Attackers belong to the bench's main thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/kit/child_process.h"
#include "tests/kit/temp_dir.h"

namespace sutra::bench {

struct Flood {
  const char* name;   // of the attack and in the JSON keys
  int processes;      // attackers side by side: quotas are per process
  const char* title;  // for people
};

// The floods of the contract.
inline constexpr Flood kFloods[] = {
    {"bulk", 1, "20 lanes x 4096 slots of misses, class bulk"},
    {"long_texts", 4, "240 lanes of 64 KiB words of accents"},
    {"lanes250", 5, "250 lanes kept full of cached texts"},
    {"punch", 1, "punching its own lane's files in a loop"},
    {"wake_storm", 1, "4,000 threads parked on one lane"},
    {"attach_storm", 3, "attaching and detaching without a pause"},
    {"busy", 2, "computing, and nothing else"},
};
// Not floods: the lanes of idle_lanes_ratio, the other client of mixed_p99_ratio.
inline constexpr Flood kIdleLanes = {"idle", 17, "999 idle lanes"};
inline constexpr Flood kIngest = {"ingest", 1, "a bulk ingest and queries"};

// The attackers of one flood, running from construction to destruction.
class Attackers {
 public:
  Attackers(const Flood& flood, const std::string& socket);
  ~Attackers();
  // False if every one of them was refused.
  bool under_way() const { return ready_ > 0; }
  // What each said, without repetitions.
  const std::string& said() const { return said_; }

 private:
  test::TempDir directory_;
  std::vector<std::unique_ptr<test::ChildProcess>> processes_;
  int ready_ = 0;
  std::string said_;
};

// The attacker's own main. RETURNS its exit code, after a refusal; otherwise never.
int AttackMain(const std::string& name, const std::string& socket, int number);

}  // namespace sutra::bench
