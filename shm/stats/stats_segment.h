// The named stats segment: counters, gauges and latency histograms of one engine. The engine creates it; any allowed
// observer reads it (stats_reader.h) while the engine runs, after it stopped and after it crashed.
//
// Thread rule: StatsSegment is created by the engine's main thread; its setters are called by one thread at a time; the
// writer() it hands out follows the rule of stats_writer.h.
//
// Invariants:
//  - Only the holder of the engine's socket lock creates the segment, so removing an old one of the same name is safe.
//  - The segment is sized once and never truncated again; its version word is stored last.
//  - It is not removed when the engine exits: a stopped or crashed engine stays readable.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "shm/base/host.h"
#include "shm/base/status.h"
#include "shm/stats/stats_layout.h"
#include "shm/stats/stats_writer.h"

namespace sutra {

struct StatsSegmentOptions {
  std::string socket_path;  // of the engine; its real path names the segment
  uint32_t mode = 0640;     // 0644 lets every local user watch
  uint64_t engine_generation = 0;
  BootId boot_id{};                                                       // all zero = this host's
  std::string model, identity, precision, device, disk_io, version_text;  // may also be set later
};

class StatsSegment {
 public:
  // Removes a segment of the same name, creates a new one, fills header and label tables. Fails with a message that
  // names the cause and the fix (another user owns the name, /dev/shm is full, no permission).
  static Result<std::unique_ptr<StatsSegment>> Create(const StatsSegmentOptions& options);
  // The same in private memory, which no other process sees: for tests and for an engine told not to publish.
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

}  // namespace sutra
