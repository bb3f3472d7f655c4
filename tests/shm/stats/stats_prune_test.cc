#include "shm/stats/stats_prune.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "shm/base/time.h"
#include "shm/layout.h"
#include "shm/stats/stats_reader.h"
#include "tests/kit/small_disk.h"
#include "tests/shm/stats/stats_fixture.h"

namespace sutra {
namespace {

namespace fs = std::filesystem;

// In a /dev/shm of its own: an engine that another test starts removes left-over segments, too.
class StatsPruneTest : public test::StatsFixture {
 protected:
  void SetUp() override {
    if (!shared_memory_.mounted()) GTEST_SKIP() << test::kCannotMount;
    StatsFixture::SetUp();
    fs::create_directory(folder_);
    options_.socket_path = folder_ + "/engine.sock";
  }
  void TearDown() override {
    if (!shared_memory_.mounted()) return;
    fs::create_directory(folder_);  // its name is made from the folder's real path
    StatsFixture::TearDown();
  }
  // The segment of an engine that ended well.
  std::string Ended() {
    auto segment = Create();
    segment->writer().Set(Gauge::kState, kEngineClosed);
    return segment->name();
  }
  static bool Pruned(const std::string& name, uid_t uid = geteuid()) {
    const std::vector<PrunedSegment> pruned = PruneStats(uid);
    return std::any_of(pruned.begin(), pruned.end(), [&](const PrunedSegment& one) { return one.name == name; });
  }
  static bool Exists(const std::string& name) { return fs::exists("/dev/shm/" + name); }

  const test::SmallDisk shared_memory_{"/dev/shm", "4m"};
  const std::string folder_ = directory_ / "run";
};

TEST_F(StatsPruneTest, RemovesTheSegmentOfAnEndedEngineWhoseFolderIsGone) {
  const std::string name = Ended();
  EXPECT_FALSE(Pruned(name));  // its folder is there
  EXPECT_TRUE(Exists(name));
  fs::remove_all(folder_);
  EXPECT_FALSE(Pruned(name, geteuid() + 1));
  EXPECT_TRUE(Exists(name));
  EXPECT_TRUE(Pruned(name));
  EXPECT_FALSE(Exists(name));
}

TEST_F(StatsPruneTest, KeepsTheSegmentOfAnEngineThatLivesWithoutItsFolder) {
  auto segment = Create();
  segment->writer().Set(Gauge::kState, kEngineServing);
  segment->writer().Set(Gauge::kPid, static_cast<uint64_t>(getpid()));
  segment->writer().Set(Gauge::kHeartbeatNs, MonotonicNs());
  fs::remove_all(folder_);
  EXPECT_FALSE(Pruned(segment->name()));
  segment->writer().Set(Gauge::kHeartbeatNs, 1);  // stopped or slow: its process is there
  EXPECT_FALSE(Pruned(segment->name()));
  EXPECT_TRUE(Exists(segment->name()));
}

TEST_F(StatsPruneTest, KeepsTheSegmentOfASocketWhosePathWasCut) {
  options_.socket_path = folder_ + "/" + std::string(240, 'd') + "/engine.sock";
  fs::create_directory(folder_ + "/" + std::string(240, 'd'));
  const std::string name = Ended();
  EXPECT_FALSE(Pruned(name));
  EXPECT_TRUE(StatsSegment::Remove(options_.socket_path).ok());
  options_.socket_path = folder_ + "/engine.sock";
}

// A hole of a mapped file is filled when it is read, and a full file system then raises SIGBUS.
TEST_F(StatsPruneTest, ASegmentWithAHoleInAFullFileSystemIsReadWithoutAFault) {
  const test::SmallDisk shared_memory("/dev/shm", "256k");
  if (!shared_memory.mounted()) GTEST_SKIP() << "needs root and a mount namespace for a small file system";
  const std::string name = Ended();
  const int fd = shm_open(("/" + name).c_str(), O_RDWR | O_CLOEXEC, 0);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192, 16'384), 0);
  close(fd);
  const int fill = open("/dev/shm/fill", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  const std::string page(4096, 'f');
  while (write(fill, page.data(), page.size()) > 0) {
  }
  close(fill);
  const Result<StatsReader> reader = StatsReader::OpenName(name);
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  static_cast<void>(reader.value().Snapshot());  // whatever it says
}

// The canary of the full /dev/shm: what the engine's start-up check stands on.
TEST_F(StatsPruneTest, CreatingASegmentInAFullFileSystemIsAnErrorAndLeavesNothing) {
  const test::SmallDisk shared_memory("/dev/shm", "16k");
  if (!shared_memory.mounted()) GTEST_SKIP() << "needs root and a mount namespace for a small file system";
  const auto segment = StatsSegment::Create(options_);
  ASSERT_FALSE(segment.ok());
  EXPECT_EQ(segment.status().os_error(), ENOSPC) << segment.status().message();
  EXPECT_NE(segment.status().message().find("sutra-stat --prune"), std::string::npos) << segment.status().message();
  EXPECT_TRUE(fs::is_empty("/dev/shm"));
}

}  // namespace
}  // namespace sutra
