// Random histories of calls give the same results and the same files over io_uring, plain system calls (with and
// without the page cache) and the simulated disk: each is compared with a model that is a map from names to bytes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "cache/disk/disk_io.h"
#include "tests/kit/seed.h"
#include "tests/kit/temp_dir.h"
#include "tests/sim/sim_disk.h"

namespace sutra {
namespace {

constexpr uint64_t kFileBytes = 64 << 10;
constexpr uint64_t kBlocks = kFileBytes / kDiskBlockBytes;
constexpr int kNames = 6;

struct Kind {
  const char* name;
  Result<std::unique_ptr<DiskIo>> (*make)();
};

Result<std::unique_ptr<DiskIo>> MakePosix() { return MakePosixDiskIo(true); }
Result<std::unique_ptr<DiskIo>> MakePosixBuffered() { return MakePosixDiskIo(false); }
Result<std::unique_ptr<DiskIo>> MakeUring() { return MakeUringDiskIo(true); }
Result<std::unique_ptr<DiskIo>> MakeUringBuffered() { return MakeUringDiskIo(false); }
Result<std::unique_ptr<DiskIo>> MakeSimulated() { return std::unique_ptr<DiskIo>(std::make_unique<sim::SimDisk>()); }

// One history; `failure` says what differed first.
class History {
 public:
  History(DiskIo* io, const std::string& directory, uint64_t seed) : io_(io), directory_(directory), random_(seed) {
    Need(io_->MakeDirectory(directory_).ok(), "no directory");
  }

  std::string Run() {
    for (int step = 0; step < 120 && failure_.empty(); ++step) Step();
    for (auto& [name, file] : files_) {
      if (file.handle != kNoFile) io_->Close(std::exchange(file.handle, kNoFile));
      Need(Contents(name) == file.bytes, "another content of " + name + " at the end");
      Need(io_->Unlink(PathOf(name)).ok(), "not removed: " + name);
    }
    Need(io_->List(directory_).value().empty(), "names that nobody made");
    return failure_;
  }

 private:
  struct File {
    FileHandle handle = kNoFile;  // open for writing
    std::vector<std::byte> bytes;
  };

  void Need(bool condition, const std::string& failure) {
    if (!condition && failure_.empty()) failure_ = failure;
  }

  void Step() {
    const std::string name = "file " + std::to_string(Random(kNames));
    const uint64_t kind = Random(100);
    if (kind < 15) {
      Create(name);
    } else if (kind < 60) {
      WriteSome(name);
    } else if (kind < 75) {
      Read(name);
    } else if (kind < 85) {
      Move(name, "file " + std::to_string(Random(kNames)));
    } else if (kind < 92) {
      Remove(name);
    } else {
      Need(io_->SyncDirectory(directory_).ok(), "the directory is not synced");
      std::vector<std::string> names;
      for (const auto& [there, file] : files_) names.push_back(there);
      Need(io_->List(directory_).value() == names, "other names");
    }
  }

  uint64_t Random(uint64_t below) { return std::uniform_int_distribution<uint64_t>(0, below - 1)(random_); }

  std::string PathOf(const std::string& name) const { return directory_ + "/" + name; }

  void Create(const std::string& name) {
    const Result<FileHandle> handle = io_->Open(PathOf(name), OpenMode::kCreateLog);
    Need(handle.ok() == (files_.count(name) == 0), "created over another, or not at all: " + name);
    if (!handle.ok()) return Need(handle.status().os_error() == EEXIST, "created, another error: " + name);
    const AllocateFill fill = Random(2) == 0 ? AllocateFill::kZeroed : AllocateFill::kUnwritten;
    Need(io_->Allocate(*handle, kFileBytes, fill).ok(), "not allocated: " + name);
    files_[name] = File{*handle, std::vector<std::byte>(kFileBytes)};
  }

  // A handle stays valid whatever becomes of the name.
  void WriteSome(const std::string& name) {
    const auto found = files_.find(name);
    if (found == files_.end() || found->second.handle == kNoFile) return;
    File& file = found->second;
    const uint64_t first = Random(kBlocks);
    const uint64_t blocks = 1 + Random(std::min<uint64_t>(4, kBlocks - first));
    const AlignedBytes memory = AllocateAligned(blocks * kDiskBlockBytes);
    std::memset(memory.get(), static_cast<int>(Random(256)), blocks * kDiskBlockBytes);
    const std::span<const std::byte> data(memory.get(), blocks * kDiskBlockBytes);
    Need(io_->Write(file.handle, first * kDiskBlockBytes, data, Random(3) == 0).ok(), "not written: " + name);
    std::memcpy(file.bytes.data() + first * kDiskBlockBytes, data.data(), data.size());
    if (Random(4) == 0) {
      Need(io_->Sync(file.handle).ok(), "not synced: " + name);
      io_->DropCache(file.handle);
    }
  }

