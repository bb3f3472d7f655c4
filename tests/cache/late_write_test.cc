// Writes of a killed engine change nothing in the shard (P1, P3): io_uring's O_DIRECT writes may be in flight at
// SIGKILL, and land when the lock is free already. The next one opens the shard at that very moment; what it found and
// what it then wrote must be exactly what is there ever after.
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "cache/disk/disk_io.h"
#include "shm/base/clock.h"
#include "shm/base/unique_fd.h"
#include "tests/cache/late_write.h"
#include "tests/cache/wal/without_index.h"
#include "tests/kit/by_build.h"
#include "tests/kit/temp_dir.h"

extern char** environ;

namespace sutra {
namespace {

namespace fs = std::filesystem;

struct Shard {
  explicit Shard(const std::string& directory) : io(MakeDiskIo(DiskIoKind::kAuto, directory, {}).value()) {
    Result<std::unique_ptr<CacheShard>> opened =
        CacheShard::Open(test::LateWriteConfig(directory), io.get(), Clock::Real());
    EXPECT_TRUE(opened.ok()) << opened.status().message();
    if (opened.ok()) shard = std::move(opened).value();
  }
  std::unique_ptr<DiskIo> io;
  std::unique_ptr<CacheShard> shard;
};

class LateWrite : public ::testing::Test {
 protected:
  using Found = std::map<std::string, int>;  // key -> version, -1: absent

