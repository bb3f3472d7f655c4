// A small log on the simulated disk, recovery into a map, and what the map must be. For tests of format and damage.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "cache/wal/recovery.h"
#include "tests/cache/cache_test_support.h"
#include "tests/sim/manual_clock.h"
#include "tests/sim/sim_disk.h"

namespace sutra::test {

// text -> version, or -2 for a vector that was never written.
using LogContent = std::map<std::string, int>;

class MapSink final : public RecoverySink {
 public:
  void Insert(const WalRecord& record, uint64_t) override {
    const std::string text(record.text);
    const std::vector<float> expected = VectorOf(text, record.insert.token_count);
    const bool right = record.vector.size() == kWidth * sizeof(float) &&
                       std::memcmp(record.vector.data(), expected.data(), record.vector.size()) == 0;
    content[text] = right ? static_cast<int>(record.insert.token_count) : -2;
  }
  void Erase(const WalRecord& record) override { content.erase(std::string(record.text)); }
  uint64_t DropAll() override {
    const uint64_t dropped = content.size();
    content.clear();
    return dropped;
  }
  LogContent content;
};

struct Recovered {
  Status status;
  RecoveryPlan plan;
  LogContent content;
  bool reported() const { return !status.ok() || plan.damaged_segments > 0; }
};

inline Recovered Recover(DiskIo* io, const std::string& directory, bool strict = false) {
  RecoveryRequest request;
  request.directory = directory;
  request.width = kWidth;
  request.strict = strict;
  ParseIdentity(kIdentity, &request.model);
  MapSink sink;
  Result<RecoveryPlan> plan = RecoverLog(io, request, &sink);
  Recovered recovered;
  if (plan.ok()) {
    recovered.plan = std::move(plan).value();
  } else {
    recovered.status = plan.status();
  }
  recovered.content = std::move(sink.content);
  return recovered;
}

inline const std::string kSmallLogDirectory = "/data/" + kShardName;

// a, b, c inserted; a erased; b replaced; d inserted; closed. Returns the content that recovery must find.
inline LogContent WriteSmallLog(sim::SimDisk* disk, sim::ManualClock* clock) {
  Result<std::unique_ptr<LoggedShard>> shard = LoggedShard::Open(SmallConfig("/data"), disk, clock, Inline());
  if (!shard.ok()) return {};
  Put(shard->get(), "a", 1);
  Put(shard->get(), "b", 2);
  Put(shard->get(), "c", 3);
  static_cast<void>((*shard)->Sync());
  static_cast<void>((*shard)->Erase("a", 0));
  Put(shard->get(), "b", 4);
  Put(shard->get(), "a longer text, so that it does not fit beside the others", 5);
  static_cast<void>((*shard)->Sync());
  return {{"b", 4}, {"c", 3}, {"a longer text, so that it does not fit beside the others", 5}};
}

}  // namespace sutra::test
