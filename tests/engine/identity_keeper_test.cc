// The thread that looks after other models' caches: when it looks, and that nothing of it outlives its end.
#include "engine/identity_keeper.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <thread>

#include "cache/packed_files.h"
#include "engine/cpu/int8/packed_file.h"
#include "shm/base/clock.h"
#include "tests/kit/temp_dir.h"
#include "tests/kit/watchdog.h"

namespace sutra {
namespace {

namespace fs = std::filesystem;

class IdentityKeeperTest : public ::testing::Test {
 protected:
  IdentityKeeperTest() { fs::create_directory(temp_ / kServed); }
  void Start(
      std::function<bool()> holds_lock = [] { return true; }, uint64_t first_ns = 1) {
    keeper_.emplace(IdentityKeeper::Options{.identities = {.data = temp_.path(),
                                                           .served = kServed,
                                                           .may_go_on = std::move(holds_lock),
                                                           .clock = Clock::Real(),
                                                           .log = {}},
                                            .ready = [this] { return ready_.load(); },
                                            .first_ns = first_ns,
                                            .every_ns = 1'000'000});
    ASSERT_TRUE(keeper_->Start().ok());
  }
  // Without entries, so it may go at once.
  void MakeEmptyIdentity(const std::string& name) const { temp_.Write(name + "/MODEL.tmp", "half"); }
  void AwaitRemovals(uint64_t count) const {
    while (keeper_->figures().removed < count) std::this_thread::yield();
  }

  static constexpr const char* kServed = "00000000000000aa";
  test::Watchdog watchdog_{std::chrono::seconds(60)};
  const test::TempDir temp_;
  std::atomic<bool> ready_{true};
  std::optional<IdentityKeeper> keeper_;
};

TEST_F(IdentityKeeperTest, LooksAgainAndAgain) {
  MakeEmptyIdentity("0123456789abcdef");
  Start();
  AwaitRemovals(1);
  MakeEmptyIdentity("fedcba9876543210");
  AwaitRemovals(2);
  EXPECT_TRUE(fs::exists(temp_ / kServed));
}

// Two folders that may not see each other agree on where prepared weights lie.
TEST_F(IdentityKeeperTest, RemovesPreparedWeightsByTheNameThatTheirWriterGivesThem) {
  const std::string served = kServed + std::string(48, '0');
  const std::string packed = temp_ / kPackedDirectory;
  const std::string gone = cpu::PackedFilePath(packed, std::string(64, '1'));
  const std::string stays = cpu::PackedFilePath(packed, served);
  for (const std::string& path : {gone, stays}) temp_.Write(path.substr(temp_.path().size() + 1), "weights");
  Start();
  while (fs::exists(gone)) std::this_thread::yield();
  EXPECT_TRUE(fs::exists(stays));
}

TEST_F(IdentityKeeperTest, WaitsUntilTheShardIsOpen) {
  MakeEmptyIdentity("0123456789abcdef");
  ready_ = false;
  std::atomic<int> asked{0};
  Start([&] {
    ++asked;
    return true;
  });
  const uint64_t until_ns = MonotonicNs() + 50 * kNsPerMs;
  while (MonotonicNs() < until_ns) std::this_thread::yield();
  EXPECT_EQ(asked, 0);
  ready_ = true;
  AwaitRemovals(1);
}

TEST_F(IdentityKeeperTest, TouchesNothingOnceTheLockIsLost) {
  MakeEmptyIdentity("0123456789abcdef");
  std::atomic<int> asked{0};
  Start([&] {
    ++asked;
    return false;
  });
  while (asked < 3) std::this_thread::yield();
  keeper_.reset();
  EXPECT_TRUE(fs::exists(temp_ / "0123456789abcdef/MODEL.tmp"));
}

TEST_F(IdentityKeeperTest, EndsInTheMiddleOfALookAndWaitsForNone) {
  for (int i = 0; i < 200; ++i) MakeEmptyIdentity("00000000000" + std::to_string(10'000 + i));
  std::atomic<bool> begun{false};
  Start([&] {
    begun = true;
    return true;
  });
  while (!begun) std::this_thread::yield();
  keeper_.reset();
  const auto count = [&] { return std::distance(fs::directory_iterator(temp_.path()), fs::directory_iterator()); };
  const auto left = count();
  EXPECT_GT(left, 1);
  EXPECT_EQ(count(), left) << "it goes on after its end";
  Start([] { return true; }, 3600 * kNsPerSecond);
  keeper_.reset();  // at once
}

}  // namespace
}  // namespace sutra
