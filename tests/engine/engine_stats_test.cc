#include "engine/engine_stats.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "shm/base/clock.h"
#include "shm/shared_word.h"
#include "tests/kit/gated_backend.h"
#include "tests/kit/memory_cache.h"

namespace sutra {
namespace {

constexpr uint64_t kUntouched = 0xdeadbeef;
constexpr size_t kGauges = static_cast<size_t>(Gauge::kCount);

class CountingCache : public testing::MemoryCache {
 public:
  CacheStats Stats() const override {
    CacheStats stats;
    stats.entries = 11;
    stats.wal_syncs = 12;
    stats.storage_failed = true;
    return stats;
  }
};

class EngineStatsTest : public ::testing::Test {
 protected:
  EngineStatsTest() {
    for (size_t i = 0; i < kGauges; ++i) Word(i).store(kUntouched, std::memory_order_relaxed);
  }
  SharedWord<uint64_t>& Word(size_t gauge) {
    return *reinterpret_cast<SharedWord<uint64_t>*>(gauges_.data() + gauge * kStatsWordStride);
  }
  uint64_t Get(Gauge gauge) { return Word(static_cast<size_t>(gauge)).load(std::memory_order_relaxed); }
  ServedModel::Options ModelOptions(CacheShard* cache) {
    return {.backend = &backend_,
            .cache = cache,
            .ttl_s_default = 1,
            .batches = {.tokens_max = 100,
                        .texts_max = 100,
                        .queue_texts_max = 100,
                        .queue_bytes_max = 256 << 20,
                        .spin_us = 0},
            .stats = stats_};
  }

  std::vector<std::byte> gauges_ = std::vector<std::byte>(kGauges * kStatsWordStride);
  StatsWriter stats_{nullptr, gauges_.data(), nullptr};
  testing::GatedBackend backend_{4, 64};
  CountingCache cache_;
};

TEST_F(EngineStatsTest, EveryGaugeIsShown) {
  ServedModel model(ModelOptions(&cache_));
  ShowConstants(stats_, model.info, 256, 3);
  ShowGauges(model,
             {.now_ns = 5, .state = kEngineServing, .lanes = 3, .lanes_parked = 2, .standbys = 4, .standbys_ready = 1});
  const char* labels[] = {
#define SUTRA_LABEL(name, label) label,
      SUTRA_GAUGES(SUTRA_LABEL)
#undef SUTRA_LABEL
  };
  for (size_t i = 0; i < kGauges; ++i) EXPECT_NE(Word(i).load(std::memory_order_relaxed), kUntouched) << labels[i];
}

TEST_F(EngineStatsTest, AShardThatIsNotOpenIsShown) {
  ServedModel model(ModelOptions(nullptr));
  ShowGauges(model, {});
  EXPECT_EQ(Get(Gauge::kShardState), uint64_t{kShardNone});
  model.cache.Expect(Clock::Real());
  model.cache.Insert("waits", 0, std::vector<float>{1}, {}, 100);
  ShowGauges(model, {});
  EXPECT_EQ(Get(Gauge::kShardState), uint64_t{kShardOpening});
  EXPECT_EQ(Get(Gauge::kInsertsWaiting), 1u);
  model.cache.Fail(true);
  ShowGauges(model, {});
  EXPECT_EQ(Get(Gauge::kShardState), uint64_t{kShardFailed});
  EXPECT_EQ(Get(Gauge::kStorageFailed), 1u);
  EXPECT_EQ(Get(Gauge::kInsertsWaiting), 0u);
  EXPECT_EQ(Get(Gauge::kInsertsDropped), 1u);
}

TEST_F(EngineStatsTest, GaugesAreReadOffTheParts) {
  ServedModel model(ModelOptions(&cache_));
  auto computation = std::make_shared<Computation>();
  computation->text = "waiting";
  computation->client = std::make_shared<Client>(1, 0, 0, "");
  computation->cost_estimate = 3;
  ASSERT_TRUE(model.in_flight.Start(computation, Waiter()));
  model.batcher.Add(computation, {.client = 1}, false);
  ShowConstants(stats_, model.info, 256, 3);
  ShowGauges(
      model,
      {.now_ns = 5, .state = kEngineDraining, .lanes = 3, .lanes_parked = 2, .standbys = 4, .standbys_ready = 1});
  EXPECT_EQ(Get(Gauge::kPid), static_cast<uint64_t>(getpid()));
  EXPECT_EQ(Get(Gauge::kModelWidth), 4u);
  EXPECT_EQ(Get(Gauge::kWorkers), 3u);
  EXPECT_EQ(Get(Gauge::kModelTokensMax), 64u);
  EXPECT_EQ(Get(Gauge::kHeartbeatNs), 5u);
  EXPECT_EQ(Get(Gauge::kState), uint64_t{kEngineDraining});
  EXPECT_EQ(Get(Gauge::kLanes), 3u);
  EXPECT_EQ(Get(Gauge::kQueueTexts), 1u);
  EXPECT_EQ(Get(Gauge::kQueueTokens), 3u);
  EXPECT_EQ(Get(Gauge::kQueueBytes), 7u);
  EXPECT_EQ(Get(Gauge::kInFlightTexts), 1u);
  EXPECT_EQ(Get(Gauge::kCacheEntries), 11u);
  EXPECT_EQ(Get(Gauge::kWalSyncs), 12u);
  EXPECT_EQ(Get(Gauge::kStorageFailed), 1u);
}

TEST_F(EngineStatsTest, WithoutACacheItsGaugesStayAsTheyWere) {
  ServedModel model(ModelOptions(nullptr));
  ShowGauges(model, {.now_ns = 5, .state = kEngineServing, .lanes = 0});
  EXPECT_EQ(Get(Gauge::kLanes), 0u);
  EXPECT_EQ(Get(Gauge::kCacheEntries), kUntouched);
}

}  // namespace
}  // namespace sutra
