// What the machine's clocks may do to the lifetimes of entries: suspends, jumps of the wall clock that return or stay,
// machines that start without a clock; with and without restarts. WAL_FORMAT.md, "Clocks", has the promises.
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "tests/cache/wal/log_fixture.h"

namespace sutra {
namespace {

constexpr uint64_t kS = 1'000'000'000;
constexpr uint64_t kMinute = 60 * kS;
constexpr uint64_t kHour = 60 * kMinute;
constexpr uint64_t kDay = 24 * kHour;

class CacheClockTest : public testing::Test {
 protected:
  void SetUp() override { Restart(); }
  void Restart() {
    shard_.reset();
    Result<std::unique_ptr<LoggedShard>> shard =
        LoggedShard::Open(test::SmallConfig("/data"), &disk_, &clock_, test::Inline());
    ASSERT_TRUE(shard.ok()) << shard.status().message();
    shard_ = std::move(shard).value();
  }
  // Entries of the default lifetime, a day.
  void Put(const std::string& prefix, uint32_t count = 20, uint64_t ttl_s = 0) {
    for (uint32_t i = 0; i < count; ++i) test::Put(shard_.get(), prefix + std::to_string(i), i, ttl_s);
    ASSERT_TRUE(shard_->Sync().ok());
  }
  int Found(const std::string& prefix, uint32_t count = 20) {
    int found = 0;
    for (uint32_t i = 0; i < count; ++i) {
      found += test::VersionOf(shard_.get(), prefix + std::to_string(i)) == static_cast<int>(i);
    }
    return found;
  }
  void Jump(uint64_t ns) { clock_.SetWall(clock_.WallNs() + ns); }
  void JumpBack(uint64_t ns) { clock_.SetWall(clock_.WallNs() - ns); }
  void Pass(uint64_t ns) {
    clock_.Advance(ns);
    shard_->Turn();
  }

  sim::SimDisk disk_;
  sim::ManualClock clock_;
  std::unique_ptr<LoggedShard> shard_;
};

TEST_F(CacheClockTest, TimeThatTheHostSleptCounts) {
  Put("t");
  clock_.Suspend(kDay - kS);
  EXPECT_EQ(Found("t"), 20);
  clock_.Suspend(kS);
  EXPECT_EQ(Found("t"), 0);
}

}  // namespace
}  // namespace sutra
