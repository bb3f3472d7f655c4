// The stats segment from both sides: what the engine writes is what an observer reads; and whatever bytes an observer
// meets, it reads nothing outside them.
#include "shm/stats/stats_segment.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <random>

#include "shm/layout.h"

namespace sutra {
namespace {

uint64_t MonotonicNs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

class StatsSegmentTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/stats-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    options_.socket_path = directory_ + "/engine.sock";
    options_.engine_generation = 77;
    options_.model = "tiny";
    options_.identity = "abc";
    options_.precision = "fp32";
    options_.device = "cpu";
  }
  void TearDown() override {
    EXPECT_TRUE(StatsSegment::Remove(options_.socket_path).ok());
    EXPECT_EQ(unlink((options_.socket_path + ".lock").c_str()) == 0 || errno == ENOENT, true);
    rmdir(directory_.c_str());
  }
  std::unique_ptr<StatsSegment> Create() {
    auto segment = StatsSegment::Create(options_);
    EXPECT_TRUE(segment.ok()) << segment.status().message();
    return segment.ok() ? std::move(segment).value() : nullptr;
  }
  std::vector<std::byte> Bytes(const StatsSegment& segment) {
    const int fd = shm_open(("/" + segment.name()).c_str(), O_RDONLY, 0);
    struct stat info {};
    EXPECT_EQ(fstat(fd, &info), 0);
    std::vector<std::byte> bytes(static_cast<size_t>(info.st_size));
    EXPECT_EQ(pread(fd, bytes.data(), bytes.size(), 0), info.st_size);
    close(fd);
    return bytes;
  }

  std::string directory_;
  StatsSegmentOptions options_;
};

