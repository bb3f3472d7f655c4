// A real engine process for a test: its own directory, socket and log; started and waited for by attaching, stopped,
// killed, paused, started again on the same data; everything it left is removed at the end.
//
// Thread rule: the test's main thread (child_process.h says why); stats may be read from any thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "shm/stats/stats_reader.h"
#include "tests/kit/child_process.h"
#include "tests/kit/client_handle.h"
#include "tests/kit/fake_model_answers.h"
#include "tests/kit/temp_dir.h"

namespace sutra::test {

// Programs under test, given by CMake. The environment's SUTRA_ENGINE_PROGRAM names another one, e.g. an installed one.
std::string EngineProgram();
std::string TestClientProgram();

struct EngineOptions {
  std::vector<std::string> args;         // further options, or instead of the defaults
  std::vector<std::string> environment;  // "NAME=value": checkpoints, delays of the fake model
  std::optional<uid_t> uid;
  bool forbid_io_uring = false;
  std::string data, socket;                           // default: inside the private directory
  std::vector<std::pair<int, uint64_t>> limits = {};  // as SpawnOptions
  bool close_standard_descriptors = false;
};

inline constexpr int kWaitMs = 60'000;  // of anything that should happen at once: only a hang takes longer

class EngineProcess {
 public:
  explicit EngineProcess(EngineOptions options = {});
  ~EngineProcess();  // prints the log if the test failed
  EngineProcess(const EngineProcess&) = delete;
  EngineProcess& operator=(const EngineProcess&) = delete;

  const std::string& socket() const { return options_.socket; }
  const std::string& data() const { return options_.data; }
  const TempDir& directory() const { return directory_; }
  const std::string& stats_file() const { return stats_file_; }  // its stats segment, in /dev/shm
  EngineOptions& options() { return options_; }                  // for the next Start

  // Starts it and returns when a client could attach; false (with the reason printed) when it ended before.
  [[nodiscard]] bool Start();
  // Starts it without waiting, for starts that should fail.
  void Launch();
  // The exit status of an engine that should end by itself.
  ExitStatus WaitEnd();
  // SIGTERM and wait.
  ExitStatus Terminate();
  // SIGKILL and reap.
  void Kill();
  ChildProcess& process() { return *process_; }
  bool running() { return process_ != nullptr && process_->Running(); }
  std::string Log() const;

  // What its stats segment says; fails the test when it cannot be read.
  StatsSnapshot Stats() const;
  // Returns when every text that was answered before the call is in the log file (survives kill -9): nothing is
  // pending two heartbeats after the call. False if it did not happen within a minute.
  [[nodiscard]] bool WaitWritten() const;
  // Returns when the engine's own view has this many lanes.
  [[nodiscard]] bool WaitLanes(uint64_t lanes) const;
  // Returns when `condition` holds for a snapshot taken after at least `beats` further heartbeats.
  [[nodiscard]] bool WaitStats(const std::function<bool(const StatsSnapshot&)>& condition, int beats = 0,
                               int timeout_ms = kWaitMs) const;

 private:
  TempDir directory_;
  EngineOptions options_;
  std::string stats_file_;
  std::unique_ptr<ChildProcess> process_;
};

// What an engine holds, to compare before and after. The kernel's own io_uring workers do not count: they come and go.
struct ProcessFootprint {
  size_t descriptors = 0, lane_maps = 0, threads = 0;
  bool operator==(const ProcessFootprint&) const = default;
};
ProcessFootprint FootprintOf(pid_t pid);
std::string ToText(const ProcessFootprint& footprint);

// True when another user can run the engine; false (a reason to skip) when this user may not change users, or when the
// program needs libraries that only its builder can read.
bool OtherUserCanRunEngine(uid_t uid, std::string* reason);

}  // namespace sutra::test
