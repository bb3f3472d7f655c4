// Memory runs out at each allocation of each call of the cache, one after the other (P6): the call fails or drops what
// it was given, everything that was there before is still there and right, the shard goes on when there is memory
// again, and a later start finds what was durable. In a real directory, because the simulated disk needs memory of its
// own.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <thread>

#include "cache/disk/disk_io.h"
#include "cache/store/slot_table.h"
#include "shm/base/clock.h"
#include "tests/cache/cache_test_support.h"
#include "tests/kit/failing_new.h"
#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

using test::FailingNew;
using test::Inline;
using test::Put;
using test::VersionOf;
using Whose = FailingNew::Whose;

constexpr uint32_t kKept = 30;
constexpr uint64_t kS = 1'000'000'000;

const std::string kNew = "a new text that is longer than what an entry has room for " + std::string(300, 'n');

// A clock that waits without memory of its own, unlike ManualClock.
class StepClock final : public Clock {
 public:
  uint64_t MonotonicNs() const override { return now_ns_.load(std::memory_order_acquire); }
  uint64_t BootNs() const override { return MonotonicNs(); }
  uint64_t WallNs() const override { return 1'700'000'000 * kS + MonotonicNs(); }
  void WaitUntil(CondVar* condition, Mutex* mutex, uint64_t) override SUTRA_REQUIRES(mutex) {
    condition->WaitUntil(*mutex, Clock::Real()->MonotonicNs() + 1'000'000);
  }
  void Advance(uint64_t ns) { now_ns_.fetch_add(ns, std::memory_order_acq_rel); }

 private:
  std::atomic<uint64_t> now_ns_{kS};
};

class AllocationSweep : public testing::Test {
 protected:
  Result<std::unique_ptr<LoggedShard>> TryOpen(bool threaded) {
    LoggedShard::Options options;
    options.threaded = threaded;
    return LoggedShard::Open(config_, io_.get(), &clock_, options);
  }
  std::unique_ptr<LoggedShard> Open(bool threaded = false) {
    Result<std::unique_ptr<LoggedShard>> shard = TryOpen(threaded);
    EXPECT_TRUE(shard.ok()) << shard.status().message();
    return std::move(shard).value();
  }
  static std::string Kept(uint32_t i) { return "kept " + std::to_string(i); }
  static void PutKept(LoggedShard* shard) {
    for (uint32_t i = 0; i < kKept; ++i) Put(shard, Kept(i), i);
    ASSERT_TRUE(shard->Sync().ok());
  }
  static void ExpectKept(LoggedShard* shard) {
    for (uint32_t i = 0; i < kKept; ++i) ASSERT_EQ(VersionOf(shard, Kept(i)), static_cast<int>(i));
  }
  // The log may have stopped; a second later it works again.
  void ExpectWorks(LoggedShard* shard) {
    clock_.Advance(2 * kS);
    shard->Turn();
    ASSERT_FALSE(shard->Stats().storage_failed);
    ASSERT_TRUE(shard->Erase("never there", 0).ok());
    static_cast<void>(shard->Sync());  // it may report a loss, once
    ASSERT_TRUE(shard->Sync().ok());
    ExpectKept(shard);
  }

  // Lets each allocation of `call` fail in a shard of its own, and looks with `restarted` at what the next start finds.
  // Returns how many there are.
  uint64_t Sweep(
      const std::function<void(LoggedShard*)>& call,
      const std::function<void(LoggedShard*)>& restarted = [](LoggedShard*) {}) {
    for (uint64_t nth = 1;; ++nth) {
      auto shard = Open();
      PutKept(shard.get());
      bool failed = false;
      {
        FailingNew memory(nth, Whose::kThisThread);
        call(shard.get());
        failed = memory.failed();
      }
      ExpectWorks(shard.get());
      shard.reset();
      shard = Open();
      ExpectKept(shard.get());
      restarted(shard.get());
      if (testing::Test::HasFailure()) {
        ADD_FAILURE() << "allocation " << nth;
        return 0;
      }
      if (!failed) return nth - 1;
      if (nth > 1000) return 0;
    }
  }

