// A small log on the simulated disk, recovery into a map, and what the map must be. For tests of format and damage.
#pragma once

#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "cache/key_digest.h"
#include "cache/wal/recovery.h"
#include "tests/cache/cache_test_support.h"
#include "tests/cache/wal/without_index.h"
#include "tests/sim/manual_clock.h"
#include "tests/sim/sim_disk.h"

namespace sutra::test {

// text -> version, or -2 for a vector that was never written.
using LogContent = std::map<std::string, int>;

// As in a removal's record, for a log with this seed.
inline EraseBody DigestOf(const std::string& text, uint32_t variant, uint64_t seed) {
  const KeyDigest digest = sutra::DigestOf(text, variant, seed);
  return EraseBody{digest.low, digest.high, variant};
}

class MapSink final : public RecoverySink {
 public:
  void Begin(uint64_t hash_seed) override { seed_ = hash_seed; }
  void Insert(const WalRecord& record, uint64_t) override {
    const std::string text(record.text);
    const std::vector<float> expected = VectorOf(text, record.insert.token_count);
    const bool right = record.vector.size() == kWidth * sizeof(float) &&
                       std::memcmp(record.vector.data(), expected.data(), record.vector.size()) == 0;
    Clear(record.header.slot);
    slots_[record.header.slot] = text;
    content[text] = right ? static_cast<int>(record.insert.token_count) : -2;
  }
  void InsertIndexed(const IndexEntry&, uint64_t) override { ADD_FAILURE() << "Recover reads every record"; }
  void Clear(uint32_t slot) override {
    const auto found = slots_.find(slot);
    if (found == slots_.end()) return;
    content.erase(found->second);
    slots_.erase(found);
  }
  void Erase(const EraseBody& key) override {
    std::erase_if(content, [&](const auto& entry) {
      const EraseBody other = DigestOf(entry.first, 0, seed_);
      return other.digest_low == key.digest_low && other.digest_high == key.digest_high;
    });
  }
  uint64_t DropAll() override {
    const uint64_t dropped = content.size();
    content.clear();
    slots_.clear();
    return dropped;
  }
  LogContent content;

 private:
  std::map<uint32_t, std::string> slots_;
  uint64_t seed_ = 0;
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
  request.every_record = true;
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

// a, b, c inserted; a erased; b replaced; d inserted; closed, but without an index, as after a kill. Returns the
// content that recovery must find.
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
  shard->reset();
  const std::string path = kSmallLogDirectory + "/" + SegmentName(1);
  std::vector<std::byte> bytes = disk->Bytes(path);
  ZeroIndex(&bytes);
  disk->SetBytes(path, std::move(bytes));
  return {{"b", 4}, {"c", 3}, {"a longer text, so that it does not fit beside the others", 5}};
}

}  // namespace sutra::test
