// The named segment behind shm/stats/counters.h: the engine creates it, observers read it while the engine runs, after it
// stopped and after it crashed.
//
// Thread rule: StatsSegment is made by the engine's main thread; its setters are called by one thread at a time; the
// writer() it hands out follows the rule of counters.h. StatsReader belongs to one thread.
//
// Invariants:
//  - Only the holder of the engine's socket lock creates the segment, so removing an old one of the same name is safe.
//  - The segment is sized once and never truncated again; its version word is stored last.
//  - It is not removed when the engine ends: a stopped or crashed engine stays readable.
//  - An observer trusts nothing in the segment: every offset, count and stride is checked against fstat's size.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "shm/base/host.h"
#include "shm/base/status.h"
#include "shm/stats/counters.h"

namespace sutra {

struct StatsSegmentOptions {
  std::string socket_path;  // of the engine; its real path names the segment
  uint32_t mode = 0640;     // 0644 lets every local user watch
  uint64_t engine_generation = 0;
  BootId boot_id{};                                                       // all zero = this host's is read
  std::string model, identity, precision, device, disk_io, version_text;  // may also be set later
};

// `socket_path` with its directory resolved; the socket need not exist, its directory must.
Result<std::string> RealSocketPath(const std::string& socket_path);
// "sutra-stat.<uid>.<16 hex of SHA-256 of the socket's real path>".
Result<std::string> StatsSegmentName(const std::string& socket_path, uint32_t uid);

class StatsSegment {
 public:
  // Removes a segment of the same name, creates a new one, fills header and label tables. Fails with a message that
  // names the cause and the fix (another user owns the name, /dev/shm is full, no permission).
  static Result<std::unique_ptr<StatsSegment>> Create(const StatsSegmentOptions& options);
  // The same in private memory, which nobody else sees: for tests and for an engine told not to publish.
  static std::unique_ptr<StatsSegment> CreatePrivate();
  // Removes the segment of a socket; kOk if there was none.
  static Status Remove(const std::string& socket_path);

  ~StatsSegment();
  StatsSegment(const StatsSegment&) = delete;
  StatsSegment& operator=(const StatsSegment&) = delete;

  StatsWriter writer() const;
  const std::string& name() const { return name_; }  // empty when private

  // Header strings; cut at the field's size. Observers may see a mixture of old and new bytes for a moment.
  void SetModel(const std::string& model, const std::string& identity, const std::string& precision,
                const std::string& device);
  void SetDiskIo(const std::string& disk_io);

 private:
  struct Mapping;
  StatsSegment();
  void Fill(const StatsSegmentOptions& options);
  StatsHeader& header() const;

  std::unique_ptr<Mapping> mapping_;
  std::byte* base_ = nullptr;
  std::string name_;
};

struct HistogramSnapshot {
  uint64_t count = 0, sum = 0, max = 0;
  std::vector<uint64_t> buckets;

  // The value below which `fraction` of the recorded values lie, to the histogram's 1/16; 0 if nothing was recorded.
  double Percentile(double fraction) const;
  double Mean() const { return count == 0 ? 0.0 : static_cast<double>(sum) / static_cast<double>(count); }
  // What was recorded since `earlier` (a snapshot of the same histogram); max stays the overall one.
  HistogramSnapshot Since(const HistogramSnapshot& earlier) const;
};

// One consistent enough copy: each word is whole, words are read one after the other while the engine goes on.
struct StatsSnapshot {
  uint16_t major = 0, minor = 0;
  uint64_t engine_generation = 0;
  BootId boot_id{};
  std::string model, identity, precision, device, socket, disk_io, version_text;
  std::map<std::string, uint64_t> counters, gauges;
  std::map<std::string, HistogramSnapshot> histograms;
  uint64_t taken_monotonic_ns = 0, taken_wall_ns = 0;  // when the copy was made

  // 0 / an empty histogram for a label this engine does not have.
  uint64_t counter(const std::string& label) const;
  uint64_t gauge(const std::string& label) const;
  const HistogramSnapshot& histogram(const std::string& label) const;
};

// Parses a private copy of a segment's bytes. Never reads outside `bytes`, whatever they hold. The clock fields stay 0.
Result<StatsSnapshot> ParseStats(std::span<const std::byte> bytes);

class StatsReader {
 public:
  // By the engine's socket path (an engine of this user first, else of any user), or by a segment's name.
  static Result<StatsReader> OpenSocket(const std::string& socket_path);
  static Result<StatsReader> OpenName(const std::string& name);
  // Names of the segments on this host that this user may read, newest first.
  static std::vector<std::string> List();

  StatsReader(StatsReader&&) noexcept;
  StatsReader& operator=(StatsReader&&) noexcept;
  ~StatsReader();

  const std::string& name() const { return name_; }
  // kNotReady: the creator has not finished. kRefused: another major, or not a stats segment.
  Result<StatsSnapshot> Snapshot() const;
  // True when the name now leads to another segment (the engine was started again): Reopen follows it.
  bool Replaced() const;
  Status Reopen();

 private:
  struct Mapping;
  StatsReader();
  std::unique_ptr<Mapping> mapping_;
  std::string name_;
};

enum class EngineLife { kStarting, kAlive, kDraining, kStale, kStopped, kCrashed };
const char* EngineLifeName(EngineLife life);

// What an observer can find out besides the segment.
struct EngineWitness {
  // The lock file beside the socket, which an engine holds for life: the kernel's answer, immune to pid reuse.
  enum class Lock { kUnknown, kHeld, kFree } lock = Lock::kUnknown;
  bool pid_exists = false;  // a process with the engine's pid runs; it may be another program
  bool same_boot = true;
};
EngineWitness WitnessEngine(const StatsSnapshot& snapshot);

inline constexpr uint64_t kHeartbeatStaleNs = 1'000'000'000;  // ten missed beats

// Nanoseconds since the last heartbeat; by the monotonic clock where both share one, else by the wall clock.
uint64_t HeartbeatAgeNs(const StatsSnapshot& snapshot, const EngineWitness& witness);
EngineLife JudgeEngine(const StatsSnapshot& snapshot, const EngineWitness& witness);

}  // namespace sutra