  std::vector<std::byte> Contents(const std::string& name) {
    const Result<FileHandle> handle = io_->Open(PathOf(name), OpenMode::kRead);
    if (!handle.ok()) return {};
    std::vector<std::byte> bytes(2 * kFileBytes);
    const Result<size_t> read = io_->Read(*handle, 0, bytes);
    Need(read.ok() && io_->Size(*handle).value() == kFileBytes, "not read, or of another size: " + name);
    bytes.resize(read.ok() ? read.value() : 0);
    io_->Close(*handle);
    return bytes;
  }

  // Sees what was written, synced or not.
  void Read(const std::string& name) {
    const auto found = files_.find(name);
    if (found == files_.end()) {
      Need(io_->Open(PathOf(name), OpenMode::kRead).status().os_error() == ENOENT, "there is a file " + name);
    } else {
      Need(Contents(name) == found->second.bytes, "another content of " + name);
    }
  }

  void Move(const std::string& from, const std::string& to) {
    if (from == to) return;
    const Status moved = io_->Rename(PathOf(from), PathOf(to));
    const auto found = files_.find(from);
    Need(moved.ok() == (found != files_.end()), "renamed or not, unlike the model: " + from);
    if (!moved.ok()) return Need(moved.os_error() == ENOENT, "renamed, another error: " + from);
    Forget(to);  // replaced
    files_[to] = std::move(found->second);
    files_.erase(from);
  }

  void Remove(const std::string& name) {
    const Status removed = io_->Unlink(PathOf(name));
    Need(removed.ok() == (files_.count(name) == 1), "removed or not, unlike the model: " + name);
    Need(removed.ok() || removed.os_error() == ENOENT, "removed, another error: " + name);
    Forget(name);
  }

  void Forget(const std::string& name) {
    const auto found = files_.find(name);
    if (found == files_.end()) return;
    if (found->second.handle != kNoFile) {
      const AlignedBytes memory = AllocateAligned(kDiskBlockBytes);
      std::memset(memory.get(), 1, kDiskBlockBytes);
      Need(io_->Write(found->second.handle, 0, {memory.get(), kDiskBlockBytes}, true).ok(), "a nameless file: " + name);
      io_->Close(found->second.handle);
    }
    files_.erase(found);
  }

  DiskIo* const io_;
  const std::string directory_;
  std::mt19937_64 random_;
  std::map<std::string, File> files_;
  std::string failure_;
};

class DiskIoHistory : public testing::TestWithParam<Kind> {};

TEST_P(DiskIoHistory, EveryCallDoesWhatTheModelDoes) {
  Result<std::unique_ptr<DiskIo>> made = GetParam().make();
  if (!made.ok()) GTEST_SKIP() << "SKIPPED: " << made.status().message();
  const test::TempDir temp;
  ASSERT_TRUE((*made)->MakeDirectory(temp.path()).ok());
  const Status probe = ProbeDiskIo(made->get(), temp.path());
  if (probe.os_error() == EINVAL) GTEST_SKIP() << "SKIPPED: no O_DIRECT in " << temp.path();
  ASSERT_TRUE(probe.ok()) << probe.message();
  const uint64_t first = test::TestSeed(1);
  for (uint64_t seed = first; seed < first + 12; ++seed) {
    ASSERT_EQ(History(made->get(), temp / std::to_string(seed), seed).Run(), "") << "SUTRA_SEED=" << seed;
  }
}

INSTANTIATE_TEST_SUITE_P(All, DiskIoHistory,
                         testing::Values(Kind{"Uring", MakeUring}, Kind{"UringBuffered", MakeUringBuffered},
                                         Kind{"Posix", MakePosix}, Kind{"PosixBuffered", MakePosixBuffered},
                                         Kind{"Simulated", MakeSimulated}),
                         [](const testing::TestParamInfo<Kind>& kind) { return std::string(kind.param.name); });

// Loses one write in twenty.
class ForgetfulDisk final : public sim::SimDisk {
 protected:
  void RawSubmit(const Operation& operation) override SUTRA_REQUIRES(in_flight_mutex_) {
    Operation done = operation;
    const std::vector<std::byte> old(operation.data.size());
    if (++writes_ % 20 == 0) done.data = old;
    SimDisk::RawSubmit(done);
  }

 private:
  int writes_ = 0;
};

TEST(DiskIoHistoryCanary, ALostWriteIsNoticed) {
  ForgetfulDisk disk;
  int caught = 0;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    if (!History(&disk, "/" + std::to_string(seed), seed).Run().empty()) ++caught;
  }
  EXPECT_GT(caught, 0);
}

}  // namespace
}  // namespace sutra
