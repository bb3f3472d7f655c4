// The conformance suite of DiskIo: the same cases against io_uring, plain system calls (with and without the page
// cache) and the simulated disk; then how bad completions are judged, and the choice between the implementations.
#include "cache/disk/disk_io.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <thread>

#include "shm/base/enum_names.h"
#include "tests/kit/temp_dir.h"
#include "tests/sim/sim_disk.h"

namespace sutra {
namespace {

enum class Kind { kUring, kUringBuffered, kPosix, kPosixBuffered, kSimulated };

struct Block {
  explicit Block(int fill, size_t blocks = 1) : size(blocks * kDiskBlockBytes), memory(AllocateAligned(size)) {
    std::memset(memory.get(), fill, size);
  }
  std::span<const std::byte> bytes() const { return {memory.get(), size}; }
  size_t size;
  AlignedBytes memory;
};

class DiskIoConformance : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    Result<std::unique_ptr<DiskIo>> made = Make();
    if (!made.ok()) GTEST_SKIP() << "SKIPPED: " << made.status().message();
    io_ = std::move(made).value();
    directory_ = temp_.path() + "/data";
    ASSERT_TRUE(io_->MakeDirectory(directory_).ok());
    // A file system that cannot bypass the page cache has nothing to test here.
    const Status probe = ProbeDiskIo(io_.get(), directory_);
    if (probe.os_error() == EINVAL) GTEST_SKIP() << "SKIPPED: no O_DIRECT in " << directory_;
    ASSERT_TRUE(probe.ok()) << probe.message();
  }

  static Result<std::unique_ptr<DiskIo>> Make() {
    switch (GetParam()) {
      case Kind::kUring: return MakeUringDiskIo(true);
      case Kind::kUringBuffered: return MakeUringDiskIo(false);
      case Kind::kPosix: return MakePosixDiskIo(true);
      case Kind::kPosixBuffered: return MakePosixDiskIo(false);
      case Kind::kSimulated: break;
    }
    return std::unique_ptr<DiskIo>(std::make_unique<sim::SimDisk>());
  }

  FileHandle Create(const std::string& name, uint64_t bytes, AllocateFill fill = AllocateFill::kZeroed) {
    Result<FileHandle> file = io_->Open(directory_ + "/" + name, OpenMode::kCreateLog);
    EXPECT_TRUE(file.ok());
    EXPECT_TRUE(io_->Allocate(*file, bytes, fill).ok());
    return *file;
  }

  std::vector<std::byte> ReadAll(const std::string& name, size_t room = 1 << 20) {
    Result<FileHandle> file = io_->Open(directory_ + "/" + name, OpenMode::kRead);
    EXPECT_TRUE(file.ok());
    std::vector<std::byte> bytes(room);
    const Result<size_t> read = io_->Read(*file, 0, bytes);
    EXPECT_TRUE(read.ok());
    bytes.resize(read.ok() ? read.value() : 0);
    io_->Close(*file);
    return bytes;
  }

  test::TempDir temp_;
  std::string directory_;
  std::unique_ptr<DiskIo> io_;
};

TEST_P(DiskIoConformance, AllocatedFileHasItsSizeAndReadsAsZeros) {
  for (const AllocateFill fill : {AllocateFill::kZeroed, AllocateFill::kUnwritten}) {
    const std::string name = fill == AllocateFill::kZeroed ? "a" : "b";
    const FileHandle file = Create(name, 64 << 10, fill);
    EXPECT_EQ(io_->Size(file).value(), 64u << 10);
    io_->Close(file);
    EXPECT_EQ(ReadAll(name), std::vector<std::byte>(64 << 10));
  }
}

TEST_P(DiskIoConformance, WritesLandWhereTheyWereSent) {
  const FileHandle file = Create("a", 64 << 10);
  const Block one(1), two(2, 3);
  EXPECT_TRUE(io_->Write(file, 0, one.bytes(), false).ok());
  EXPECT_TRUE(io_->Write(file, 2 * kDiskBlockBytes, two.bytes(), true).ok());
  EXPECT_TRUE(io_->Sync(file).ok());
  io_->Close(file);
  std::vector<std::byte> expected(64 << 10);
  std::memset(expected.data(), 1, kDiskBlockBytes);
  std::memset(expected.data() + 2 * kDiskBlockBytes, 2, 3 * kDiskBlockBytes);
  EXPECT_EQ(ReadAll("a"), expected);
}

