// Tries of opening a shard: which are repeated, what is said, and how the engine's end meets them.
#include "engine/shard_opener.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "shm/base/clock.h"
#include "tests/kit/memory_cache.h"
#include "tests/kit/watchdog.h"

namespace sutra {
namespace {

class ShardOpenerTest : public ::testing::Test {
 protected:
  using Opened = Result<std::unique_ptr<CacheShard>>;
  // `open` is given the number of the try, from 1.
  void Start(std::function<Opened(int)> open, uint64_t retry_ns = 1) {
    slot_.Expect(Clock::Real());
    opener_.emplace(ShardOpener::Options{.open = [this, open] { return open(++tries_); },
                                         .slot = &slot_,
                                         .log = [this](LogLevel, const std::string& line) { log_.push_back(line); },
                                         .retry_ns_first = retry_ns,
                                         .retry_ns_max = retry_ns});
    ASSERT_TRUE(opener_->Start().ok());
  }
  void AwaitState(ShardState state) {
    while (slot_.state() != state) std::this_thread::yield();
  }
  static Opened Failure(StatusCode code, const std::string& message) { return Status(code, message); }

  test::Watchdog watchdog_{std::chrono::seconds(60)};
  ShardSlot slot_{nullptr};
  std::atomic<int> tries_{0};
  std::vector<std::string> log_;  // the thread's until Finish
  std::optional<ShardOpener> opener_;
  std::unique_ptr<CacheShard> shard_;
};

TEST_F(ShardOpenerTest, AnOpenShardIsShownAndHandedOver) {
  Start([](int) { return Opened(std::make_unique<testing::MemoryCache>()); });
  AwaitState(kShardOpen);
  EXPECT_TRUE(opener_->Finish(&shard_).ok());
  EXPECT_EQ(slot_.Get(), shard_.get());
  EXPECT_NE(shard_, nullptr);
  EXPECT_TRUE(log_.empty());
}

TEST_F(ShardOpenerTest, AFailureOfTheDiskIsTriedAgainAndLoggedOnce) {
  Start([](int number) {
    if (number < 4) return Failure(StatusCode::kStorageError, "the disk is away");
    return Opened(std::make_unique<testing::MemoryCache>());
  });
  AwaitState(kShardOpen);
  EXPECT_TRUE(opener_->Finish(&shard_).ok());
  EXPECT_EQ(tries_.load(), 4);
  ASSERT_EQ(log_.size(), 1u);
  EXPECT_NE(log_[0].find("the disk is away"), std::string::npos);
}

TEST_F(ShardOpenerTest, ARefusalIsNotTriedAgain) {
  Start([](int) { return Failure(StatusCode::kRefused, "another model's"); });
  AwaitState(kShardFailed);
  const Status status = opener_->Finish(&shard_);
  EXPECT_EQ(status.code(), StatusCode::kRefused);
  EXPECT_EQ(shard_, nullptr);
  EXPECT_EQ(tries_.load(), 1);
}

TEST_F(ShardOpenerTest, MemoryThatRunsOutIsAFailureLikeAnyOther) {
  Start([](int number) {
    if (number == 1) throw std::bad_alloc();
    return Opened(std::make_unique<testing::MemoryCache>());
  });
  AwaitState(kShardOpen);
  EXPECT_EQ(tries_.load(), 2);
}

TEST_F(ShardOpenerTest, TheEndWaitsForTheTryThatIsUnderWayAndForNoOther) {
  std::atomic<bool> go{false};
  Start([&go](int) {
    while (!go.load()) std::this_thread::yield();
    return Opened(std::make_unique<testing::MemoryCache>());
  });
  slot_.Insert("stored while it opened", 0, std::vector<float>{1}, {}, 100);
  std::thread later([&go] { go.store(true); });
  EXPECT_TRUE(opener_->Finish(&shard_).ok());
  later.join();
  ASSERT_NE(shard_, nullptr);
  float number = 0;
  CacheValue value;
  EXPECT_TRUE(shard_->Lookup("stored while it opened", 0, &number, &value));
}

TEST_F(ShardOpenerTest, TheEndDoesNotWaitForTheNextTry) {
  Start([](int) { return Failure(StatusCode::kStorageError, "away"); }, 3600 * kNsPerSecond);
  AwaitState(kShardFailed);
  slot_.Insert("never stored", 0, std::vector<float>{1}, {}, 100);
  EXPECT_EQ(opener_->Finish(&shard_).code(), StatusCode::kStorageError);
  EXPECT_EQ(slot_.GetCounts().dropped, 1u);
}

}  // namespace
}  // namespace sutra
