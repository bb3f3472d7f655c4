// How much of the hot set survives kill -9 and a restart. A store that is full, with log and memory in the proportion
// of the defaults; hot keys that are hit all the time, beside a scan of one-time keys six times as large; then SIGKILL
// to the process, and a new one that looks for every hot key that was there. Thread rule: the main thread.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "bench/bench_child.h"
#include "bench/cache_bench_support.h"
#include "cache/disk/disk_io.h"
#include "shm/base/clock.h"

namespace sutra::bench {

class HotSet {
 public:
  static constexpr uint64_t kEntries = 20'000;  // that the store holds
  static constexpr uint64_t kHot = kEntries / 2;
  static constexpr uint64_t kScan = 6 * kHot;
  static constexpr int kHitsPerInsert = 4;

  struct Result {
    double before_percent = -1;  // of the hot keys, right before the kill; negative: a process failed
    double kept_percent = -1;    // of those, after the restart
  };

  explicit HotSet(const std::string& directory) : directory_(directory) {
    void* const shared = mmap(nullptr, kHot, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);  // zeroed
    there_ = shared == MAP_FAILED ? nullptr : static_cast<uint8_t*>(shared);
  }
  ~HotSet() {
    if (there_ != nullptr) munmap(there_, kHot);
  }
  HotSet(const HotSet&) = delete;
  HotSet& operator=(const HotSet&) = delete;

  // `meanwhile` happens between the kill and the restart.
  Result Run(const std::function<void()>& meanwhile = [] {}) const {
    Result result;
    if (there_ == nullptr) return result;
    const double before = InChild([this] { return Work(); }, true);
    meanwhile();
    const double after = before < 0 ? -1 : InChild([this] { return CountKept(); });
    if (before <= 0 || after < 0) return result;
    result.before_percent = 100 * before / kHot;
    result.kept_percent = 100 * after / before;
    return result;
  }

 private:
  // The defaults, scaled down from their number of entries to this one.
  CacheConfig Config() const {
    const auto scaled = [](uint64_t value) { return value / (kCacheEntriesDefault / kEntries); };
    CacheConfig config = ConfigFor(directory_);
    config.entries_max = kEntries;
    config.bytes_max = scaled(config.bytes_max);
    config.wal_bytes_max = scaled(config.wal_bytes_max);
    config.wal_segment_bytes = scaled(config.wal_segment_bytes) / kWalBlockBytes * kWalBlockBytes;
    return config;
  }
  static std::string Key(uint64_t number) { return ShortTextOf(number); }
  static bool IsThere(CacheShard* shard, uint64_t number) {
    std::vector<float> vector(kWidth);
    CacheValue value;
    return shard->Lookup(Key(number), 0, vector.data(), &value) && vector == VectorFor(number);
  }

  // RETURNS how many hot keys are there at the end, all of it written.
  double Work() const {
    // Both live until the kill.
    DiskIo* const io = MakeDiskIo(DiskIoKind::kAuto, directory_, {}).value().release();
    auto opened = CacheShard::Open(Config(), io, Clock::Real());
    if (!opened.ok()) return -1;
    CacheShard* const shard = opened.value().release();
    for (uint64_t i = 0; i < kHot; ++i) Insert(shard, i);
    std::mt19937_64 random(1);
    std::vector<float> vector(kWidth);
    CacheValue value;
    for (uint64_t i = 0; i < kScan; ++i) {
      Insert(shard, kHot + i);
      for (int hit = 0; hit < kHitsPerInsert; ++hit) shard->Lookup(Key(random() % kHot), 0, vector.data(), &value);
    }
    if (!shard->Sync().ok() || shard->Stats().wal_dropped_inserts != 0) return -1;
    double count = 0;
    for (uint64_t i = 0; i < kHot; ++i) {
      there_[i] = IsThere(shard, i) ? 1 : 0;
      count += there_[i];
    }
    return count;
  }

  static void Insert(CacheShard* shard, uint64_t number) {
    shard->Insert(Key(number), 0, VectorFor(number), CacheValue{1, 40, false}, 0);
    while (number % 128 == 0 && shard->Stats().wal_pending_records > 2048) std::this_thread::yield();
  }

  double CountKept() const {
    const std::unique_ptr<DiskIo> io = MakeDiskIo(DiskIoKind::kAuto, directory_, {}).value();
    const auto shard = CacheShard::Open(Config(), io.get(), Clock::Real());
    if (!shard.ok()) return -1;
    double count = 0;
    for (uint64_t i = 0; i < kHot; ++i) count += there_[i] != 0 && IsThere(shard.value().get(), i) ? 1 : 0;
    return count;
  }

  const std::string directory_;
  uint8_t* there_ = nullptr;  // per hot key, shared by the processes: it was there before the kill
};

}  // namespace sutra::bench