TEST_P(DiskIoConformance, SubmitAndReapAreAWrite) {
  const FileHandle file = Create("a", 64 << 10);
  const Block block(7);
  for (uint64_t i = 0; i < 16; ++i) {
    io_->Submit(file, i * kDiskBlockBytes, block.bytes(), i % 2 == 0);
    EXPECT_TRUE(io_->Reap().ok());
  }
  io_->Close(file);
  EXPECT_EQ(ReadAll("a"), std::vector<std::byte>(64 << 10, std::byte{7}));
}

TEST_P(DiskIoConformance, WritesGoOnWhileASyncRuns) {
  const FileHandle file = Create("a", 64 << 10);
  const Block before(1), beside(2), within(3);
  EXPECT_TRUE(io_->Write(file, 0, before.bytes(), false).ok());
  io_->BeginSync(file);
  EXPECT_TRUE(io_->Write(file, kDiskBlockBytes, beside.bytes(), false).ok());
  io_->Submit(file, 2 * kDiskBlockBytes, within.bytes(), false);
  Status synced(StatusCode::kStorageError, "not ended");
  std::thread([&] { synced = io_->EndSync(file); }).join();
  EXPECT_TRUE(synced.ok()) << synced.message();
  EXPECT_TRUE(io_->Reap().ok());
  io_->Close(file);
  std::vector<std::byte> expected(64 << 10);
  for (size_t i = 0; i < 3; ++i) std::memset(expected.data() + i * kDiskBlockBytes, int(i) + 1, kDiskBlockBytes);
  EXPECT_EQ(ReadAll("a"), expected);
}

TEST_P(DiskIoConformance, ReadStopsAtTheEndOfTheFile) {
  io_->Close(Create("a", 8192));
  Result<FileHandle> file = io_->Open(directory_ + "/a", OpenMode::kRead);
  std::vector<std::byte> bytes(10000);
  EXPECT_EQ(io_->Read(*file, 0, bytes).value(), 8192u);
  EXPECT_EQ(io_->Read(*file, 8000, bytes).value(), 192u);
  EXPECT_EQ(io_->Read(*file, 8192, bytes).value(), 0u);
  io_->Close(*file);
}

TEST_P(DiskIoConformance, SmallFilesNeedNoAlignment) {
  Result<FileHandle> file = io_->Open(directory_ + "/small", OpenMode::kCreate);
  ASSERT_TRUE(file.ok());
  const std::string text = "seven b";
  EXPECT_TRUE(io_->Write(*file, 0, std::as_bytes(std::span<const char>(text)), true).ok());
  io_->Close(*file);
  EXPECT_EQ(ReadAll("small").size(), text.size());
}

TEST_P(DiskIoConformance, AnExistingLogFileIsWrittenInPlace) {
  io_->Close(Create("a", 64 << 10));
  EXPECT_TRUE(io_->Rename(directory_ + "/a", directory_ + "/b").ok());
  Result<FileHandle> file = io_->Open(directory_ + "/b", OpenMode::kWriteLog);
  ASSERT_TRUE(file.ok()) << file.status().message();
  const Block block(5);
  EXPECT_TRUE(io_->Write(*file, kDiskBlockBytes, block.bytes(), true).ok());
  io_->Close(*file);
  std::vector<std::byte> expected(64 << 10);
  std::memset(expected.data() + kDiskBlockBytes, 5, kDiskBlockBytes);
  EXPECT_EQ(ReadAll("b"), expected) << "its size and the rest of it stay";
  EXPECT_EQ(io_->Open(directory_ + "/a", OpenMode::kWriteLog).status().os_error(), ENOENT) << "it creates none";
}

TEST_P(DiskIoConformance, NamesComeAndGo) {
  io_->Close(Create("a", 4096));
  EXPECT_FALSE(io_->Open(directory_ + "/a", OpenMode::kCreateLog).ok()) << "a file is never created over another";
  EXPECT_TRUE(io_->Rename(directory_ + "/a", directory_ + "/b").ok());
  EXPECT_TRUE(io_->MakeDirectory(directory_ + "/deep/er").ok());
  EXPECT_TRUE(io_->MakeDirectory(directory_ + "/deep/er").ok());
  EXPECT_TRUE(io_->SyncDirectory(directory_).ok());
  EXPECT_EQ(io_->List(directory_).value(), (std::vector<std::string>{"b", "deep"}));
  EXPECT_TRUE(io_->Unlink(directory_ + "/b").ok());
  EXPECT_EQ(io_->Unlink(directory_ + "/b").os_error(), ENOENT);
  EXPECT_EQ(io_->Open(directory_ + "/b", OpenMode::kRead).status().os_error(), ENOENT);
  EXPECT_EQ(io_->List(directory_).value(), (std::vector<std::string>{"deep"}));
  EXPECT_FALSE(io_->List(directory_ + "/none").ok());
}

