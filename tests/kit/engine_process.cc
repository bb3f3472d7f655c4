// Starting, stopping and observing a real engine, and removing what it leaves behind.
#include "tests/kit/engine_process.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "shm/base/time.h"
#include "shm/stats/stats_name.h"

namespace sutra::test {
namespace {

constexpr int kLookAgainMs = 5;

// A log for a failed test, without the list of options that every start prints.
std::string Shortened(const std::string& log) {
  std::istringstream lines(log);
  std::string shortened;
  for (std::string line; std::getline(lines, line);) {
    const size_t word = line.find_first_not_of("abcdefghijklmnopqrstuvwxyz-");
    const bool option = word != std::string::npos && word > 0 && line[word] == '=';
    if (!option && line[0] != '#') shortened += line + "\n";
  }
  return shortened;
}

// The stats segment stays after an engine by design; a test removes it.
std::string StatsFile(const std::string& socket, uid_t uid) {
  const Result<std::string> name = StatsSegmentName(socket, uid);
  return name.ok() ? "/dev/shm/" + name.value() : std::string("/dev/shm/sutra-stat.none");
}

}  // namespace

std::string EngineProgram() {
  const char* other = std::getenv("SUTRA_ENGINE_PROGRAM");
  return other != nullptr && *other != '\0' ? other : SUTRA_ENGINE_PROGRAM;
}
std::string TestClientProgram() { return SUTRA_TEST_CLIENT_PROGRAM; }

EngineProcess::EngineProcess(EngineOptions options) : options_(std::move(options)) {
  if (options_.socket.empty()) options_.socket = directory_ / "engine.sock";
  if (options_.data.empty()) options_.data = directory_ / "data";
  stats_file_ = StatsFile(options_.socket, options_.uid.value_or(geteuid()));
  LeftOvers::Get().Add(stats_file_);
  if (options_.uid.has_value()) {
    // The directory is the engine's; its log is written by us.
    static_cast<void>(!chown(directory_.path().c_str(), *options_.uid, *options_.uid));
  }
}

EngineProcess::~EngineProcess() {
  if (process_ != nullptr) {
    if (process_->Running()) process_->Kill();
    if (testing::Test::HasFailure()) {
      std::fprintf(stderr, "log of the engine at %s:\n%s\n", options_.socket.c_str(), Shortened(Log()).c_str());
    }
  }
  LeftOvers::Get().Remove(stats_file_);
}

void EngineProcess::Launch() {
  std::filesystem::create_directories(options_.data);
  if (options_.uid.has_value()) static_cast<void>(!chown(options_.data.c_str(), *options_.uid, *options_.uid));
  SpawnOptions spawn;
  spawn.args = {EngineProgram()};
  const std::pair<const char*, std::string> defaults[] = {{"--backend", "fake"},
                                                          {"--fake-width", std::to_string(kTestWidth)},
                                                          {"--threads", "1"},
                                                          {"--socket", options_.socket},
                                                          {"--data", options_.data},
                                                          {"--wal-segment-bytes", "1048576"},
                                                          {"--wal-bytes-max", "67108864"}};
  for (const auto& [name, value] : defaults) {
    if (std::find(options_.args.begin(), options_.args.end(), name) != options_.args.end()) continue;
    spawn.args.insert(spawn.args.end(), {name, value});
  }
  spawn.args.insert(spawn.args.end(), options_.args.begin(), options_.args.end());
  spawn.environment = options_.environment;
  spawn.log_path = directory_ / "engine.log";
  spawn.uid = options_.uid;
  spawn.forbid_io_uring = options_.forbid_io_uring;
  spawn.limits = options_.limits;
  spawn.close_standard_descriptors = options_.close_standard_descriptors;
  process_ = std::make_unique<ChildProcess>(spawn);
}

bool EngineProcess::Start() {
  Launch();
  // Ready means that a client can attach. Nothing announces it, so the loop tries; it ends early when the engine does.
  ClientHandle client;
  for (const uint64_t deadline = MonotonicNs() + kWaitMs * kNsPerMs; MonotonicNs() < deadline;) {
    const sutra_status status = client.Attach(options_.socket);
    if (status == SUTRA_OK) return true;
    if (status == SUTRA_REFUSED || !process_->Running()) break;
    poll(nullptr, 0, kLookAgainMs);
  }
  std::fprintf(stderr, "the engine does not serve (%s); its log:\n%s\n", sutra_error_text(), Shortened(Log()).c_str());
  return false;
}

ExitStatus EngineProcess::WaitEnd() {
  const std::optional<ExitStatus> status = process_->Wait(kWaitMs);
  EXPECT_TRUE(status.has_value()) << "the engine did not end";
  return status.has_value() ? *status : process_->Kill();
}

ExitStatus EngineProcess::Terminate() {
  process_->Signal(SIGTERM);
  return WaitEnd();
}

void EngineProcess::Kill() { process_->Kill(); }

std::string EngineProcess::Log() const { return ReadFile(directory_ / "engine.log"); }

StatsSnapshot EngineProcess::Stats() const {
  const uint64_t deadline = MonotonicNs() + static_cast<uint64_t>(kWaitMs) * kNsPerMs;
  for (;;) {
    Result<StatsReader> reader = StatsReader::OpenSocket(options_.socket);
    Status status = reader.status();
    if (reader.ok()) {
      Result<StatsSnapshot> snapshot = reader->Snapshot();
      if (snapshot.ok()) return std::move(snapshot).value();
      status = snapshot.status();
    }
    if (!process_->Running() || MonotonicNs() > deadline) {
      ADD_FAILURE() << status.message();
      return {};
    }
    poll(nullptr, 0, kLookAgainMs);  // it has begun, or taken over, just now
  }
}

bool EngineProcess::WaitStats(const std::function<bool(const StatsSnapshot&)>& condition, int beats,
                              int timeout_ms) const {
  uint64_t heartbeat = Stats().gauge("heartbeat_ns");
  for (const uint64_t deadline = MonotonicNs() + static_cast<uint64_t>(timeout_ms) * kNsPerMs;
       MonotonicNs() < deadline;) {
    const StatsSnapshot snapshot = Stats();
    if (snapshot.gauge("heartbeat_ns") != heartbeat) {
      heartbeat = snapshot.gauge("heartbeat_ns");
      if (beats > 0) --beats;
    }
    if (beats == 0 && condition(snapshot)) return true;
    poll(nullptr, 0, kLookAgainMs);
  }
  return false;
}

bool EngineProcess::WaitWritten() const {
  return WaitStats(
      [](const StatsSnapshot& s) {
        return s.gauge("wal_pending_records") == 0 && s.gauge("wal_oldest_unwritten_us") == 0;
      },
      2);
}

bool EngineProcess::WaitLanes(uint64_t lanes) const {
  return WaitStats([lanes](const StatsSnapshot& s) { return s.gauge("lanes") == lanes; }, 1);
}

ProcessFootprint FootprintOf(pid_t pid) {
  const std::string root = "/proc/" + std::to_string(pid);
  std::error_code error;
  ProcessFootprint footprint;
  for (std::filesystem::directory_iterator entry(root + "/fd", error), end; !error && entry != end;
       entry.increment(error)) {
    ++footprint.descriptors;
  }
  for (std::filesystem::directory_iterator entry(root + "/task", error), end; !error && entry != end;
       entry.increment(error)) {
    footprint.threads += ReadFile(entry->path().string() + "/comm").rfind("iou-", 0) != 0;
  }
  std::ifstream maps(root + "/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find("/memfd:") != std::string::npos) ++footprint.lane_maps;
  }
  return footprint;
}

std::string ToText(const ProcessFootprint& footprint) {
  return std::to_string(footprint.descriptors) + " descriptors, " + std::to_string(footprint.lane_maps) +
         " lane mappings, " + std::to_string(footprint.threads) + " threads";
}

bool OtherUserCanRunEngine(uid_t uid, std::string* reason) {
  if (!IsRoot()) {
    *reason = "needs root to become another user";
    return false;
  }
  SpawnOptions spawn;
  spawn.args = {EngineProgram(), "--version"};
  spawn.uid = uid;
  const Finished finished = RunToEnd(spawn, kWaitMs);
  if (finished.status.exited && finished.status.code == 0) return true;
  *reason = "another user cannot run the engine (" + ToText(finished.status) +
            "): its libraries lie where only its builder can read";
  return false;
}

}  // namespace sutra::test