  // Starts a child that inserts, and kills it at some moment of that. Returns when the lock is free.
  void KillOne(const std::string& round, int after_ms, UniqueFd* lock) {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    std::string program = CACHE_LATE_WRITE_CHILD, path = temp_.path(), name = round;
    char* arguments[] = {program.data(), path.data(), name.data(), nullptr};
    pid_t child = -1;
    ASSERT_EQ(posix_spawn(&child, program.c_str(), &actions, nullptr, arguments, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    char text[8];
    ASSERT_EQ(read(ends[0], text, sizeof(text)), 6) << "the child did not open its shard";
    close(ends[0]);
    poll(nullptr, 0, after_ms);
    kill(child, SIGKILL);
    *lock = UniqueFd(test::LockFile(temp_.path()));
    ASSERT_TRUE(test::WaitForLock(lock->get()));
    child_ = child;
  }
  void Reap() const {
    int status = 0;
    EXPECT_EQ(waitpid(child_, &status, 0), child_);
    EXPECT_TRUE(WIFSIGNALED(status));
  }

  // Everything that any round may have left.
  Found Read(CacheShard* shard, const std::vector<std::string>& rounds) const {
    Found found;
    for (const std::string& round : rounds) {
      for (uint32_t i = 0; i < test::kInsertsPerRound; ++i) {
        const std::string key = test::LateWriteKey(round, i);
        found[key] = test::VersionOf(shard, key, test::kLateWriteWidth);
      }
    }
    return found;
  }
  // Inserts of one round: each right, and none missing before one that is there.
  static std::string WhatIsWrong(const Found& found, const std::string& round) {
    bool end = false;
    for (uint32_t i = 0; i < test::kInsertsPerRound; ++i) {
      const int version = found.at(test::LateWriteKey(round, i));
      if (version == -1) end = true;
      if (version != -1 && (end || version != static_cast<int>(i))) {
        return "insert " + std::to_string(i) + " of round " + round + " is " + std::to_string(version) +
               (end ? ", behind one that is missing" : "");
      }
    }
    return "";
  }

  // What a late write does, made by hand: the log as it was when its engine was killed (the writes of the second half
  // of `kFew` inserts had not landed), and as it is when they have.
  static constexpr uint32_t kFew = 400;
  void InsertFew(const std::string& round) {
    {
      Shard shard(temp_.path());
      for (uint32_t i = 0; i < kFew; ++i) {
        test::Put(shard.shard.get(), test::LateWriteKey(round, i), i, 0, test::kLateWriteWidth);
        if (i % 10 == 0) {  // a write of its own
          EXPECT_TRUE(shard.shard->Sync().ok());
        }
      }
    }
    ZeroIndexes();
  }
  // Segments as killed engines leave them.
  void ZeroIndexes() {
    for (const auto& entry : fs::directory_iterator(temp_ / test::kShardName)) {
      if (entry.path().filename().string().rfind("wal-", 0) != 0) continue;
      std::string bytes = Bytes(entry.path());
      test::ZeroIndex(&bytes);
      WriteAt(entry.path(), 0, bytes);
    }
  }
  // The segment with the highest number that holds records.
  std::string LastSegment() const {
    std::string last;
    for (const auto& entry : fs::directory_iterator(temp_ / test::kShardName)) {
      const std::string path = entry.path();
      if (entry.path().filename().string().rfind("wal-", 0) == 0 && DataEnd(Bytes(path)) > 4 * kDiskBlockBytes) {
        last = std::max(last, path);
      }
    }
    return last;
  }
  static std::string Bytes(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  static size_t DataEnd(const std::string& bytes) { return bytes.find_last_not_of('\0') + 1; }
  static void WriteAt(const std::string& path, size_t offset, const std::string& bytes) {
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(offset));
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }

  const test::TempDir temp_;
  pid_t child_ = -1;
};

TEST_F(LateWrite, NothingThatWasRecoveredOrWrittenAfterAKillChanges) {
  std::mt19937_64 random(test::TestSeed(1));
  const uint64_t rounds_max = test::NumberFromEnvironment("SUTRA_LATE_WRITES", test::ByBuild(10, 10, 4));
  std::vector<std::string> rounds;
  Found expected;
  for (uint64_t number = 0; number < rounds_max; ++number) {
    const std::string round = std::to_string(number), after = round + " after";
    rounds.push_back(round);
    rounds.push_back(after);
    UniqueFd lock;
    KillOne(round, static_cast<int>(random() % 20), &lock);
    if (HasFatalFailure()) return;
    Found found;
    {
      Shard next(temp_.path());  // at once
      ASSERT_NE(next.shard, nullptr);
      EXPECT_EQ(next.shard->Stats().quarantined_segments, 0u);
      for (uint32_t i = 0; i < 200; ++i) {
        test::Put(next.shard.get(), test::LateWriteKey(after, i), i, 0, test::kLateWriteWidth);
      }
      ASSERT_TRUE(next.shard->Sync().ok());
      found = Read(next.shard.get(), rounds);
    }
    ASSERT_EQ(WhatIsWrong(found, round), "");
    ASSERT_EQ(WhatIsWrong(found, after), "");
    for (const auto& [key, version] : expected) ASSERT_EQ(found.at(key), version) << key << " of an earlier round";
    Reap();  // the process is gone for good, and with it its writes
    poll(nullptr, 0, 10);
    Shard again(temp_.path());
    ASSERT_NE(again.shard, nullptr);
    ASSERT_TRUE(Read(again.shard.get(), rounds) == found) << "round " << round << ": a late write changed the shard";
    expected = std::move(found);
  }
  const auto kept = std::count_if(expected.begin(), expected.end(), [](const auto& item) { return item.second >= 0; });
  std::printf("%llu kills; %lld entries recovered or written after one\n", static_cast<unsigned long long>(rounds_max),
              static_cast<long long>(kept));
  EXPECT_GT(kept, static_cast<std::ptrdiff_t>(200 * rounds_max)) << "no kill came after a write: this shows nothing";
}

// The same, made by hand, so that it certainly happens.
TEST_F(LateWrite, AWriteThatLandsWhenTheNextOneHasOpenedIsIgnored) {
  InsertFew("0");
  const std::string segment = LastSegment();
  ASSERT_NE(segment, "");
  const std::string landed = Bytes(segment);
  const size_t half = DataEnd(landed) / 2 / kDiskBlockBytes * kDiskBlockBytes;
  WriteAt(segment, half, std::string(landed.size() - half, '\0'));
  Found found;
  {
    Shard next(temp_.path());
    test::Put(next.shard.get(), test::LateWriteKey("1", 0), 0, 0, test::kLateWriteWidth);
    found = Read(next.shard.get(), {"0", "1"});
  }
  ASSERT_EQ(WhatIsWrong(found, "0"), "");
  ASSERT_NE(found.at(test::LateWriteKey("0", 0)), -1);
  ASSERT_EQ(found.at(test::LateWriteKey("0", kFew - 1)), -1) << "it had not landed";
  WriteAt(segment, half, landed.substr(half));
  Shard again(temp_.path());
  EXPECT_EQ(again.shard->Stats().quarantined_segments, 0u);
  EXPECT_TRUE(Read(again.shard.get(), {"0", "1"}) == found);
}

// A write into a segment that the next one uses would be seen.
TEST_F(LateWrite, CanaryAWriteIntoALiveSegmentIsNoticed) {
  InsertFew("0");
  Found found;
  {
    Shard next(temp_.path());
    found = Read(next.shard.get(), {"0"});
  }
  InsertFew("1");
  const std::string segment = LastSegment();
  const size_t half = DataEnd(Bytes(segment)) / 2 / kDiskBlockBytes * kDiskBlockBytes;
  {
    Shard next(temp_.path());
    found = Read(next.shard.get(), {"0", "1"});
  }
  ZeroIndexes();
  WriteAt(segment, half, std::string(kDiskBlockBytes, '\xff'));
  Shard again(temp_.path());
  EXPECT_FALSE(Read(again.shard.get(), {"0", "1"}) == found);
}

}  // namespace
}  // namespace sutra
