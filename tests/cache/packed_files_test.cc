// Weights that were prepared for int8: which files go, when, and what is never touched.
#include "cache/packed_files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "cache/shard_directory.h"
#include "shm/base/time.h"
#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kHourNs = 3600 * kNsPerSecond;

std::string IdentityOf(char digit) { return std::string(64, digit); }
std::string CacheOf(char digit) { return ShardName(IdentityOf(digit)); }
std::string FileOf(char digit) { return "packed/" + IdentityOf(digit) + ".int8"; }

class PackedFilesTest : public ::testing::Test {
 protected:
  // Of 64 KiB, written `ago_ns` before now_ns_.
  void Make(const std::string& name, uint64_t ago_ns = 0) const {
    temp_.Write(name, std::string(1 << 16, 'w'));
    const timespec time = ToTimespec(now_ns_ - ago_ns);
    const timespec times[2] = {time, time};
    ASSERT_EQ(utimensat(AT_FDCWD, (temp_ / name).c_str(), times, 0), 0);
  }
  Status Survey() { return files_.Survey(OpenDirectory::Open(temp_.path()).value()); }
  bool There(const std::string& name) const { return fs::exists(temp_ / name); }
  uint64_t OnDisk(const std::string& name) const {
    struct stat info = {};
    EXPECT_EQ(stat((temp_ / name).c_str(), &info), 0);
    return static_cast<uint64_t>(info.st_blocks) * 512;
  }

  const test::TempDir temp_;
  const uint64_t now_ns_ = WallNs();
  bool may_go_on_ = true;
  std::vector<std::string> lines_;
  PackedFiles files_{{.served = CacheOf('a'),
                      .may_go_on = [this] { return may_go_on_; },
                      .log = [this](LogLevel, const std::string& line) { lines_.push_back(line); }}};
};

TEST_F(PackedFilesTest, WithoutAFolderThereIsNothing) {
  EXPECT_TRUE(Survey().ok());
  EXPECT_EQ(files_.bytes(), 0U);
  EXPECT_TRUE(files_.RemoveOrphans({}, now_ns_).ok());
  EXPECT_TRUE(files_.RemoveBytes(1, "").ok());
}

TEST_F(PackedFilesTest, AllAreCountedAndTheServedOneApart) {
  Make(FileOf('a'));
  Make(FileOf('b'));
  Make(FileOf('c') + ".tmp");
  ASSERT_TRUE(Survey().ok());
  EXPECT_EQ(files_.bytes_of_others(), OnDisk(FileOf('b')) + OnDisk(FileOf('c') + ".tmp"));
  EXPECT_EQ(files_.bytes(), files_.bytes_of_others() + OnDisk(FileOf('a')));
  EXPECT_GE(files_.bytes(), 3U << 16);
}

TEST_F(PackedFilesTest, OneWhoseCacheIsGoneGoesAndIsSaid) {
  for (const char digit : {'a', 'b', 'c'}) Make(FileOf(digit));
  ASSERT_TRUE(Survey().ok());
  EXPECT_TRUE(files_.RemoveOrphans({CacheOf('b'), "LOCK"}, now_ns_).ok());
  EXPECT_TRUE(There(FileOf('a'))) << "it is served";
  EXPECT_TRUE(There(FileOf('b')));
  EXPECT_FALSE(There(FileOf('c')));
  EXPECT_EQ(lines_, std::vector{"removed the weights that were prepared for int8, " + (temp_ / FileOf('c')) +
                                ", 1 MiB: their model has no cache here"});
  EXPECT_EQ(files_.bytes_of_others(), OnDisk(FileOf('b')));
}

TEST_F(PackedFilesTest, AHalfWrittenOneHasAnHour) {
  Make(FileOf('a') + ".tmp", kHourNs + kNsPerSecond);
  Make(FileOf('b') + ".tmp", kHourNs + kNsPerSecond);
  Make(FileOf('c') + ".tmp", kHourNs - kNsPerSecond);
  ASSERT_TRUE(Survey().ok());
  EXPECT_TRUE(files_.RemoveBytes(UINT64_MAX, "over").ok());
  EXPECT_TRUE(There(FileOf('b') + ".tmp")) << "how much there is does not make its writer slower";
  EXPECT_TRUE(files_.RemoveOrphans({CacheOf('b')}, now_ns_).ok());
  EXPECT_FALSE(There(FileOf('a') + ".tmp"));
  EXPECT_FALSE(There(FileOf('b') + ".tmp"));
  EXPECT_TRUE(There(FileOf('c') + ".tmp"));
}

