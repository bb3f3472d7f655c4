#include "engine/file_watch.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <vector>

#include "shm/stats/stats_segment.h"
#include "tests/kit/memory_cache.h"
#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

namespace fs = std::filesystem;

class LosableCache : public testing::MemoryCache {
 public:
  void SetStorageLost(bool lost) override { lost_ = lost; }
  bool lost_ = false;
};

class FileWatchTest : public ::testing::Test {
 protected:
  FileWatchTest() {
    fs::create_directories(shard_);
    socket_lock_.emplace(std::move(EngineLock::Take(path_ + ".lock")).value());
    data_lock_.emplace(std::move(EngineLock::Take(directory_ / "data/LOCK")).value());
    socket_.emplace(std::move(ListeningSocket::Open(path_, 0600)).value());
    watch_.emplace(FileWatch::Options{.socket = &*socket_,
                                      .socket_lock = &*socket_lock_,
                                      .data_lock = &*data_lock_,
                                      .cache = &slot_,
                                      .shard_directory = shard_,
                                      .stats = stats_->writer(),
                                      .log = [this](LogLevel level, const std::string& line) {
                                        log_.push_back(line);
                                        levels_.push_back(level);
                                      }});
  }
  uint64_t Shown(Gauge gauge) { return stats_->writer().Get(gauge); }
  void ExpectAllWell() {
    EXPECT_FALSE(watch_->Look());
    EXPECT_EQ(Shown(Gauge::kSocketLost), 0u);
    EXPECT_EQ(Shown(Gauge::kDataLost), 0u);
    EXPECT_FALSE(cache_.lost_);
  }

  const test::TempDir directory_;
  const std::string path_ = directory_ / "run/s";
  const std::string shard_ = directory_ / "data/0123456789abcdef";
  const bool made_ = fs::create_directory(directory_ / "run");
  std::unique_ptr<StatsSegment> stats_ = StatsSegment::CreatePrivate();
  LosableCache cache_;
  ShardSlot slot_{&cache_};
  std::optional<EngineLock> socket_lock_, data_lock_;
  std::optional<ListeningSocket> socket_;
  std::optional<FileWatch> watch_;
  std::vector<std::string> log_;
  std::vector<LogLevel> levels_;
};

TEST_F(FileWatchTest, SaysNothingWhileAllIsInPlace) {
  ExpectAllWell();
  ExpectAllWell();
  EXPECT_TRUE(log_.empty());
}

TEST_F(FileWatchTest, ARemovedSocketIsBoundAgainAndSaidOnce) {
  unlink(path_.c_str());
  EXPECT_TRUE(watch_->Look());
  EXPECT_TRUE(socket_->Look().ok());
  ExpectAllWell();
  ASSERT_EQ(log_.size(), 1u);
  EXPECT_EQ(levels_[0], LogLevel::kError);
  EXPECT_NE(log_[0].find(path_), std::string::npos) << log_[0];
}

TEST_F(FileWatchTest, ARemovedFolderIsSaidOnceShownAndMendedOnceItIsThereAgain) {
  fs::remove_all(directory_ / "run");
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(watch_->Look());
  EXPECT_EQ(Shown(Gauge::kSocketLost), 1u);
  EXPECT_EQ(log_.size(), 1u);
  fs::create_directory(directory_ / "run");
  EXPECT_TRUE(watch_->Look());
  EXPECT_TRUE(socket_lock_->InPlace());
  ExpectAllWell();
  EXPECT_EQ(log_.size(), 2u);
}

TEST_F(FileWatchTest, WhatTookTheSocketsPlaceIsNamedAndNotTouched) {
  unlink(path_.c_str());
  std::ofstream(path_) << "another's";
  for (int i = 0; i < 2; ++i) EXPECT_FALSE(watch_->Look());
  EXPECT_EQ(Shown(Gauge::kSocketLost), 1u);
  ASSERT_EQ(log_.size(), 1u);
  EXPECT_NE(log_[0].find("regular file"), std::string::npos) << log_[0];
  EXPECT_EQ(fs::file_size(path_), 9u);
}

TEST_F(FileWatchTest, WhenAnotherEngineTookTheLockNothingIsBound) {
  unlink(path_.c_str());
  unlink((path_ + ".lock").c_str());
  const Result<EngineLock> other = EngineLock::Take(path_ + ".lock");
  ASSERT_TRUE(other.ok());
  EXPECT_FALSE(watch_->Look());
  EXPECT_EQ(Shown(Gauge::kSocketLost), 1u);
  EXPECT_FALSE(fs::exists(path_));
  EXPECT_NE(log_.at(0).find("another engine"), std::string::npos) << log_[0];
}

TEST_F(FileWatchTest, ALostShardIsSaidOnceShownAndToldToTheCacheUntilItIsBack) {
  fs::rename(shard_, directory_ / "away");
  fs::create_directory(shard_);  // another one in its place is as bad as none
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(watch_->Look());
  EXPECT_TRUE(cache_.lost_);
  EXPECT_EQ(Shown(Gauge::kDataLost), 1u);
  ASSERT_EQ(log_.size(), 1u);
  EXPECT_EQ(levels_[0], LogLevel::kError);
  EXPECT_NE(log_[0].find(shard_), std::string::npos) << log_[0];
  fs::remove(shard_);
  fs::rename(directory_ / "away", shard_);
  ExpectAllWell();
}

TEST_F(FileWatchTest, ALostLockOfTheDataCountsAsLostData) {
  unlink((directory_ / "data/LOCK").c_str());
  EXPECT_FALSE(watch_->Look());
  EXPECT_TRUE(cache_.lost_);
  EXPECT_EQ(Shown(Gauge::kDataLost), 1u);
}

}  // namespace
}  // namespace sutra