  const test::TempDir temp_;
  CacheConfig config_ = test::SmallConfig(temp_ / "data");
  StepClock clock_;
  std::unique_ptr<DiskIo> io_ = MakePosixDiskIo(false);
};

TEST_F(AllocationSweep, AnInsertIsDroppedOrStoredAndNothingElseChanges) {
  const std::vector<float> vector = test::VectorOf(kNew, 1);
  const uint64_t swept = Sweep([&](LoggedShard* shard) {
    shard->Insert(kNew, 0, vector, CacheValue{1.0f, 1, false}, 0);
    clock_.Advance(60'000'000);
    shard->Turn();  // written
    clock_.Advance(kS);
    shard->Turn();  // synced
    clock_.Advance(kS);
    shard->Turn();  // a watermark
  });
  EXPECT_GT(swept, 4u);
}

TEST_F(AllocationSweep, AnInsertThatTurnsTheLogOverLosesNothing) {
  config_.wal_bytes_max = 4 * config_.wal_segment_bytes;
  const std::vector<float> vector = test::VectorOf(kNew, 1);
  const uint64_t swept = Sweep([&](LoggedShard* shard) {
    for (int i = 0; i < 15; ++i) {  // a segment and more
      shard->Insert(kNew, 0, vector, CacheValue{1.0f, 1, false}, 0);
      clock_.Advance(60'000'000);
      shard->Turn();
    }
  });
  EXPECT_GT(swept, 20u);
}

TEST_F(AllocationSweep, ALookupNeedsNoMemory) {
  std::vector<float> vector(test::kWidth);
  CacheValue value;
  bool hit = false;
  const std::string kept = Kept(3);
  EXPECT_EQ(Sweep([&](LoggedShard* shard) { hit = shard->Lookup(kept, 0, vector.data(), &value); }), 0u);
  EXPECT_TRUE(hit);
}

TEST_F(AllocationSweep, ARemovalSucceedsOrSaysThatItFailed) {
  const uint64_t swept = Sweep([&](LoggedShard* shard) {
    Status status;
    try {
      status = shard->Erase("a text", 0);
    } catch (const std::bad_alloc&) {
      status = Status(StatusCode::kOutOfMemory, "");  // the message of the error had no memory
    }
    const FailingNew::Excused excused;
    if (status.ok()) {
      EXPECT_EQ(VersionOf(shard, "a text"), -1);
    }
  });
  EXPECT_GT(swept, 2u);
}

TEST_F(AllocationSweep, ARemovalOfManySucceedsOrSaysThatItFailed) {
  const auto go_on = [](uint64_t, uint64_t) { return true; };
  const auto doomed = [](uint32_t i) { return "doomed " + std::to_string(i); };
  for (const bool everything : {false, true}) {
    CacheFilter filter;
    everything ? filter.everything = true : filter.never_hit = true;
    if (!everything) filter.contains = "doomed";
    bool confirmed = false;
    const auto expect_gone = [&](LoggedShard* shard) {
      for (uint32_t i = 0; confirmed && i < kKept; ++i) ASSERT_EQ(VersionOf(shard, doomed(i)), -1) << i;
    };
    const uint64_t swept = Sweep(
        [&](LoggedShard* shard) {
          {
            const FailingNew::Excused excused;
            for (uint32_t i = 0; i < kKept; ++i) Put(shard, doomed(i), i);
            ASSERT_TRUE(shard->Sync().ok());
          }
          confirmed = false;
          try {
            const Result<CacheAdmin::Preview> preview = shard->PreviewRemoval(filter, go_on);
            confirmed = preview.ok() && shard->CommitRemoval(preview->token, go_on).ok();
          } catch (const std::bad_alloc&) {
            confirmed = false;  // the message of the error had no memory
          }
          const FailingNew::Excused excused;
          expect_gone(shard);
          if (!everything) return;
          clock_.Advance(2 * kS);  // the log may have stopped
          shard->Turn();
          static_cast<void>(shard->Sync());
          PutKept(shard);
        },
        expect_gone);
    EXPECT_GT(swept, 2u) << everything;
  }
}

TEST_F(AllocationSweep, WhoLooksAtEntriesOrRewritesTheLogChangesNone) {
  const auto go_on = [](uint64_t, uint64_t) { return true; };
  const std::string kept = Kept(3);
  const uint64_t swept = Sweep([&](LoggedShard* shard) {
    try {
      static_cast<void>(shard->Get(kept, 0));
      uint64_t cursor = 0;
      static_cast<void>(shard->Visit(CacheAdmin::Which::kAll, &cursor, [](const CacheEntry&) { return true; }));
      static_cast<void>(shard->Compact(go_on));
    } catch (const std::bad_alloc&) {
      return;  // the message of an error had no memory
    }
  });
  EXPECT_GT(swept, 5u);
}

TEST_F(AllocationSweep, AStartFailsWithTheReasonOrServesAndLeavesTheLogAsItWas) {
  {
    auto shard = Open();
    PutKept(shard.get());
    for (uint32_t i = 0; i < 600; ++i) Put(shard.get(), "another " + std::to_string(i), i);
  }
  uint64_t nth = 1;
  uint64_t refused = 0;
  for (bool failed = true; failed; ++nth) {
    ASSERT_LT(nth, 5000u);
    {
      Result<std::unique_ptr<LoggedShard>> shard = Status(StatusCode::kNotReady, "");
      {
        FailingNew memory(nth, Whose::kThisThread);
        shard = TryOpen(false);
        failed = memory.failed();
      }
      if (shard.ok()) {
        ExpectWorks(shard->get());
      } else {
        ++refused;
        EXPECT_EQ(shard.code(), StatusCode::kOutOfMemory) << shard.status().message();
      }
    }
    if (nth % 7 == 0 || !failed) ExpectKept(Open().get());
    ASSERT_FALSE(testing::Test::HasFailure()) << "allocation " << nth;
  }
  EXPECT_GT(refused, 20u);
}

// With its threads: the committer and the preparer fail too, and go on.
TEST_F(AllocationSweep, NoThreadOfTheShardEndsWithTheProcess) {
  const std::vector<float> vector = test::VectorOf(kNew, 1);
  // Each refused sync below costs a second of this clock: until a starved committer has its turn, a day may pass.
  config_.ttl_s_default = kTtlSecondsMax;
  auto shard = Open(true);
  PutKept(shard.get());
  for (uint64_t nth = 1; nth < 200; ++nth) {
    {
      FailingNew memory(nth, Whose::kAllThreads, 1 + nth % 9);
      for (int i = 0; i < 20; ++i) {
        shard->Insert(kNew, 0, vector, CacheValue{1.0f, 1, false}, 0);
        clock_.Advance(60'000'000);
        std::this_thread::yield();
      }
    }
    clock_.Advance(2 * kS);
  }
  for (int i = 0; shard->Stats().storage_failed && i < 1000; ++i) {
    clock_.Advance(2 * kS);
    std::this_thread::yield();
  }
  while (!shard->Sync().ok()) clock_.Advance(kS);
  ExpectKept(shard.get());
  shard.reset();
  ExpectKept(Open().get());
}

// The table alone: only long texts need memory, beside the pages of its ranges.
TEST(AllocationSweepOfTheStore, EachInsertIsWholeOrMissing) {
  constexpr uint32_t kEntries = 300;
  const std::vector<float> vector(8, 1.0f);
  std::vector<std::string> texts;
  for (uint32_t i = 0; i < kEntries; ++i)
    texts.push_back("text " + std::to_string(i) +
                    std::string(i % 3 == 0 ? SlotTable::kLongTextBytes : i % 3 * 200, 'l'));
  uint64_t nth = 1;
  for (bool failed = true; failed; ++nth) {
    SlotTable store(SlotTable::Limits{8, 1000, 64 << 20});
    std::vector<bool> stored(kEntries);
    {
      FailingNew memory(nth, Whose::kThisThread, 3);
      for (uint32_t i = 0; i < kEntries; ++i) {
        const EntryKey key = store.KeyOf(texts[i], 0);
        const MutexLock lock(store.mutex());
        const uint32_t slot = store.PutLocked(key, std::as_bytes(std::span(vector)), CacheValue{}, UINT64_MAX, 0).slot;
        stored[i] = slot != SlotTable::kNoSlot;
        if (stored[i]) store.SetSegmentLocked(slot, 1);
      }
      failed = memory.failed();
    }
    std::vector<float> found(8);
    CacheValue value;
    uint64_t count = 0;
    for (uint32_t i = 0; i < kEntries; ++i) {
      ASSERT_EQ(store.Lookup(store.KeyOf(texts[i], 0), 0, found.data(), &value), stored[i]) << texts[i];
      count += stored[i] ? 1 : 0;
    }
    ASSERT_EQ(store.GetCounts().entries, count);
    ASSERT_EQ(store.EvictOlder(1), count);
    ASSERT_EQ(store.GetCounts().bytes, 0u);
  }
  EXPECT_GT(nth, 90u);
}

// The canary: a sweep over code that does not mind its memory finds it.
TEST(AllocationSweepCanary, CodeThatForgetsARecordWithoutMemoryIsFound) {
  std::vector<std::unique_ptr<int>> records;
  uint64_t promised = 0;
  const auto careless = [&] {
    ++promised;
    records.push_back(std::make_unique<int>(1));
  };
  bool found = false;
  for (uint64_t nth = 1; nth < 5 && !found; ++nth) {
    {
      FailingNew memory(nth, Whose::kThisThread);
      try {
        careless();
      } catch (const std::bad_alloc&) {
        found = promised != records.size();
      }
    }
  }
  EXPECT_TRUE(found);
}

}  // namespace
}  // namespace sutra
