#include "shm/base/engine_lock.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "shm/base/file_identity.h"
#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

class EngineLockTest : public ::testing::Test {
 protected:
  const test::TempDir directory_;
  const std::string path_ = directory_ / "LOCK";
};

TEST_F(EngineLockTest, ASecondEngineIsRefusedAndTheHolderIsNamed) {
  Result<EngineLock> first = EngineLock::Take(path_);
  ASSERT_TRUE(first.ok()) << first.status().message();
  const Result<EngineLock> second = EngineLock::Take(path_);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.code(), StatusCode::kRefused);
  EXPECT_NE(second.status().message().find("pid " + std::to_string(getpid()) + " since "), std::string::npos)
      << second.status().message();
  EXPECT_NE(second.status().message().find(path_), std::string::npos);
}

TEST_F(EngineLockTest, TheHolderIsNamedToWhoAsks) {
  EXPECT_EQ(EngineLock::HolderOf(path_), "");
  const Result<EngineLock> lock = EngineLock::Take(path_);
  ASSERT_TRUE(lock.ok());
  EXPECT_EQ(EngineLock::HolderOf(path_).rfind("pid " + std::to_string(getpid()) + " since ", 0), 0u);
}

TEST_F(EngineLockTest, AFreeLockIsNotWaitedFor) {
  const std::atomic<bool> stop{false};
  EXPECT_TRUE(EngineLock::Wait(path_, stop).ok());
}

TEST_F(EngineLockTest, TheFileStaysAndTheNextEngineTakesIt) {
  std::optional<EngineLock> first(EngineLock::Take(path_).value());
  first.reset();
  EXPECT_EQ(access(path_.c_str(), F_OK), 0);
  EXPECT_TRUE(EngineLock::Take(path_).ok());
}

TEST_F(EngineLockTest, TheLockSurvivesThatSomebodyReadsTheFile) {
  const Result<EngineLock> first = EngineLock::Take(path_);
  ASSERT_TRUE(first.ok());
  close(open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(EngineLock::Take(path_).code(), StatusCode::kRefused);
}

TEST_F(EngineLockTest, AMovedLockIsHeldOnce) {
  EngineLock first = EngineLock::Take(path_).value();
  EngineLock second = std::move(first);
  EXPECT_EQ(second.path(), path_);
  EXPECT_EQ(EngineLock::Take(path_).code(), StatusCode::kRefused);
}

TEST_F(EngineLockTest, AMissingDirectoryIsNamed) {
  const Result<EngineLock> lock = EngineLock::Take(directory_ / "none/LOCK");
  ASSERT_FALSE(lock.ok());
  EXPECT_EQ(lock.code(), StatusCode::kStorageError);
  EXPECT_NE(lock.status().message().find("none/LOCK"), std::string::npos);
}

// Whatever is there that no engine made: named, and byte for byte as before.
TEST_F(EngineLockTest, AFileThatNoEngineMadeIsRefusedAndLeftAsItIs) {
  const std::string target = directory_ / "target";
  std::ofstream(target) << "the only copy";
  const std::pair<std::function<void()>, const char*> kinds[] = {
      {[&] { std::ofstream(path_) << "the only copy"; }, "a file is there"},
      {[&] { std::ofstream(path_) << "pid 1 since " << std::string(200, 'x'); }, "a file is there"},
      {[&] { ASSERT_EQ(symlink(target.c_str(), path_.c_str()), 0); }, "a symbolic link"},
      {[&] { ASSERT_EQ(symlink("nowhere", path_.c_str()), 0); }, "a symbolic link"},
      {[&] { ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0); }, "a FIFO"},
      {[&] { ASSERT_EQ(mkdir(path_.c_str(), 0700), 0); }, "a directory"},
  };
  for (const auto& [put, word] : kinds) {
    put();
    const auto before = FileIdentity::At(path_);
    const Result<EngineLock> lock = EngineLock::Take(path_);
    EXPECT_EQ(lock.code(), StatusCode::kStorageError) << word;
    EXPECT_NE(lock.status().message().find(word), std::string::npos) << lock.status().message();
    EXPECT_EQ(FileIdentity::At(path_), before) << word;
    struct stat info = {};
    const bool regular = stat(path_.c_str(), &info) == 0 && S_ISREG(info.st_mode);
    EXPECT_TRUE(!regular || info.st_size >= 13) << word;
    std::filesystem::remove(path_);
  }
  EXPECT_FALSE(FileIdentity::At(directory_ / "nowhere").has_value());
}

TEST_F(EngineLockTest, AFailedStartRemovesOnlyTheFileThatItCreated) {
  EngineLock first = EngineLock::Take(path_).value();
  first.RemoveIfCreated();
  EXPECT_NE(access(path_.c_str(), F_OK), 0);
  { const EngineLock second = EngineLock::Take(path_).value(); }  // of a start that went well
  EngineLock third = EngineLock::Take(path_).value();
  third.RemoveIfCreated();
  EXPECT_EQ(access(path_.c_str(), F_OK), 0);
}

TEST_F(EngineLockTest, AfterItsRemovalItIsNotInPlaceAndIsTakenAgain) {
  EngineLock lock = EngineLock::Take(path_).value();
  EXPECT_TRUE(lock.InPlace());
  ASSERT_EQ(unlink(path_.c_str()), 0);
  EXPECT_FALSE(lock.InPlace());
  ASSERT_TRUE(lock.TakeAgain().ok());
  EXPECT_TRUE(lock.InPlace());
  EXPECT_EQ(EngineLock::Take(path_).code(), StatusCode::kRefused);

  ASSERT_EQ(unlink(path_.c_str()), 0);
  const EngineLock other = EngineLock::Take(path_).value();
  EXPECT_EQ(lock.TakeAgain().code(), StatusCode::kRefused);
}

// Starts that take, fail and remove, all at once: two must never hold the lock at the path at the same time.
TEST_F(EngineLockTest, StartsThatRemoveTheirFileNeverLetTwoHoldTheLock) {
  std::atomic<int> holders{0};
  std::atomic<int> taken{0};
  std::vector<std::thread> starts;
  for (int i = 0; i < 4; ++i) {
    starts.emplace_back([&] {
      for (int round = 0; round < 2000; ++round) {
        Result<EngineLock> lock = EngineLock::Take(path_);
        if (!lock.ok()) continue;
        EXPECT_EQ(holders.fetch_add(1), 0);
        taken.fetch_add(1);
        std::this_thread::yield();
        holders.fetch_sub(1);
        lock->RemoveIfCreated();
      }
    });
  }
  for (std::thread& start : starts) start.join();
  EXPECT_GT(taken.load(), 0);
}

}  // namespace
}  // namespace sutra
