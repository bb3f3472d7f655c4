// What only the plain system calls guarantee, beyond the conformance suite of disk_io_test.cc: real files, flags and
// modes.
#include "cache/disk/disk_io_posix.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

class PosixDisk : public testing::Test {
 protected:
  static int FlagsOf(FileHandle file) { return fcntl(file, F_GETFL); }
  static bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

  const test::TempDir temp_;
  std::unique_ptr<DiskIo> io_ = MakePosixDiskIo(false);
};

TEST_F(PosixDisk, OnlyLogFilesBypassThePageCacheAndOnlyWhenAsked) {
  const std::unique_ptr<DiskIo> direct = MakePosixDiskIo(true);
  const Result<FileHandle> log = direct->Open(temp_ / "log", OpenMode::kCreateLog);
  if (!log.ok() && log.status().os_error() == EINVAL) {
    EXPECT_FALSE(Exists(temp_ / "log")) << "a refused file is not left behind";
    GTEST_SKIP() << "SKIPPED: no O_DIRECT in " << temp_.path();
  }
  ASSERT_TRUE(log.ok());
  EXPECT_NE(FlagsOf(*log) & O_DIRECT, 0);
  const FileHandle small = direct->Open(temp_ / "small", OpenMode::kCreate).value();
  EXPECT_EQ(FlagsOf(small) & O_DIRECT, 0);
  const FileHandle read = direct->Open(temp_ / "log", OpenMode::kRead).value();
  EXPECT_EQ(FlagsOf(read) & (O_DIRECT | O_ACCMODE), O_RDONLY);
  const FileHandle buffered = io_->Open(temp_ / "buffered", OpenMode::kCreateLog).value();
  EXPECT_EQ(FlagsOf(buffered) & O_DIRECT, 0);
  for (const FileHandle file : {*log, small, read, buffered}) {
    EXPECT_NE(fcntl(file, F_GETFD) & FD_CLOEXEC, 0) << "no child inherits it";
  }
  for (const FileHandle file : {*log, small, read}) direct->Close(file);
  io_->Close(buffered);
}

TEST_F(PosixDisk, AllocationTakesTheBlocksThatTheFileWillNeed) {
  for (const AllocateFill fill : {AllocateFill::kZeroed, AllocateFill::kUnwritten}) {
    const std::string path = temp_ / (fill == AllocateFill::kZeroed ? "zeroed" : "unwritten");
    const FileHandle file = io_->Open(path, OpenMode::kCreateLog).value();
    ASSERT_TRUE(io_->Allocate(file, 3 << 20, fill).ok());
    io_->Close(file);
    struct stat info {};
    ASSERT_EQ(stat(path.c_str(), &info), 0);
    EXPECT_EQ(info.st_size, 3 << 20);
    EXPECT_GE(info.st_blocks * 512, 3 << 20) << "a hole would fail with ENOSPC later";
  }
}

TEST_F(PosixDisk, MissingParentsAreMadeForTheirOwnerOnly) {
  ASSERT_TRUE(io_->MakeDirectory(temp_ / "a/b/c").ok());
  for (const char* name : {"a", "a/b", "a/b/c"}) {
    struct stat info {};
    ASSERT_EQ(stat((temp_ / name).c_str(), &info), 0);
    EXPECT_TRUE(S_ISDIR(info.st_mode));
    EXPECT_EQ(info.st_mode & 0777, 0700u) << name;
  }
  ASSERT_TRUE(io_->MakeDirectory(temp_ / "a/b/c/").ok()) << "a slash at the end does not make it another name";
}

TEST_F(PosixDisk, ADirectoryIsNotMadeThroughOrOverAFile) {
  io_->Close(io_->Open(temp_ / "file", OpenMode::kCreate).value());
  EXPECT_EQ(io_->MakeDirectory(temp_ / "file").os_error(), ENOTDIR);
  const Status status = io_->MakeDirectory(temp_ / "file/below");
  EXPECT_EQ(status.code(), StatusCode::kStorageError);
  EXPECT_NE(status.message().find(temp_ / "file"), std::string::npos) << status.message();
}

TEST_F(PosixDisk, ListsEveryNameOnceInOrder) {
  for (const char* name : {"b", "a", ".hidden", "B"}) {
    io_->Close(io_->Open(temp_ / name, OpenMode::kCreate).value());
  }
  ASSERT_TRUE(io_->MakeDirectory(temp_ / "directory").ok());
  EXPECT_EQ(io_->List(temp_.path()).value(), (std::vector<std::string>{".hidden", "B", "a", "b", "directory"}));
}

TEST_F(PosixDisk, ANameThatIsThereOrMissingIsAnError) {
  io_->Close(io_->Open(temp_ / "one", OpenMode::kCreate).value());
  EXPECT_EQ(io_->Open(temp_ / "one", OpenMode::kCreate).status().os_error(), EEXIST);
  EXPECT_EQ(io_->Rename(temp_ / "none", temp_ / "two").os_error(), ENOENT);
  EXPECT_EQ(io_->Unlink(temp_ / "none").os_error(), ENOENT);
  EXPECT_EQ(io_->SyncDirectory(temp_ / "none").os_error(), ENOENT);
}

TEST_F(PosixDisk, ADroppedCacheShowsTheSameBytes) {
  const FileHandle file = io_->Open(temp_ / "a", OpenMode::kCreateLog).value();
  ASSERT_TRUE(io_->Allocate(file, 64 << 10, AllocateFill::kUnwritten).ok());
  const AlignedBytes block = AllocateAligned(kDiskBlockBytes);
  std::memset(block.get(), 0x3c, kDiskBlockBytes);
  ASSERT_TRUE(io_->Write(file, 4096, {block.get(), kDiskBlockBytes}, true).ok());
  io_->DropCache(file);
  std::vector<std::byte> seen(kDiskBlockBytes);
  EXPECT_EQ(io_->Read(file, 4096, seen).value(), kDiskBlockBytes);
  EXPECT_TRUE(std::equal(seen.begin(), seen.end(), block.get()));
  io_->Close(file);
}

TEST_F(PosixDisk, ErrorsNameAFileByThePathThatItHasNow) {
  io_->Close(io_->Open(temp_ / "reserve.tmp", OpenMode::kCreateLog).value());
  const FileHandle file = io_->Open(temp_ / "reserve.tmp", OpenMode::kRead).value();
  ASSERT_TRUE(io_->Rename(temp_ / "reserve.tmp", temp_ / "wal-1.log").ok());
  const AlignedBytes bytes = AllocateAligned(kDiskBlockBytes);
  const Status status = io_->Write(file, 0, {bytes.get(), kDiskBlockBytes}, false);
  EXPECT_EQ(status.os_error(), EBADF);
  EXPECT_NE(status.message().find(temp_ / "wal-1.log"), std::string::npos) << status.message();
  io_->Close(file);
}

}  // namespace
}  // namespace sutra
