// The refill over a cache in memory: the thread is real, the shard is a map.
#include "engine/serving/hot_refill.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "shm/base/clock.h"
#include "shm/stats/stats_segment.h"
#include "tests/kit/gated_backend.h"
#include "tests/kit/hot_client.h"
#include "tests/kit/memory_cache.h"
#include "tests/kit/watchdog.h"

namespace sutra {
namespace {

using test::HotClient;
using testing::GatedBackend;
using testing::MemoryCache;

constexpr uint32_t kWidth = 4;

// Something happens while the entries are visited.
class VisitedCache : public MemoryCache {
 public:
  Result<bool> Visit(Which which, uint64_t* cursor, const std::function<bool(const CacheEntry&)>& visit) override {
    EXPECT_EQ(which, Which::kHot);
    return MemoryCache::Visit(which, cursor, [&](const CacheEntry& entry) {
      if (on_visit) on_visit(entry);
      return visit(entry);
    });
  }
  std::function<void(const CacheEntry&)> on_visit;
};

class HotRefillTest : public ::testing::Test {
 protected:
  void Make(CacheShard* shard) {
    model_.emplace(ServedModel::Options{
        .backend = &backend_,
        .cache = shard,
        .hot = hot_.get(),
        .ttl_s_default = 77,
        .batches =
            {.tokens_max = 100, .texts_max = 100, .queue_texts_max = 100, .queue_bytes_max = 1 << 20, .spin_us = 0},
        .stats = stats_->writer()});
  }
  void Store(uint32_t number) {
    cache_.Insert("text " + std::to_string(number), 0, std::vector<float>(kWidth, static_cast<float>(number)),
                  {.norm = 2, .token_count = 3}, 1000);
  }
  void Start() {
    refill_.emplace(HotRefill::Options{.model = &*model_,
                                       .log =
                                           [this](LogLevel, const std::string& line) {
                                             const MutexLock lock(log_mutex_);
                                             log_.push_back(line);
                                           },
                                       .look_every_ns = 1000});
    ASSERT_TRUE(refill_->Start().ok());
  }
  std::string AwaitLine() {
    for (;;) {
      {
        const MutexLock lock(log_mutex_);
        if (!log_.empty()) return log_.front();
      }
      std::this_thread::yield();
    }
  }

  test::Watchdog watchdog_{std::chrono::seconds(60)};
  std::unique_ptr<StatsSegment> stats_ = StatsSegment::CreatePrivate();
  GatedBackend backend_{kWidth, 16};
  VisitedCache cache_;
  std::unique_ptr<HotCache> hot_ = std::move(HotCache::Create(kWidth, kHotBytesMin, 77)).value();
  std::optional<ServedModel> model_;
  Mutex log_mutex_;
  std::vector<std::string> log_ SUTRA_GUARDED_BY(log_mutex_);
  std::optional<HotRefill> refill_;
};

TEST_F(HotRefillTest, WhatTheShardKnowsToBeHotIsFoundWithoutAnyRequest) {
  for (uint32_t i = 0; i < 200; ++i) Store(i);  // several looks
  Make(&cache_);
  Start();
  EXPECT_NE(AwaitLine().find("the hot table has 200 texts from the cache"), std::string::npos) << AwaitLine();
  HotClient client(hot_->fd(), kWidth, hot_->slots());
  client.Beat();
  const std::optional<HotClient::Hit> hit = client.Find("text 199");
  ASSERT_TRUE(hit.has_value());
  EXPECT_EQ(hit->unit, std::vector<float>(kWidth, 199.f));
  EXPECT_EQ(hit->value.norm, 2.f);
}

TEST_F(HotRefillTest, ItEndsWhenTheTableIsFullAndEvictsNothing) {
  for (uint32_t i = 0; i < hot_->slots() + 300; ++i) Store(i);
  Make(&cache_);
  Start();
  EXPECT_NE(AwaitLine().find(", and is full"), std::string::npos) << AwaitLine();
  EXPECT_EQ(hot_->figures().used, hot_->slots());
}

// Of an engine that took over: the shard is opened behind.
TEST_F(HotRefillTest, ItWaitsForTheShardAndStopsWithoutOne) {
  Make(nullptr);
  model_->cache.Expect(Clock::Real());
  Start();
  Store(1);
  model_->cache.Appear(&cache_);
  EXPECT_NE(AwaitLine().find("the hot table has 1 texts"), std::string::npos) << AwaitLine();
  refill_.reset();
  Make(nullptr);
  model_->cache.Expect(Clock::Real());
  Start();
  refill_.reset();  // does not wait for what may never come
}

// An entry is visited, then removed, and only then published: the fence stops it.
TEST_F(HotRefillTest, WhatIsRemovedWhileItIsVisitedIsNotPublished) {
  for (uint32_t i = 0; i < 10; ++i) Store(i);
  cache_.on_visit = [&](const CacheEntry& entry) {
    if (entry.text == "text 4") hot_->OnErased(entry.text, entry.variant, ++cache_.removals);
  };
  Make(&cache_);
  Start();
  AwaitLine();
  HotClient client(hot_->fd(), kWidth, hot_->slots());
  client.Beat();
  EXPECT_TRUE(client.Find("text 3").has_value());
  EXPECT_FALSE(client.Find("text 4").has_value());
}

}  // namespace
}  // namespace sutra
