// kill -9 of a process that uses a shard, at every named checkpoint and at random times. The oracle lives in this
// process and learns through a pipe what the child attempted and what it was promised (P1, P3). The canary forgets one
// promise and must be caught.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <random>
#include <set>
#include <sstream>

#include "cache/disk/disk_io.h"
#include "shm/base/clock.h"
#include "tests/cache/cache_test_support.h"
#include "tests/kit/temp_dir.h"

extern char** environ;

namespace sutra {
namespace {

// What may be there for each key: states[0] is promised, the rest were attempted after it. -1: absent.
class Promises {
 public:
  // A child begins: it promises nothing about what its predecessor left unfinished.
  void Begin() { touched_.clear(); }
  void Read(const std::string& line) {
    std::istringstream words(line);
    std::string kind, key;
    int version = -1;
    words >> kind >> key >> version;
    if (kind == "p") States(key).push_back(version);
    if (kind == "e") States(key).push_back(-1);
    if (kind == "E" || kind == "W" || kind == "S") {
      for (const std::string& name : touched_) {
        if (kind != "E" || name == key) states_[name] = {states_[name].back()};
      }
    }
  }
  std::string Check(CacheShard* shard) {
    for (auto& [key, states] : states_) {
      const int state = test::VersionOf(shard, key);
      if (std::find(states.begin(), states.end(), state) == states.end()) {
        return key.substr(0, 6) + " is " + std::to_string(state) + ", promised was " + std::to_string(states.front()) +
               ", the last attempt " + std::to_string(states.back());
      }
      states = {state};
    }
    return "";
  }
  // For the canary: pretends that a promise was made for each attempt.
  void PromiseEverything() {
    for (auto& [key, states] : states_) states = {states.back()};
  }

 private:
  std::vector<int>& States(const std::string& key) {
    touched_.insert(key);
    std::vector<int>& states = states_[key];
    if (states.empty()) states.push_back(-1);
    return states;
  }
  std::map<std::string, std::vector<int>> states_;
  std::set<std::string> touched_;
};

struct Killed {
  bool by_kill = false;
  int exit_code = -1;
  uint64_t lines = 0;
};

// Runs the child until it dies by its checkpoint, or kills it after `lines_max` lines.
Killed RunChild(const std::string& directory, uint64_t seed, const std::string& disk_io, const std::string& checkpoint,
                uint64_t lines_max, Promises* promises) {
  int ends[2];
  EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (std::string(*entry).rfind("SUTRA_CHECKPOINT=", 0) != 0) environment.emplace_back(*entry);
  }
  if (!checkpoint.empty()) environment.push_back("SUTRA_CHECKPOINT=" + checkpoint);
  std::vector<char*> environment_pointers;
  for (std::string& entry : environment) environment_pointers.push_back(entry.data());
  environment_pointers.push_back(nullptr);
  std::string program = CACHE_CRASH_CHILD, path = directory, number = std::to_string(seed), io = disk_io;
  char* arguments[] = {program.data(), path.data(), number.data(), io.data(), nullptr};
  pid_t child = -1;
  EXPECT_EQ(posix_spawn(&child, program.c_str(), &actions, nullptr, arguments, environment_pointers.data()), 0);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);

  promises->Begin();
  Killed killed;
  FILE* output = fdopen(ends[0], "r");
  char line[2048];
  while (std::fgets(line, sizeof(line), output) != nullptr) {
    if (std::string(line).back() != '\n') break;  // the kill came in the middle of a line: not reported
    promises->Read(line);
    if (++killed.lines == lines_max) kill(child, SIGKILL);
  }
  std::fclose(output);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  killed.by_kill = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  if (WIFEXITED(status)) killed.exit_code = WEXITSTATUS(status);
  return killed;
}

std::string Reopen(const std::string& directory, Promises* promises) {
  std::unique_ptr<DiskIo> io = MakeDiskIo(DiskIoKind::kAuto, directory, {}).value();
  CacheConfig config = test::SmallConfig(directory);
  config.wal_bytes_max = 320 << 10;
  Result<std::unique_ptr<CacheShard>> shard = CacheShard::Open(config, io.get(), Clock::Real());
  if (!shard.ok()) return shard.status().message();
  if ((*shard)->Stats().quarantined_segments != 0) return "damage reported without damage";
  return promises->Check(shard->get());
}

TEST(Crash, AtRandomTimes) {
  const uint64_t seed = test::TestSeed(1);
  const uint64_t rounds = test::NumberFromEnvironment("SUTRA_KILLS", 8);
  std::mt19937_64 random(seed);
  const test::TempDir temp;
  Promises promises;
  for (uint64_t round = 1; round <= rounds; ++round) {
    const Killed killed = RunChild(temp.path(), seed * 1000 + round, round % 2 == 0 ? "auto" : "posix", "",
                                   1 + random() % 1500, &promises);
    ASSERT_TRUE(killed.by_kill) << "exit code " << killed.exit_code;
    ASSERT_EQ(Reopen(temp.path(), &promises), "") << "round " << round;
  }
}

TEST(Crash, CanaryAPromiseTooMuchIsCaught) {
  int caught = 0;
  for (uint64_t round = 1; round <= 20 && caught == 0; ++round) {
    const test::TempDir temp;
    Promises promises;
    RunChild(temp.path(), round, "auto", "", 400 + round, &promises);
    promises.PromiseEverything();
    if (!Reopen(temp.path(), &promises).empty()) ++caught;
  }
  EXPECT_EQ(caught, 1);
}

class CrashAtCheckpoint : public testing::TestWithParam<const char*> {};

TEST_P(CrashAtCheckpoint, KeepsItsPromises) {
#if !defined(SUTRA_CHECKPOINTS)
  GTEST_SKIP() << "SKIPPED: built without SUTRA_CHECKPOINTS";
#else
  for (const int nth : {1, 2, 7}) {
    const test::TempDir temp;
    Promises promises;
    // Something to recover, for the checkpoints of recovery and recycling.
    const Killed first = RunChild(temp.path(), 500, "auto", "", 300, &promises);
    ASSERT_TRUE(first.by_kill);
    const std::string name = GetParam();
    // Each start passes the checkpoints of recovery once.
    const bool of_recovery = name.rfind("recovery.", 0) == 0;
    if (of_recovery && nth > 1) break;
    // New files are made while the log grows only.
    if (name == "segment.allocated" && nth > 2) break;
    const Killed killed = RunChild(temp.path(), 501, nth == 2 ? "posix" : "auto", name + ":kill:" + std::to_string(nth),
                                   UINT64_MAX, &promises);
    ASSERT_TRUE(killed.by_kill) << name << " was never reached; exit code " << killed.exit_code;
    ASSERT_EQ(Reopen(temp.path(), &promises), "") << name << ", hit " << nth;
  }
#endif
}

std::string CheckpointName(const testing::TestParamInfo<const char*>& checkpoint) {
  std::string name = checkpoint.param;
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, CrashAtCheckpoint,
                         testing::Values("wal.encoded", "wal.submitted", "wal.completed", "wal.sync_submitted",
                                         "wal.synced", "wal.acked", "segment.allocated", "segment.header_written",
                                         "segment.dir_synced", "segment.unlinked", "segment.indexed",
                                         "recovery.scanned", "recovery.cut", "recovery.opened"),
                         CheckpointName);

}  // namespace
}  // namespace sutra
