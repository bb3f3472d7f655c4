// What only the io_uring implementation guarantees, beyond the conformance suite of disk_io_test.cc: any thread may use
// the ring, and a sandbox that forbids it causes a line in the log, not a failed start.
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <thread>

#include "cache/disk/disk_io.h"
#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

constexpr uint64_t kFileBytes = 64 << 10;

class UringDisk : public testing::Test {
 protected:
  void SetUp() override {
    Result<std::unique_ptr<DiskIo>> made = MakeUringDiskIo(false);
    if (!made.ok()) GTEST_SKIP() << "SKIPPED: " << made.status().message();
    io_ = std::move(made).value();
    file_ = io_->Open(temp_ / "file", OpenMode::kCreateLog).value();
    ASSERT_TRUE(io_->Allocate(file_, kFileBytes, AllocateFill::kUnwritten).ok());
  }
  void TearDown() override {
    if (io_ != nullptr) io_->Close(file_);
  }
  Status WriteBlock(uint64_t block, int fill, bool then_sync) {
    const AlignedBytes bytes = AllocateAligned(kDiskBlockBytes);
    std::memset(bytes.get(), fill, kDiskBlockBytes);
    return io_->Write(file_, block * kDiskBlockBytes, {bytes.get(), kDiskBlockBytes}, then_sync);
  }
  int FillOf(uint64_t block) {
    std::vector<std::byte> bytes(kDiskBlockBytes);
    EXPECT_EQ(io_->Read(file_, block * kDiskBlockBytes, bytes).value(), kDiskBlockBytes);
    const bool even = std::all_of(bytes.begin(), bytes.end(), [&](std::byte b) { return b == bytes[0]; });
    return even ? static_cast<int>(bytes[0]) : -1;
  }

  const test::TempDir temp_;
  std::unique_ptr<DiskIo> io_;
  FileHandle file_ = kNoFile;
};

TEST_F(UringDisk, ThreadsThatDidNotOpenItTakeTurns) {
  EXPECT_STREQ(io_->name(), "io_uring");
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < 25; ++i) {
        EXPECT_TRUE(WriteBlock(static_cast<uint64_t>(t), t + 1, i % 2 == 0).ok());
        EXPECT_TRUE(i % 5 != 0 || io_->Sync(file_).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int t = 0; t < 4; ++t) EXPECT_EQ(FillOf(static_cast<uint64_t>(t)), t + 1);
}

TEST_F(UringDisk, AnEndedThreadTakesNothingAlong) {
  std::thread([&] { EXPECT_TRUE(WriteBlock(0, 1, true).ok()); }).join();
  EXPECT_TRUE(WriteBlock(1, 2, true).ok());
  EXPECT_EQ(FillOf(0), 1);
  EXPECT_EQ(FillOf(1), 2);
}

TEST_F(UringDisk, AnErrorIsReportedAndTheNextWriteWorks) {
  const FileHandle read_only = io_->Open(temp_ / "file", OpenMode::kRead).value();
  const AlignedBytes bytes = AllocateAligned(kDiskBlockBytes);
  std::memset(bytes.get(), 9, kDiskBlockBytes);
  for (const bool then_sync : {false, true}) {
    const Status status = io_->Write(read_only, 0, {bytes.get(), kDiskBlockBytes}, then_sync);
    EXPECT_EQ(status.os_error(), EBADF);
    EXPECT_NE(status.message().find(temp_ / "file"), std::string::npos);
    EXPECT_TRUE(WriteBlock(3, 4, then_sync).ok());
  }
  io_->Close(read_only);
  EXPECT_EQ(FillOf(3), 4);
}

