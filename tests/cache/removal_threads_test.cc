// Removals beside a flood of inserts and hits of the texts that they doom, from threads, on real files: once a removal
// is confirmed, no doomed text is answered from a computation that began before it, neither by the shard nor by a copy
// elsewhere that obeys the observer's rules. Meant for TSan as well.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "cache/disk/disk_io.h"
#include "shm/base/clock.h"
#include "tests/cache/cache_test_support.h"
#include "tests/kit/by_build.h"
#include "tests/kit/temp_dir.h"

namespace sutra::test {
namespace {

constexpr uint32_t kTexts = 60;  // every second one is doomed
constexpr uint32_t kRounds = ByBuild(60, 30, 30);
constexpr auto kRelaxed = std::memory_order_relaxed;

// A copy of what is asked for often, kept by the rules that RemovalObserver and CacheShard::Removals set.
class Copies final : public RemovalObserver {
 public:
  void Publish(const std::string& text, uint32_t version, uint64_t removals_seen) {
    const MutexLock lock(mutex_);
    const auto removed = removed_.find(text);
    if (all_removed_ > removals_seen || (removed != removed_.end() && removed->second > removals_seen)) return;
    versions_[text] = version;
  }
  uint32_t Find(const std::string& text) {
    const MutexLock lock(mutex_);
    const auto found = versions_.find(text);
    return found != versions_.end() ? found->second : 0;
  }
  void OnErased(std::string_view text, uint32_t, uint64_t removals) override {
    const MutexLock lock(mutex_);
    versions_.erase(std::string(text));
    removed_[std::string(text)] = removals;
  }
  void OnManyErased(uint64_t removals) override {
    const MutexLock lock(mutex_);
    versions_.clear();
    all_removed_ = removals;
  }

 private:
  Mutex mutex_;
  std::map<std::string, uint32_t> versions_ SUTRA_GUARDED_BY(mutex_);
  std::map<std::string, uint64_t> removed_ SUTRA_GUARDED_BY(mutex_);
  uint64_t all_removed_ SUTRA_GUARDED_BY(mutex_) = 0;
};

class Flood {
 public:
  explicit Flood(CacheShard* shard, Copies* copies) : shard_(shard), copies_(copies) {}