TEST_F(PackedFilesTest, TheOldestGoFirstAndNoMoreThanAskedFor) {
  Make(FileOf('a'), 9 * kHourNs);
  Make(FileOf('b'), 2 * kHourNs);
  Make(FileOf('c'), 5 * kHourNs);
  Make(FileOf('d'), 3 * kHourNs);
  ASSERT_TRUE(Survey().ok());
  EXPECT_TRUE(files_.RemoveBytes(OnDisk(FileOf('c')) + 1, "all take up too much").ok());
  EXPECT_TRUE(There(FileOf('a')) && There(FileOf('b')) && !There(FileOf('c')) && !There(FileOf('d')));
  ASSERT_EQ(lines_.size(), 2U);
  EXPECT_NE(lines_[0].find(FileOf('c')), std::string::npos);
  EXPECT_NE(lines_[0].find(": all take up too much"), std::string::npos);
  EXPECT_TRUE(files_.RemoveBytes(UINT64_MAX, "").ok());
  EXPECT_TRUE(There(FileOf('a')) && !There(FileOf('b'))) << "what is served stays whatever it takes up";
}

TEST_F(PackedFilesTest, WhatNoEngineMakesIsNamedAndLeftAlone) {
  const test::TempDir elsewhere;
  elsewhere.Write("thesis", "the only copy");
  const std::string upper = "packed/" + std::string(64, 'B') + ".int8";
  Make("packed/thesis.int8");
  Make(upper);
  Make("packed/" + IdentityOf('b') + ".int9");
  fs::create_symlink(elsewhere / "thesis", temp_ / FileOf('c'));
  fs::create_directory(temp_ / FileOf('d'));
  ASSERT_TRUE(Survey().ok());
  EXPECT_EQ(files_.bytes(), 0U);
  EXPECT_EQ(files_.foreign().size(), 5U);
  EXPECT_TRUE(files_.RemoveOrphans({}, now_ns_ + 100 * kHourNs).ok());
  EXPECT_TRUE(files_.RemoveBytes(UINT64_MAX, "").ok());
  EXPECT_TRUE(There("packed/thesis.int8") && There(upper) && There(FileOf('d')));
  EXPECT_TRUE(fs::is_symlink(temp_ / FileOf('c')) && fs::exists(elsewhere / "thesis"));
  EXPECT_TRUE(lines_.empty());
}

TEST_F(PackedFilesTest, ALinkInTheFoldersPlaceIsNotFollowed) {
  const test::TempDir elsewhere;
  elsewhere.Write(IdentityOf('b') + ".int8", "weights");
  fs::create_directory_symlink(elsewhere.path(), temp_ / "packed");
  EXPECT_EQ(Survey().code(), StatusCode::kRefused);
  EXPECT_TRUE(files_.RemoveOrphans({}, now_ns_).ok());
  EXPECT_TRUE(fs::exists(elsewhere / (IdentityOf('b') + ".int8")));
}

TEST_F(PackedFilesTest, NothingGoesOnceTheLockIsLost) {
  Make(FileOf('b'));
  ASSERT_TRUE(Survey().ok());
  may_go_on_ = false;
  EXPECT_TRUE(files_.RemoveOrphans({}, now_ns_).ok());
  EXPECT_TRUE(files_.RemoveBytes(UINT64_MAX, "").ok());
  EXPECT_TRUE(There(FileOf('b')));
}

TEST_F(PackedFilesTest, OneThatCannotBeRemovedIsAnErrorAndStillCounts) {
  Make(FileOf('b'));
  ASSERT_TRUE(Survey().ok());
  fs::remove(temp_ / FileOf('b'));
  const Status status = files_.RemoveOrphans({}, now_ns_);
  EXPECT_EQ(status.code(), StatusCode::kStorageError);
  EXPECT_NE(status.message().find(FileOf('b')), std::string::npos) << status.message();
  EXPECT_GT(files_.bytes(), 0U);
}

}  // namespace
}  // namespace sutra
