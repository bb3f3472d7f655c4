// The shard in a real directory: which users may read it, and the error where it cannot be opened.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/disk/disk_io.h"
#include "shm/base/clock.h"
#include "tests/cache/cache_test_support.h"
#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

using test::Put;
using test::SmallConfig;
using test::VersionOf;

TEST(CacheShardOnDisk, CreatesItsDirectoryForItsOwnerOnly) {
  const test::TempDir temp;
  std::unique_ptr<DiskIo> io = MakeDiskIo(DiskIoKind::kAuto, temp / "data", {}).value();
  const CacheConfig config = SmallConfig(temp / "data");
  { Put(CacheShard::Open(config, io.get(), Clock::Real()).value().get(), "t", 1); }
  struct stat info {};
  ASSERT_EQ(stat((temp / "data").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
  ASSERT_EQ(stat((temp / ("data/" + test::kShardName)).c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
  std::unique_ptr<CacheShard> shard = CacheShard::Open(config, io.get(), Clock::Real()).value();
  EXPECT_EQ(VersionOf(shard.get(), "t"), 1);
  EXPECT_STREQ(shard->Stats().disk_io, io->name());
}

TEST(CacheShardOnDisk, AnUnwritableDirectoryIsNamedWithTheFix) {
  if (geteuid() == 0) GTEST_SKIP() << "SKIPPED: root may write everywhere";
  const test::TempDir temp;
  ASSERT_EQ(chmod(temp.path().c_str(), 0500), 0);
  const Status status = MakeDiskIo(DiskIoKind::kAuto, temp / "data", {}).status();
  EXPECT_EQ(status.code(), StatusCode::kStorageError);
  EXPECT_NE(status.message().find("must be able to write there"), std::string::npos);
  EXPECT_EQ(chmod(temp.path().c_str(), 0700), 0);
}

}  // namespace
}  // namespace sutra
