// The wait itself, within one process; tests/system/standby_test.cc has real engines.
#include "engine/standby.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

class StandbyUnitTest : public ::testing::Test {
 protected:
  ~StandbyUnitTest() override { shutdown_.LeaveOnNextSignal(); }  // restores the signals for the next test
  Standby::Options Options(std::function<void()> when_it_waits = {}) {
    return {.locks = {data_, socket_ + ".lock"},
            .socket = socket_,
            .model = &model_,
            .shutdown = &shutdown_,
            .log = [this, when_it_waits](LogLevel, const std::string& line) {
              log_.push_back(line);
              if (when_it_waits) when_it_waits();
            }};
  }

  const test::TempDir directory_;
  const std::string data_ = directory_ / "LOCK", socket_ = directory_ / "s";
  const ModelInfo model_{.name = "m", .identity = "0123", .width = 4, .tokens_max = 8, .precision = "fp32"};
  Shutdown shutdown_ = std::move(Shutdown::Prepare()).value();
  std::vector<std::string> log_;
};

TEST_F(StandbyUnitTest, WithFreeLocksItsTurnIsNow) {
  const Result<Standby::Turn> turn = Standby(Options()).Wait();
  ASSERT_TRUE(turn.ok()) << turn.status().message();
  EXPECT_FALSE(turn->waited);
  EXPECT_EQ(turn->locks.size(), 2u);
  EXPECT_TRUE(log_.empty());
}

TEST_F(StandbyUnitTest, WithHeldLocksItWaitsAndNamesTheHolder) {
  std::optional<EngineLock> held(EngineLock::Take(data_).value());
  const Result<Standby::Turn> turn = Standby(Options([&] { held.reset(); })).Wait();
  ASSERT_TRUE(turn.ok()) << turn.status().message();
  EXPECT_TRUE(turn->waited);
  EXPECT_EQ(turn->locks.size(), 2u);
  EXPECT_EQ(turn->locks[0].path(), data_);
  ASSERT_EQ(log_.size(), 1u);
  EXPECT_NE(log_[0].find("pid " + std::to_string(getpid())), std::string::npos) << log_[0];
}

TEST_F(StandbyUnitTest, ASignalEndsTheWaitAndWhatItMadeIsRemoved) {
  const EngineLock held = EngineLock::Take(socket_ + ".lock").value();
  const Result<Standby::Turn> turn = Standby(Options([] { kill(getpid(), SIGTERM); })).Wait();
  EXPECT_EQ(turn.status().code(), StatusCode::kCancelled) << turn.status().message();
  EXPECT_FALSE(std::filesystem::exists(data_));
  EXPECT_TRUE(std::filesystem::exists(socket_ + ".lock")) << "another's";
}

TEST_F(StandbyUnitTest, ALockThatCannotBeTakenIsAnError) {
  std::filesystem::create_directory(socket_ + ".lock");
  const Result<Standby::Turn> turn = Standby(Options()).Wait();
  EXPECT_EQ(turn.status().code(), StatusCode::kStorageError);
  EXPECT_FALSE(std::filesystem::exists(data_));
}

}  // namespace
}  // namespace sutra