TEST_F(StatsSegmentTest, ObserverReadsWhatTheEngineWrote) {
  auto segment = Create();
  const StatsWriter writer = segment->writer();
  writer.Add(Counter::kTexts, 318);
  writer.Add(Counter::kTexts);
  writer.Set(Gauge::kWorkers, 2);
  writer.Record(Histogram::kHitTotal, 12'345);
  segment->SetDiskIo("io_uring");
  auto reader = StatsReader::OpenSocket(options_.socket_path);
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  auto snapshot = reader->Snapshot();
  ASSERT_TRUE(snapshot.ok()) << snapshot.status().message();
  EXPECT_EQ(snapshot->counter("texts"), 319u);
  EXPECT_EQ(snapshot->counter("worker_busy_ns"), 0u);
  EXPECT_EQ(snapshot->counters.size(), static_cast<size_t>(Counter::kCount));
  EXPECT_EQ(snapshot->gauges.size(), static_cast<size_t>(Gauge::kCount));
  EXPECT_EQ(snapshot->histograms.size(), static_cast<size_t>(Histogram::kCount));
  EXPECT_EQ(snapshot->gauge("workers"), 2u);
  EXPECT_EQ(snapshot->histogram("hit_total_ns").count, 1u);
  EXPECT_EQ(snapshot->histogram("hit_total_ns").sum, 12'345u);
  EXPECT_EQ(snapshot->model, "tiny");
  EXPECT_EQ(snapshot->disk_io, "io_uring");
  EXPECT_EQ(snapshot->engine_generation, 77u);
  EXPECT_EQ(snapshot->boot_id, HostBootId());
  EXPECT_EQ(snapshot->counter("no such label"), 0u);
}

TEST_F(StatsSegmentTest, StaysReadableAfterTheEngineEnded) {
  {
    auto segment = Create();
    segment->writer().Add(Counter::kHits, 5);
  }
  auto reader = StatsReader::OpenSocket(options_.socket_path);
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ(reader->Snapshot()->counter("hits"), 5u);
}

TEST_F(StatsSegmentTest, ANewEngineReplacesTheOldSegmentAndObserversFollow) {
  auto first = Create();
  first->writer().Add(Counter::kHits, 5);
  auto reader = StatsReader::OpenSocket(options_.socket_path);
  ASSERT_TRUE(reader.ok());
  EXPECT_FALSE(reader->Replaced());
  options_.engine_generation = 78;
  auto second = Create();
  EXPECT_TRUE(reader->Replaced());
  EXPECT_EQ(reader->Snapshot()->engine_generation, 77u);  // the old mapping stays whole
  ASSERT_TRUE(reader->Reopen().ok());
  EXPECT_FALSE(reader->Replaced());
  EXPECT_EQ(reader->Snapshot()->engine_generation, 78u);
  EXPECT_EQ(reader->Snapshot()->counter("hits"), 0u);
}

TEST_F(StatsSegmentTest, HasTheModeThatWasAskedFor) {
  options_.mode = 0604;
  auto segment = Create();
  struct stat info {};
  ASSERT_EQ(stat(("/dev/shm/" + segment->name()).c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0604u);
}

TEST_F(StatsSegmentTest, NameDependsOnTheRealPathOnly) {
  const std::string link = directory_ + "/link";
  ASSERT_EQ(symlink(directory_.c_str(), link.c_str()), 0);
  EXPECT_EQ(StatsSegmentName(link + "/engine.sock", 7).value(), StatsSegmentName(options_.socket_path, 7).value());
  EXPECT_NE(StatsSegmentName(link + "/other.sock", 7).value(), StatsSegmentName(options_.socket_path, 7).value());
  EXPECT_EQ(StatsSegmentName(options_.socket_path, 7)->rfind("sutra-stat.7.", 0), 0u);
  unlink(link.c_str());
}

TEST_F(StatsSegmentTest, ADirectoryInPlaceOfTheSegmentIsAStartUpError) {
  // Stands for a name that cannot be removed, as one of another user cannot.
  const std::string path = "/dev/shm/" + StatsSegmentName(options_.socket_path, geteuid()).value();
  ASSERT_EQ(mkdir(path.c_str(), 0700), 0);
  auto segment = StatsSegment::Create(options_);
  EXPECT_FALSE(segment.ok());
  EXPECT_EQ(segment.code(), StatusCode::kRefused);
  EXPECT_NE(segment.status().message().find(path), std::string::npos) << segment.status().message();
  rmdir(path.c_str());
}

TEST_F(StatsSegmentTest, NoSegmentIsSaidWithTheNameLookedFor) {
  auto reader = StatsReader::OpenSocket(options_.socket_path);
  EXPECT_EQ(reader.code(), StatusCode::kEngineGone);
  EXPECT_NE(reader.status().message().find("/dev/shm/sutra-stat."), std::string::npos);
}

TEST_F(StatsSegmentTest, AnEmptyOrShortFileIsRefused) {
  const std::string name = StatsSegmentName(options_.socket_path, geteuid()).value();
  const int fd = shm_open(("/" + name).c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(StatsReader::OpenName(name).code(), StatusCode::kNotReady);
  ASSERT_EQ(ftruncate(fd, 64), 0);
  EXPECT_EQ(StatsReader::OpenName(name).code(), StatusCode::kRefused);
  ASSERT_EQ(ftruncate(fd, 1ll << 40), 0);
  EXPECT_EQ(StatsReader::OpenName(name).code(), StatusCode::kRefused);
  close(fd);
}

TEST_F(StatsSegmentTest, ATruncatedSegmentIsRefusedNotFaultedOn) {
  auto segment = Create();
  auto reader = StatsReader::OpenSocket(options_.socket_path);
  ASSERT_TRUE(reader.ok());
  const int fd = shm_open(("/" + segment->name()).c_str(), O_RDWR, 0);
  ASSERT_EQ(ftruncate(fd, 4096), 0);
  EXPECT_EQ(reader->Snapshot().code(), StatusCode::kRefused);
  close(fd);
}

TEST_F(StatsSegmentTest, NotReadyUntilTheVersionIsStored) {
  auto segment = Create();
  std::vector<std::byte> bytes = Bytes(*segment);
  std::memset(bytes.data(), 0, 4);
  EXPECT_EQ(ParseStats(bytes).code(), StatusCode::kNotReady);
}

TEST_F(StatsSegmentTest, AnotherMajorIsRefusedWithBothVersions) {
  auto segment = Create();
  std::vector<std::byte> bytes = Bytes(*segment);
  const uint32_t version = uint32_t{kStatsMajor + 1} << 16 | 3;
  std::memcpy(bytes.data(), &version, 4);
  auto snapshot = ParseStats(bytes);
  EXPECT_EQ(snapshot.code(), StatusCode::kRefused);
  EXPECT_NE(snapshot.status().message().find("2.3"), std::string::npos) << snapshot.status().message();
  EXPECT_NE(snapshot.status().message().find("1.x"), std::string::npos) << snapshot.status().message();
}

TEST_F(StatsSegmentTest, ANewerMinorIsRead) {
  auto segment = Create();
  std::vector<std::byte> bytes = Bytes(*segment);
  const uint32_t version = uint32_t{kStatsMajor} << 16 | 9;
  std::memcpy(bytes.data(), &version, 4);
  ASSERT_TRUE(ParseStats(bytes).ok());
  EXPECT_EQ(ParseStats(bytes)->minor, 9);
}

// Every field of the header that leads somewhere, with values that lead outside.
TEST_F(StatsSegmentTest, HostileOffsetsCountsAndStridesNeverLeadOutside) {
  auto segment = Create();
  const std::vector<std::byte> good = Bytes(*segment);
  ASSERT_TRUE(ParseStats(good).ok());
  const uint64_t values[] = {0,
                             1,
                             7,
                             good.size() - 1,
                             good.size(),
                             good.size() + 1,
                             1u << 31,
                             UINT32_MAX,
                             uint64_t{1} << 40,
                             UINT64_MAX - 63,
                             UINT64_MAX};
  const size_t first = offsetof(StatsHeader, segment_bytes);
  for (size_t field = first; field < offsetof(StatsHeader, boot_id); field += 4) {
    for (const uint64_t value : values) {
      for (const size_t width : {size_t{4}, size_t{8}}) {
        std::vector<std::byte> bytes = good;
        std::memcpy(bytes.data() + field, &value, width);
        (void)ParseStats(bytes).ok();  // whatever it says, it stays inside: the sanitizers watch
      }
    }
  }
  const auto refuses = [&](size_t field, uint64_t value) {
    std::vector<std::byte> bytes = good;
    std::memcpy(bytes.data() + field, &value, 8);
    return ParseStats(bytes).code() == StatusCode::kRefused;
  };
  EXPECT_TRUE(refuses(offsetof(StatsHeader, counters_offset), UINT64_MAX));
  EXPECT_TRUE(refuses(offsetof(StatsHeader, histograms_offset), good.size()));
  EXPECT_TRUE(refuses(offsetof(StatsHeader, counter_labels_offset), good.size() - 32));
  EXPECT_TRUE(refuses(offsetof(StatsHeader, magic), 1));
}

TEST_F(StatsSegmentTest, RandomBytesAreReadSafely) {
  const char* given = std::getenv("SUTRA_SEED");
  const uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  RecordProperty("seed", std::to_string(seed));
  std::printf("SUTRA_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  auto segment = Create();
  const std::vector<std::byte> good = Bytes(*segment);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::byte> bytes = good;
    bytes.resize(random() % (good.size() + 1));
    for (int i = 0; i < 8 && !bytes.empty(); ++i) {
      bytes[random() % std::min<size_t>(bytes.size(), sizeof(StatsHeader))] = static_cast<std::byte>(random());
    }
    (void)ParseStats(bytes).ok();
  }
}

TEST_F(StatsSegmentTest, ControlCharactersInStringsDoNotReachTheTerminal) {
  options_.model = "evil\x1b[2J";
  auto segment = Create();
  EXPECT_EQ(ParseStats(Bytes(*segment))->model, "evil?[2J");
}

TEST_F(StatsSegmentTest, LongStringsAreCut) {
  options_.model = std::string(500, 'm');
  auto segment = Create();
  EXPECT_EQ(ParseStats(Bytes(*segment))->model, std::string(127, 'm'));
}

TEST_F(StatsSegmentTest, ListedWhileItExists) {
  auto segment = Create();
  const auto listed = [&] {
    for (const std::string& name : StatsReader::List()) {
      if (name == segment->name()) return true;
    }
    return false;
  };
  EXPECT_TRUE(listed());
  ASSERT_TRUE(StatsSegment::Remove(options_.socket_path).ok());
  EXPECT_FALSE(listed());
}

TEST(StatsHistogramTest, PercentilesLieWithinASixteenth) {
  auto segment = StatsSegment::CreatePrivate();
  HistogramSnapshot histogram;
  histogram.buckets.resize(kHistogramBuckets);
  for (uint64_t value = 1; value <= 100'000; ++value) {
    ++histogram.buckets[HistogramBucket(value)];
    ++histogram.count;
    histogram.max = value;
  }
  for (const double fraction : {0.5, 0.9, 0.99, 0.999}) {
    EXPECT_NEAR(histogram.Percentile(fraction), fraction * 100'000, fraction * 100'000 / 16);
  }
  EXPECT_EQ(histogram.Percentile(1), 100'000);
}

TEST(StatsHistogramTest, SinceSubtractsAndSurvivesARestart) {
  HistogramSnapshot before, now;
  before.buckets = {1, 0};
  before.count = 1;
  now.buckets = {1, 4};
  now.count = 5;
  now.sum = 4;
  EXPECT_EQ(now.Since(before).count, 4u);
  EXPECT_EQ(now.Since(before).buckets[0], 0u);
  EXPECT_EQ(before.Since(now).count, 1u);  // fewer than before: the engine started again
}

TEST(StatsHistogramTest, EmptyHasNoPercentile) { EXPECT_EQ(HistogramSnapshot{}.Percentile(0.5), 0); }

class Judgement : public ::testing::Test {
 protected:
  void SetUp() override {
    snapshot_.boot_id = HostBootId();
    snapshot_.gauges["state"] = kEngineServing;
    snapshot_.gauges["pid"] = static_cast<uint64_t>(getpid());
    snapshot_.taken_monotonic_ns = MonotonicNs();
    snapshot_.gauges["heartbeat_ns"] = snapshot_.taken_monotonic_ns - 1'000'000;
    witness_.lock = EngineWitness::Lock::kHeld;
    witness_.pid_exists = true;
  }
  EngineLife Judge() const { return JudgeEngine(snapshot_, witness_); }
  void Silence() { snapshot_.gauges["heartbeat_ns"] = snapshot_.taken_monotonic_ns - 5'000'000'000; }

  StatsSnapshot snapshot_;
  EngineWitness witness_;
};

TEST_F(Judgement, FreshHeartbeatIsAlive) { EXPECT_EQ(Judge(), EngineLife::kAlive); }

TEST_F(Judgement, StartingAndDrainingAreSaid) {
  snapshot_.gauges["state"] = kEngineStarting;
  EXPECT_EQ(Judge(), EngineLife::kStarting);
  snapshot_.gauges["state"] = kEngineDraining;
  EXPECT_EQ(Judge(), EngineLife::kDraining);
}

TEST_F(Judgement, ClosedStateIsStoppedHoweverOld) {
  Silence();
  snapshot_.gauges["state"] = kEngineClosed;
  witness_.lock = EngineWitness::Lock::kFree;
  EXPECT_EQ(Judge(), EngineLife::kStopped);
}

TEST_F(Judgement, SilentWithItsLockHeldIsStaleNeverCrashed) {
  Silence();
  EXPECT_EQ(Judge(), EngineLife::kStale);
  witness_.pid_exists = false;  // another pid namespace
  EXPECT_EQ(Judge(), EngineLife::kStale);
}

TEST_F(Judgement, SilentWithItsLockFreeIsCrashedEvenIfThePidWasReused) {
  Silence();
  witness_.lock = EngineWitness::Lock::kFree;
  EXPECT_EQ(Judge(), EngineLife::kCrashed);
}

TEST_F(Judgement, WithoutALockFileThePidDecides) {
  Silence();
  witness_.lock = EngineWitness::Lock::kUnknown;
  EXPECT_EQ(Judge(), EngineLife::kStale);
  witness_.pid_exists = false;
  EXPECT_EQ(Judge(), EngineLife::kCrashed);
}

TEST_F(Judgement, FreshHeartbeatButFreeLockAndNoProcessIsCrashed) {
  witness_.lock = EngineWitness::Lock::kFree;
  witness_.pid_exists = false;
  EXPECT_EQ(Judge(), EngineLife::kCrashed);
}

TEST_F(Judgement, AnotherBootMeansCrashedUnlessItSaidStopped) {
  witness_.same_boot = false;
  EXPECT_EQ(Judge(), EngineLife::kCrashed);
  snapshot_.gauges["state"] = kEngineClosed;
  EXPECT_EQ(Judge(), EngineLife::kStopped);
}

TEST_F(Judgement, AgeUsesTheWallClockWhereTheMonotonicOneIsAnother) {
  snapshot_.gauges["heartbeat_ns"] = snapshot_.taken_monotonic_ns + 1'000'000'000;  // another time namespace
  snapshot_.taken_wall_ns = 2'000'000'000;
  snapshot_.gauges["heartbeat_wall_ns"] = 1'500'000'000;
  EXPECT_EQ(HeartbeatAgeNs(snapshot_, witness_), 500'000'000u);
}

TEST_F(StatsSegmentTest, WitnessSeesTheLockOfALiveEngineThroughItsFile) {
  auto segment = Create();
  const std::string path = options_.socket_path + ".lock";
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_GE(fd, 0);
  StatsSnapshot snapshot = ParseStats(Bytes(*segment)).value();
  EXPECT_EQ(WitnessEngine(snapshot).lock, EngineWitness::Lock::kFree);
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  ASSERT_EQ(fcntl(fd, F_OFD_SETLK, &lock), 0);
  EXPECT_EQ(WitnessEngine(snapshot).lock, EngineWitness::Lock::kHeld);
  EXPECT_EQ(WitnessEngine(snapshot).lock, EngineWitness::Lock::kHeld);  // asking does not drop it
  close(fd);
  EXPECT_EQ(WitnessEngine(snapshot).lock, EngineWitness::Lock::kFree);
}

}  // namespace
}  // namespace sutra
