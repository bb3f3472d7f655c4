#include "engine/engine_lock.h"
#include "tests/kit/temp_dir.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <optional>
#include <string>

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

TEST_F(EngineLockTest, ASymbolicLinkIsNotFollowed) {
  ASSERT_EQ(symlink("elsewhere", path_.c_str()), 0);
  EXPECT_EQ(EngineLock::Take(path_).code(), StatusCode::kStorageError);
}

}  // namespace
}  // namespace sutra