  static std::string TextOf(uint32_t number) {
    // One is long: its text is looked at outside the store's lock.
    return (number % 2 == 0 ? "doomed " : "other ") + std::to_string(number) +
           std::string(number % 60 == 0 ? 70'000 : 10, 'x');
  }

  // Computes what is not there, as an engine does: what it will store, it begins now, and may end much later.
  void Compute(uint64_t seed) {
    std::mt19937_64 random(seed);
    struct Begun {
      uint32_t number = 0, version = 0;
      uint64_t removals_seen = 0;
    };
    std::array<Begun, 8> under_way = {};
    while (!ended_.load(kRelaxed)) {
      // As many as a disk keeps up with: each removal waits behind what is queued.
      if (shard_->Stats().wal_pending_records > 100) {
        std::this_thread::yield();
        continue;
      }
      Begun& begun = under_way[random() % under_way.size()];
      if (begun.version != 0) {
        const std::string text = TextOf(begun.number);
        shard_->Insert(text, 0, VectorOf(text, begun.version),
                       CacheValue{static_cast<float>(begun.version), begun.version, false}, 0, begun.removals_seen);
      }
      // The number of removals first: a version tells that it began later than another, never earlier.
      begun.removals_seen = shard_->Removals();
      begun.number = static_cast<uint32_t>(random() % kTexts);
      begun.version = now_.fetch_add(1, std::memory_order_acq_rel) + 1;
    }
  }

  void Read(uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<float> vector(kWidth);
    while (!ended_.load(kRelaxed)) {
      const auto number = static_cast<uint32_t>(random() % kTexts);
      const std::string text = TextOf(number);
      const uint32_t confirmed = confirmed_[number].load(std::memory_order_acquire);
      const uint64_t removals_seen = shard_->Removals();
      CacheValue value;
      const bool found = shard_->Lookup(text, 0, vector.data(), &value);
      if (found && vector != VectorOf(text, value.token_count)) wrong_.fetch_add(1, kRelaxed);
      if (found && value.token_count <= confirmed) stale_.fetch_add(1, kRelaxed);
      if (found) copies_->Publish(text, value.token_count, removals_seen);
      found_.fetch_add(found ? 1 : 0, kRelaxed);
      const uint32_t confirmed_before_copy = confirmed_[number].load(std::memory_order_acquire);
      const uint32_t copy = copies_->Find(text);
      if (copy != 0 && copy <= confirmed_before_copy) stale_copies_.fetch_add(1, kRelaxed);
    }
  }

  void Confirm(uint32_t number, uint32_t began) { confirmed_[number].store(began, std::memory_order_release); }
  uint32_t Now() { return now_.fetch_add(1, std::memory_order_acq_rel) + 1; }

  void End() { ended_.store(true, kRelaxed); }
  uint64_t wrong() const { return wrong_.load(kRelaxed); }
  uint64_t stale() const { return stale_.load(kRelaxed); }
  uint64_t stale_copies() const { return stale_copies_.load(kRelaxed); }
  uint64_t found() const { return found_.load(kRelaxed); }

 private:
  CacheShard* const shard_;
  Copies* const copies_;
  std::atomic<uint32_t> now_{0};
  // By text: computations up to here began before a removal of it that is confirmed.
  std::array<std::atomic<uint32_t>, kTexts> confirmed_ = {};
  std::atomic<bool> ended_{false};
  std::atomic<uint64_t> wrong_{0}, stale_{0}, stale_copies_{0}, found_{0};
};

void RunFlood(DurabilityPolicy policy) {
  const uint64_t seed = TestSeed(23);
  const TempDir temp;
  std::unique_ptr<DiskIo> io = MakeDiskIo(DiskIoKind::kAuto, temp.path(), {}).value();
  Copies copies;
  CacheConfig config = SmallConfig(temp.path());
  config.wal_segment_bytes = 1 << 20;
  config.wal_bytes_max = 16 << 20;
  config.policy = policy;
  config.observer = &copies;
  std::unique_ptr<CacheShard> shard = CacheShard::Open(config, io.get(), Clock::Real()).value();
  Flood flood(shard.get(), &copies);
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 2; ++t) threads.emplace_back([&, t] { flood.Compute(seed + t); });
  for (uint64_t t = 0; t < 2; ++t) threads.emplace_back([&, t] { flood.Read(seed + 10 + t); });
  const auto go_on = [](uint64_t, uint64_t) { return true; };
  uint64_t removed = 0;
  for (uint32_t round = 0; round < kRounds; ++round) {
    // All texts are there, and asked for.
    const uint64_t found = flood.found();
    while (shard->Stats().entries < kTexts || flood.found() < found + 20) std::this_thread::yield();
    const uint32_t kind = round % 10;
    if (kind < 3) {
      const uint32_t number = round * 7 % kTexts;
      const uint32_t began = flood.Now();
      EXPECT_TRUE(shard->Erase(Flood::TextOf(number), 0).ok());
      flood.Confirm(number, began);
      continue;
    }
    CacheFilter filter;
    filter.everything = kind == 9;
    if (!filter.everything) filter.contains = "doomed";
    const Result<CacheAdmin::Preview> preview = shard->PreviewRemoval(filter, go_on);
    EXPECT_TRUE(filter.everything || preview->entries == kTexts / 2);
    const uint32_t began = flood.Now();
    const Result<CacheAdmin::Removal> removal = shard->CommitRemoval(preview->token, go_on);
    EXPECT_TRUE(removal.ok()) << removal.status().message();
    removed += removal.ok() ? removal->entries : 0;
    for (uint32_t number = 0; number < kTexts; ++number) {
      if (filter.everything || number % 2 == 0) flood.Confirm(number, began);
    }
  }
  flood.End();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(flood.wrong(), 0u);
  EXPECT_EQ(flood.stale(), 0u);
  EXPECT_EQ(flood.stale_copies(), 0u);
  EXPECT_GT(flood.found(), 100u);
  EXPECT_GT(removed, 0u);
  // Everything at rest: one more, and a start finds nothing of it.
  const Result<CacheAdmin::Preview> preview = shard->PreviewRemoval({.everything = true, .contains = {}}, go_on);
  ASSERT_TRUE(shard->CommitRemoval(preview->token, go_on).ok());
  EXPECT_EQ(shard->Stats().entries, 0u);
  if (policy == DurabilityPolicy::kNone) return;
  shard.reset();
  shard = CacheShard::Open(config, io.get(), Clock::Real()).value();
  EXPECT_EQ(shard->Stats().entries, 0u);
}

TEST(RemovalThreads, NothingOfBeforeIsAnsweredAfterTheConfirmation) { RunFlood(DurabilityPolicy::kInterval); }
TEST(RemovalThreads, TheSameWithoutALog) { RunFlood(DurabilityPolicy::kNone); }

// Lookups and inserts go on beside a compaction, and what is removed meanwhile stays removed.
TEST(RemovalThreads, ACompactionBesideInsertsAndRemovalsLosesNothing) {
  const TempDir temp;
  std::unique_ptr<DiskIo> io = MakeDiskIo(DiskIoKind::kAuto, temp.path(), {}).value();
  CacheConfig config = SmallConfig(temp.path());
  std::unique_ptr<CacheShard> shard = CacheShard::Open(config, io.get(), Clock::Real()).value();
  for (uint32_t i = 0; i < 300; ++i) Put(shard.get(), "kept " + std::to_string(i), i);
  std::atomic<bool> ended{false};
  std::thread writer([&] {
    for (uint32_t i = 0; !ended.load(kRelaxed); ++i) {
      Put(shard.get(), "changing " + std::to_string(i % 50), i);
      if (i % 16 == 0) {
        EXPECT_TRUE(shard->Erase("gone", 0).ok());
      }
      Put(shard.get(), i % 16 == 15 ? "changing" : "gone", i);
    }
  });
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(shard->Compact([](uint64_t, uint64_t) { return true; }).ok());
  }
  ended.store(true, kRelaxed);
  writer.join();
  ASSERT_TRUE(shard->Erase("gone", 0).ok());
  EXPECT_EQ(shard->Stats().evictions, 0u);
  shard.reset();
  shard = CacheShard::Open(config, io.get(), Clock::Real()).value();
  EXPECT_EQ(VersionOf(shard.get(), "gone"), -1);
  for (uint32_t i = 0; i < 300; ++i) {
    ASSERT_EQ(VersionOf(shard.get(), "kept " + std::to_string(i)), static_cast<int>(i));
  }
}

}  // namespace
}  // namespace sutra::test