// A container's usual answer to a call of io_uring, installed in a child.
bool Forbid(unsigned system_call) {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, system_call, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {static_cast<unsigned short>(std::size(filter)), filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

// 0, or the number of the first expectation that did not hold.
int CheckForbidden(const std::string& directory) {
  if (!Forbid(SYS_io_uring_setup)) return 100;
  if (MakeUringDiskIo(false).status().os_error() != EPERM) return 1;
  std::string line;
  Result<std::unique_ptr<DiskIo>> automatic =
      MakeDiskIo(DiskIoKind::kAuto, directory, [&](LogLevel, const std::string& said) { line = said; });
  if (!automatic.ok() || std::strcmp((*automatic)->name(), "posix") != 0) return 2;
  if (line.find("io_uring is not usable in " + directory) != 0) return 3;
  if (line.find("using plain system calls") == std::string::npos) return 4;
  const Status refused = MakeDiskIo(DiskIoKind::kUring, directory, {}).status();
  if (refused.ok() || refused.os_error() != EPERM) return 5;
  if (refused.message().find("kernel.io_uring_disabled, seccomp") == std::string::npos) return 6;
  if (!MakeDiskIo(DiskIoKind::kPosix, directory, {}).ok()) return 7;
  return 0;
}

// 0, or the number of the first expectation that did not hold.
int CheckBroken(const std::string& directory) {
  std::vector<std::string> lines;
  Result<std::unique_ptr<DiskIo>> made = MakeUringDiskIo(false, [&](LogLevel level, const std::string& said) {
    if (level == LogLevel::kWarn) lines.push_back(said);
  });
  if (!made.ok()) return 100;
  DiskIo& io = **made;
  const FileHandle file = io.Open(directory + "/file", OpenMode::kCreateLog).value();
  if (!io.Allocate(file, kFileBytes, AllocateFill::kUnwritten).ok()) return 1;
  const AlignedBytes bytes = AllocateAligned(kDiskBlockBytes);
  std::memset(bytes.get(), 7, kDiskBlockBytes);
  const auto write = [&] { return io.Write(file, 0, {bytes.get(), kDiskBlockBytes}, false); };
  if (!write().ok() || std::strcmp(io.name(), "io_uring") != 0) return 2;
  if (!Forbid(SYS_io_uring_enter)) return 100;
  if (write().os_error() != EPERM) return 3;
  if (std::strcmp(io.name(), "posix") != 0) return 4;
  if (lines.size() != 1 || lines[0].find("io_uring is out of use") == std::string::npos) return 5;
  if (!write().ok() || !io.Sync(file).ok() || lines.size() != 1) return 6;
  io.Close(file);
  return 0;
}

// 0, or the number of the first expectation that did not hold.
int CheckAwaited(const std::string& directory) {
  Result<std::unique_ptr<DiskIo>> made = MakeUringDiskIo(false);
  if (!made.ok()) return 100;
  DiskIo& io = **made;
  const FileHandle file = io.Open(directory + "/file", OpenMode::kCreateLog).value();
  if (!io.Allocate(file, kFileBytes, AllocateFill::kUnwritten).ok()) return 1;
  const AlignedBytes bytes = AllocateAligned(kDiskBlockBytes);
  std::memset(bytes.get(), 7, kDiskBlockBytes);
  if (!Forbid(SYS_io_uring_enter)) return 100;
  if (!io.Write(file, 0, {bytes.get(), kDiskBlockBytes}, true).ok()) return 2;
  io.Submit(file, kDiskBlockBytes, {bytes.get(), kDiskBlockBytes}, false, true);
  if (!io.Reap().ok()) return 3;
  if (std::strcmp(io.name(), "io_uring") != 0) return 4;
  if (io.Write(file, 0, {bytes.get(), kDiskBlockBytes}, false).os_error() != EPERM) return 5;
  io.Close(file);
  return 0;
}

void ExpectInChild(int (*check)(const std::string&)) {
  const test::TempDir temp;
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(check(temp.path()));
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  if (WEXITSTATUS(status) == 100) GTEST_SKIP() << "SKIPPED: no io_uring or no seccomp filters here";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(UringForbidden, AutoFallsBackAndSaysWhyTheOthersDoAsTold) { ExpectInChild(CheckForbidden); }

// Its completion would come by way of a kernel thread that waits for a CPU like everyone else.
TEST(UringForbidden, WhatSomebodyWaitsForNeedsNoRing) { ExpectInChild(CheckAwaited); }

TEST(UringForbidden, ARingThatBreaksIsSaidOnceAndNamesWhatIsUsedFromThenOn) { ExpectInChild(CheckBroken); }

}  // namespace
}  // namespace sutra
