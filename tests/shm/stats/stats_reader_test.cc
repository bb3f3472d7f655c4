// The observer: finds the segment, follows a new one, and reads nothing outside the bytes it meets, whatever they hold.
#include "shm/stats/stats_reader.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <random>

#include "shm/stats/stats_layout.h"
#include "shm/stats/stats_name.h"
#include "tests/kit/seed.h"
#include "tests/shm/stats/stats_fixture.h"

namespace sutra {
namespace {

using StatsReaderTest = test::StatsFixture;

TEST_F(StatsReaderTest, ANewEngineReplacesTheOldSegmentAndObserversFollow) {
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

TEST_F(StatsReaderTest, NoSegmentIsSaidWithTheNameLookedFor) {
  auto reader = StatsReader::OpenSocket(options_.socket_path);
  EXPECT_EQ(reader.code(), StatusCode::kEngineGone);
  EXPECT_NE(reader.status().message().find("/dev/shm/sutra-stat."), std::string::npos);
}

TEST_F(StatsReaderTest, AnEmptyOrShortFileIsRefused) {
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

TEST_F(StatsReaderTest, ATruncatedSegmentIsRefusedNotFaultedOn) {
  auto segment = Create();
  auto reader = StatsReader::OpenSocket(options_.socket_path);
  ASSERT_TRUE(reader.ok());
  const int fd = shm_open(("/" + segment->name()).c_str(), O_RDWR, 0);
  ASSERT_EQ(ftruncate(fd, 4096), 0);
  EXPECT_EQ(reader->Snapshot().code(), StatusCode::kRefused);
  close(fd);
}

TEST_F(StatsReaderTest, NotReadyUntilTheVersionIsStored) {
  auto segment = Create();
  std::vector<std::byte> bytes = Bytes(*segment);
  std::memset(bytes.data(), 0, 4);
  EXPECT_EQ(ParseStats(bytes).code(), StatusCode::kNotReady);
}

TEST_F(StatsReaderTest, AnotherMajorIsRefusedWithBothVersions) {
  auto segment = Create();
  std::vector<std::byte> bytes = Bytes(*segment);
  const uint32_t version = uint32_t{kStatsMajor + 1} << 16 | 3;
  std::memcpy(bytes.data(), &version, 4);
  auto snapshot = ParseStats(bytes);
  EXPECT_EQ(snapshot.code(), StatusCode::kRefused);
  EXPECT_NE(snapshot.status().message().find("3.3"), std::string::npos) << snapshot.status().message();
  EXPECT_NE(snapshot.status().message().find("2.x"), std::string::npos) << snapshot.status().message();
}

TEST_F(StatsReaderTest, ANewerMinorIsRead) {
  auto segment = Create();
  std::vector<std::byte> bytes = Bytes(*segment);
  const uint32_t version = uint32_t{kStatsMajor} << 16 | 9;
  std::memcpy(bytes.data(), &version, 4);
  ASSERT_TRUE(ParseStats(bytes).ok());
  EXPECT_EQ(ParseStats(bytes)->minor, 9);
}

// Every field of the header that leads somewhere, with values that lead outside.
TEST_F(StatsReaderTest, HostileOffsetsCountsAndStridesNeverLeadOutside) {
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
  std::vector<size_t> fields;
  for (size_t at = offsetof(StatsHeader, segment_bytes); at < offsetof(StatsHeader, boot_id); at += 4) {
    fields.push_back(at);
  }
  for (size_t at = offsetof(StatsHeader, banks); at < sizeof(StatsHeader); at += 4) fields.push_back(at);
  for (const size_t field : fields) {
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
  EXPECT_TRUE(refuses(offsetof(StatsHeader, banks), 0));
  EXPECT_TRUE(refuses(offsetof(StatsHeader, banks), kStatsBanks + 1));
  EXPECT_TRUE(refuses(offsetof(StatsHeader, counter_bank_bytes), UINT64_MAX / 2));
  EXPECT_TRUE(refuses(offsetof(StatsHeader, histogram_bank_bytes), 8));
}

TEST_F(StatsReaderTest, RandomBytesAreReadSafely) {
  std::mt19937_64 random(test::FreshTestSeed());
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

TEST_F(StatsReaderTest, ControlCharactersInStringsDoNotReachTheTerminal) {
  options_.model = "evil\x1b[2J";
  auto segment = Create();
  EXPECT_EQ(ParseStats(Bytes(*segment))->model, "evil?[2J");
}

TEST_F(StatsReaderTest, ListedWhileItExists) {
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

}  // namespace
}  // namespace sutra