TEST_P(DiskIoConformance, ErrorsNameTheFile) {
  const FileHandle file = Create("named", 4096);
  io_->Close(file);
  const Block block(1);
  const Status status = io_->Write(file, 0, block.bytes(), true);
  EXPECT_EQ(status.code(), StatusCode::kStorageError);
  EXPECT_EQ(io_->Open(directory_ + "/missing", OpenMode::kRead).status().message().find(directory_), 8u);
}

TEST_P(DiskIoConformance, NewFilesBelongToTheirOwnerOnly) {
  if (GetParam() == Kind::kSimulated) return;
  io_->Close(Create("a", 4096));
  ASSERT_TRUE(io_->MakeDirectory(directory_ + "/d").ok());
  struct stat info {};
  ASSERT_EQ(stat((directory_ + "/a").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  ASSERT_EQ(stat((directory_ + "/d").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
}

// A file size limit gives a real short write and then EFBIG, through io_uring as well.
TEST_P(DiskIoConformance, AShortWriteIsNotAWrite) {
  if (GetParam() == Kind::kSimulated) return;
  const FileHandle file = Create("a", 4096);
  const Block blocks(9, 2);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{4096, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  const Status status = io_->Write(file, 0, blocks.bytes(), true);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_FALSE(status.ok());
  EXPECT_TRUE(io_->Write(file, 0, blocks.bytes(), true).ok()) << "the next write works";
  io_->Close(file);
}

std::string KindName(const testing::TestParamInfo<Kind>& kind) {
  constexpr const char* kNames[] = {"Uring", "UringBuffered", "Posix", "PosixBuffered", "Simulated"};
  return kNames[static_cast<int>(kind.param)];
}

INSTANTIATE_TEST_SUITE_P(All, DiskIoConformance,
                         testing::Values(Kind::kUring, Kind::kUringBuffered, Kind::kPosix, Kind::kPosixBuffered,
                                         Kind::kSimulated),
                         KindName);

// Completions that a test chooses, and a count of the requests.
class ScriptedDisk final : public sim::SimDisk {
 public:
  std::vector<int64_t> writes, syncs, lone_syncs;  // results to give, in order; then the real ones
  int write_calls = 0, sync_calls = 0;

 protected:
  void RawSubmit(const Operation& operation) override SUTRA_REQUIRES(in_flight_mutex_) {
    ++write_calls;
    SimDisk::RawSubmit(operation);
    completion_ = SimDisk::RawReap();
    if (!writes.empty()) {
      completion_.write = writes.front();
      writes.erase(writes.begin());
    }
    if (operation.then_sync && !syncs.empty()) {
      completion_.sync = syncs.front();
      syncs.erase(syncs.begin());
    }
  }
  Completion RawReap() override SUTRA_REQUIRES(in_flight_mutex_) { return completion_; }
  int RawSync(FileHandle file) override {
    ++sync_calls;
    if (lone_syncs.empty()) return SimDisk::RawSync(file);
    const auto result = static_cast<int>(lone_syncs.front());
    lone_syncs.erase(lone_syncs.begin());
    return result;
  }

 private:
  Completion completion_;
};

class Judgement : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(disk_.MakeDirectory("/d").ok());
    file_ = disk_.Open("/d/f", OpenMode::kCreateLog).value();
    ASSERT_TRUE(disk_.Allocate(file_, 64 << 10, AllocateFill::kUnwritten).ok());
    disk_.sync_calls = 0;
  }
  Status Write() { return disk_.Write(file_, 0, block_.bytes(), true); }

  ScriptedDisk disk_;
  FileHandle file_ = -1;
  Block block_{3, 4};
};

TEST_F(Judgement, AWriteErrorIsReportedAndNothingIsSynced) {
  disk_.writes = {-EIO};
  disk_.syncs = {-ECANCELED};
  EXPECT_EQ(Write().os_error(), EIO);
  EXPECT_EQ(disk_.sync_calls, 0);
}

TEST_F(Judgement, AShortWriteIsFinishedAndSyncedAnew) {
  disk_.writes = {2 * 4096 + 100};
  disk_.syncs = {-ECANCELED};
  EXPECT_TRUE(Write().ok());
  EXPECT_EQ(disk_.write_calls, 2);
  EXPECT_EQ(disk_.sync_calls, 1);
}

TEST_F(Judgement, ASyncThatRanBesideAShortWriteIsNotBelieved) {
  disk_.writes = {4096};
  disk_.syncs = {0};
  EXPECT_TRUE(Write().ok());
  EXPECT_EQ(disk_.sync_calls, 1);
}

// The kernel may have marked the lost pages clean, so that a sync after the rest of the write would report success.
TEST_F(Judgement, AFailedSyncBesideAShortWriteIsNotRepeated) {
  disk_.writes = {4096};
  disk_.syncs = {-EIO};
  EXPECT_EQ(Write().os_error(), EIO);
  EXPECT_EQ(disk_.sync_calls, 0);
}

TEST_F(Judgement, ACancelledSyncBehindAWholeWriteIsRunAnew) {
  disk_.syncs = {-ECANCELED};
  EXPECT_TRUE(Write().ok());
  EXPECT_EQ(disk_.sync_calls, 1);
}

TEST_F(Judgement, AFailedSyncIsNeverRepeated) {
  disk_.syncs = {-EIO};
  EXPECT_EQ(Write().os_error(), EIO);
  EXPECT_EQ(disk_.sync_calls, 0);
  disk_.lone_syncs = {-EIO};
  EXPECT_EQ(disk_.Sync(file_).os_error(), EIO);
  EXPECT_EQ(disk_.sync_calls, 1);
}

TEST_F(Judgement, InterruptedWritesAreRepeated) {
  disk_.writes = {-EINTR, -EAGAIN};
  disk_.syncs = {-ECANCELED};
  EXPECT_TRUE(Write().ok());
  EXPECT_EQ(disk_.write_calls, 3);
}

TEST_F(Judgement, NoProgressEndsInAnError) {
  disk_.writes = std::vector<int64_t>(1000, 0);
  EXPECT_EQ(Write().os_error(), ENOSPC);
  disk_.writes = std::vector<int64_t>(1000, -EINTR);
  EXPECT_EQ(Write().os_error(), EINTR);
}

TEST(MakeDiskIo, ChoosesAndSaysWhy) {
  const test::TempDir temp;
  std::vector<std::string> lines;
  const auto log = [&](LogLevel, const std::string& line) { lines.push_back(line); };
  Result<std::unique_ptr<DiskIo>> automatic = MakeDiskIo(DiskIoKind::kAuto, temp / "new/data", log);
  ASSERT_TRUE(automatic.ok()) << automatic.status().message();
  if (std::string((*automatic)->name()) == "io_uring") {
    EXPECT_TRUE(lines.empty());
  } else {
    ASSERT_EQ(lines.size(), 1u);
    EXPECT_NE(lines[0].find("io_uring is not usable"), std::string::npos);
  }
  EXPECT_STREQ(MakeDiskIo(DiskIoKind::kPosix, temp.path(), log).value()->name(), "posix");
  EXPECT_TRUE((*automatic)->List(temp / "new/data").value().empty()) << "the probe leaves nothing behind";
}

TEST(MakeDiskIo, EveryKindIsNamedAndParsedBack) {
  for (const auto& [name, kind] : kDiskIoKindNames) {
    EXPECT_STREQ(NameOf(kDiskIoKindNames, kind), name);
    EXPECT_EQ(EnumOf(kDiskIoKindNames, name), kind);
  }
  for (const char* name : {"fast", "", "Auto", "posix "}) EXPECT_FALSE(EnumOf(kDiskIoKindNames, name)) << name;
}

TEST(MakeDiskIo, AFileInPlaceOfTheDirectoryIsNamed) {
  const test::TempDir temp;
  std::unique_ptr<DiskIo> io = MakePosixDiskIo(false);
  io->Close(io->Open(temp / "file", OpenMode::kCreate).value());
  const Status status = MakeDiskIo(DiskIoKind::kAuto, temp / "file", {}).status();
  EXPECT_EQ(status.code(), StatusCode::kStorageError);
  EXPECT_NE(status.message().find(temp / "file"), std::string::npos);
}

}  // namespace
}  // namespace sutra
