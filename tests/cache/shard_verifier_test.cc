// A verifier that calls damage sound is worse than none: every byte that counts is damaged here, one at a time, and has
// to be found and named; what a crash leaves is not damage; and nothing is ever changed.
#include "cache/shard_verifier.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <limits>

#include "cache/disk/disk_io.h"
#include "cache/disk/disk_io_overlay.h"
#include "cache/wal/wal_reader.h"
#include "shm/base/clock.h"
#include "shm/base/crc32c.h"
#include "tests/cache/files_at_rest.h"
#include "tests/kit/by_build.h"
#include "tests/kit/temp_dir.h"

namespace sutra::test {
namespace {

using Kind = VerifyFinding::Kind;

constexpr int kEntries = 600;

class ShardVerifier : public ::testing::Test {
 protected:
  void Fill(int entries = kEntries) {
    std::unique_ptr<CacheShard> shard = CacheShard::Open(SmallConfig(temp_.path()), disk_.get(), Clock::Real()).value();
    for (int i = 0; i < entries; ++i) {
      PutUnit(shard.get(), "text number " + std::to_string(i));
      if (i % 40 == 39) {
        ASSERT_TRUE(shard->Erase("text number " + std::to_string(i / 2), 0).ok());
      }
    }
    std::vector<float> vector(kWidth);
    CacheValue value;
    for (int i = 0; i < entries; i += 3) shard->Lookup("text number " + std::to_string(i), 0, vector.data(), &value);
    shard->Close();
  }
  std::string Path(const std::string& name) const { return temp_ / (kShardName + "/" + name); }
  std::string Segment(size_t index) const { return Path(SegmentName(Survey().segments.at(index))); }
  IdentitySurvey Survey() const {
    return SurveyIdentity(OpenDirectory::Open(temp_.path()).value(), kShardName).value();
  }
  VerifyReport Verify() {
    OverlayDiskIo io;
    const Result<VerifyReport> report = VerifyShard(&io, Survey(), [](uint64_t, uint64_t) { return true; });
    EXPECT_TRUE(report.ok()) << report.status().message();
    return report.ok() ? *report : VerifyReport();
  }
  static std::string TextOf(const VerifyReport& report) {
    std::string text = "lost " + std::to_string(report.lost) + " " + report.refused + "\n";
    for (const VerifyFinding& finding : report.findings) {
      text += finding.file + " " + std::to_string(finding.offset.value_or(0)) + " " + finding.what + "\n";
    }
    return text;
  }
  // Found, in this file, and at this place if it is one of a record or a block.
  void ExpectDamage(const std::string& path, std::optional<uint64_t> offset, const std::string& context) {
    const VerifyReport report = Verify();
    EXPECT_FALSE(report.sound()) << context;
    bool named = false;
    for (const VerifyFinding& finding : report.findings) {
      const bool here = !offset || finding.offset == offset;
      named = named || (finding.kind == Kind::kDamage && finding.file == path && here);
    }
    EXPECT_TRUE(named) << context << " in " << path << " at " << offset.value_or(0) << "\n" << TextOf(report);
  }

  struct Place {
    uint64_t offset = 0, bytes = 0;
    RecordType type = RecordType::kNone;
  };
  // Of the records of a segment that was closed.
  std::vector<Place> RecordsOf(const std::string& path, SegmentIndex* index, SegmentHeader* header) {
    std::vector<Place> places;
    SegmentExpectation expected;
    ParseIdentity(kIdentity, &expected.model);
    expected.width = kWidth;
    expected.number = SegmentNumber(std::filesystem::path(path).filename().string());
    const auto reader = WalReader::Open(disk_.get(), path, expected).value();
    *header = reader->header();
    EXPECT_EQ(reader->ReadIndex(index).value(), IndexState::kGood);
    WalRecord record;
    for (uint64_t sequence = header->previous_valid_through + 1;; ++sequence) {
      if (reader->Classify(sequence, &record).value() != RecordState::kGood) return places;
      places.push_back({record.offset, record.header.length, record.type()});
      reader->Skip(record);
    }
  }

  TempDir temp_;
  std::unique_ptr<DiskIo> disk_ = MakePosixDiskIo(false);
};

TEST_F(ShardVerifier, CallsSoundWhatIsSoundAndChangesNothing) {
  Fill();
  const auto before = SnapshotOf(temp_.path());
  const VerifyReport report = Verify();
  EXPECT_TRUE(report.sound()) << TextOf(report);
  EXPECT_TRUE(report.findings.empty()) << TextOf(report);
  EXPECT_EQ(report.entries, static_cast<uint64_t>(kEntries - kEntries / 40));
  EXPECT_GT(report.segments, 2u);
  EXPECT_EQ(report.indexes, report.segments);
  EXPECT_GT(report.heat_blocks, 0u);
  EXPECT_EQ(SnapshotOf(temp_.path()), before);
}

// Whatever byte of a record it is: it counts.
TEST_F(ShardVerifier, FindsAFlippedBitAnywhereInARecord) {
  Fill();
  for (const size_t which : {size_t{0}, size_t{1}, Survey().segments.size() - 1}) {
    const std::string path = Segment(which);
    SegmentIndex index;
    SegmentHeader header;
    const std::vector<Place> places = RecordsOf(path, &index, &header);
    ASSERT_GT(places.size(), 3u);
    const size_t step = ByBuild(std::max<size_t>(places.size() / 12, 1), places.size() / 4, places.size() / 2);
    for (size_t i = 0; i < places.size(); i += step) {
      for (const uint64_t inside :
           {uint64_t{0}, uint64_t{20}, uint64_t{48}, places[i].bytes / 2, places[i].bytes - 1}) {
        FlipBit(path, places[i].offset + inside, inside % 8);
        ExpectDamage(path, places[i].offset, "byte " + std::to_string(inside) + " of record " + std::to_string(i));
        FlipBit(path, places[i].offset + inside, inside % 8);
      }
    }
    // The last one of all is no torn tail: the segment says that it was closed behind it.
    FlipBit(path, places.back().offset + places.back().bytes - 1);
    ExpectDamage(path, places.back().offset, "the last record");
    FlipBit(path, places.back().offset + places.back().bytes - 1);
  }
  EXPECT_TRUE(Verify().sound());
}

TEST_F(ShardVerifier, FindsAFlippedBitInHeadersAndIndexes) {
  Fill();
  const std::string path = Segment(0);
  SegmentIndex index;
  SegmentHeader header;
  RecordsOf(path, &index, &header);
  const uint64_t trailer = header.segment_bytes - sizeof(IndexTrailer);
  for (const uint64_t at : {uint64_t{0}, uint64_t{17}, uint64_t{90}, uint64_t{3000}, kWalBlockBytes - 1}) {
    for (uint64_t copy = 0; copy < kSegmentHeaderCopies; ++copy) {
      FlipBit(path, copy * kWalBlockBytes + at);
      ExpectDamage(path, copy * kWalBlockBytes, "header");
      FlipBit(path, copy * kWalBlockBytes + at);
    }
  }
  for (uint64_t at = 0; at < sizeof(IndexTrailer); at += 5) {
    FlipBit(path, trailer + at);
    ExpectDamage(path, trailer, "trailer");
    FlipBit(path, trailer + at);
  }
  const std::string bytes = BytesOfFile(path);
  const uint64_t first = bytes.find(std::string(reinterpret_cast<const char*>(&index.entries[0]), sizeof(IndexEntry)));
  ASSERT_NE(first, std::string::npos);
  for (uint64_t at = 0; at < index.entries.size() * sizeof(IndexEntry); at += 331) {
    FlipBit(path, first + at);
    ExpectDamage(path, index.trailer.records_end, "index");
    FlipBit(path, first + at);
  }
  EXPECT_TRUE(Verify().sound());
}

TEST_F(ShardVerifier, ComparesAnIndexWithTheRecords) {
  Fill();
  const std::string path = Segment(0);
  SegmentIndex index;
  SegmentHeader header;
  const std::vector<Place> places = RecordsOf(path, &index, &header);
  const std::string bytes = BytesOfFile(path);
  const std::string written(reinterpret_cast<const char*>(index.entries.data()),
                            index.entries.size() * sizeof(IndexEntry));
  const uint64_t first = bytes.find(written);
  ASSERT_NE(first, std::string::npos);
  // An entry that is another one's, under right checksums.
  index.entries[1].slot += 1;
  index.trailer.entries_crc = Crc32c(index.entries.data(), written.size());
  index.trailer.trailer_crc = Crc32c(&index.trailer, offsetof(IndexTrailer, trailer_crc));
  Overwrite(path, first, std::string(reinterpret_cast<const char*>(index.entries.data()), written.size()));
  Overwrite(path, header.segment_bytes - sizeof(IndexTrailer),
            std::string(reinterpret_cast<const char*>(&index.trailer), sizeof(IndexTrailer)));
  ExpectDamage(path, uint64_t{index.entries[1].place} * kRecordAlign, "an index that lies");
}

TEST_F(ShardVerifier, FindsDamageInTheHeatFileAndInModel) {
  Fill();
  const std::string heat = BytesOfFile(Path("heat"));
  ASSERT_GT(heat.size(), 0u);
  for (const uint64_t at : {uint64_t{0}, uint64_t{5}, uint64_t{100}, uint64_t{4095}}) {
    FlipBit(Path("heat"), at);
    ExpectDamage(Path("heat"), 0, "heat");
    FlipBit(Path("heat"), at);
  }
  FlipBit(Path("MODEL"), BytesOfFile(Path("MODEL")).find(kIdentity) + 40);
  ExpectDamage(Path("MODEL"), std::nullopt, "model");
  FlipBit(Path("MODEL"), BytesOfFile(Path("MODEL")).find(kIdentity) + 40);
  std::filesystem::remove(Path("MODEL"));
  ExpectDamage(Path("MODEL"), std::nullopt, "no model");
}

TEST_F(ShardVerifier, FindsWhatIsMissing) {
  Fill();
  const std::string middle = Segment(1);
  const std::string bytes = BytesOfFile(middle);
  std::filesystem::resize_file(middle, bytes.size() - 4096);
  ExpectDamage(middle, bytes.size() - 4096, "a file that was cut");
  std::filesystem::remove(middle);
  const VerifyReport report = Verify();
  EXPECT_FALSE(report.sound());
  EXPECT_NE(TextOf(report).find(std::filesystem::path(middle).filename().string() + " is missing"), std::string::npos)
      << TextOf(report);
  // What a start makes of it: everything older is dropped.
  CacheConfig config = SmallConfig(temp_.path());
  const auto shard = CacheShard::Open(config, disk_.get(), Clock::Real()).value();
  EXPECT_FALSE(shard->Get("text number 1", 0).ok());
  shard->Close();
}

TEST_F(ShardVerifier, SaysWhatAStartLoses) {
  Fill();
  const std::string path = Segment(0);
  SegmentIndex index;
  SegmentHeader header;
  const std::vector<Place> places = RecordsOf(path, &index, &header);
  ASSERT_EQ(places[2].type, RecordType::kInsert);
  FlipBit(path, places[2].offset + places[2].bytes / 2);
  EXPECT_EQ(Verify().lost, 1u);
  FlipBit(path, places[2].offset + places[2].bytes / 2);
  // In the newest segment, where only its index says that the record was there.
  const std::string newest = Segment(Survey().segments.size() - 1);
  const std::vector<Place> last = RecordsOf(newest, &index, &header);
  FlipBit(newest, last[0].offset + 4);
  EXPECT_GE(Verify().lost, 1u);
}

TEST_F(ShardVerifier, ATornTailIsWhatACrashLeaves) {
  std::unique_ptr<CacheShard> shard = CacheShard::Open(SmallConfig(temp_.path()), disk_.get(), Clock::Real()).value();
  for (int i = 0; i < 20; ++i) PutUnit(shard.get(), "text " + std::to_string(i));
  ASSERT_TRUE(shard->Sync().ok());
  // The files as they are now: what kill -9 would leave.
  const TempDir copy;
  std::filesystem::copy(temp_.path(), copy.path(), std::filesystem::copy_options::recursive);
  const std::string newest = copy / (kShardName + "/" + SegmentName(Survey().segments.back()));
  shard->Close();
  const auto verify = [&] {
    OverlayDiskIo io;
    const IdentitySurvey survey = SurveyIdentity(OpenDirectory::Open(copy.path()).value(), kShardName).value();
    return VerifyShard(&io, survey, [](uint64_t, uint64_t) { return true; }).value();
  };
  EXPECT_TRUE(verify().sound()) << TextOf(verify());
  EXPECT_EQ(verify().torn_bytes, 0u);
  const uint64_t entries = verify().entries;
  EXPECT_EQ(entries, 20u);
  std::string bytes = BytesOfFile(newest);
  const uint64_t end = RoundUp(bytes.find_last_not_of('\0') + 1, kWalBlockBytes);
  Overwrite(newest, end, std::string(1000, 'x'));
  const VerifyReport torn = verify();
  EXPECT_TRUE(torn.sound()) << TextOf(torn);
  EXPECT_EQ(torn.torn_bytes, 1000u) << TextOf(torn);
  EXPECT_EQ(torn.entries, entries);
  ASSERT_EQ(torn.findings.size(), 1u);
  EXPECT_EQ(torn.findings[0].offset, end);
  EXPECT_NE(torn.findings[0].what.find("torn tail: 1000 bytes, as after a crash"), std::string::npos);
}

TEST_F(ShardVerifier, FindsVectorsAndTextsThatCannotBe) {
  std::unique_ptr<CacheShard> shard = CacheShard::Open(SmallConfig(temp_.path()), disk_.get(), Clock::Real()).value();
  PutUnit(shard.get(), "right");
  shard->Insert("zero", 0, std::vector<float>(kWidth), CacheValue{0, 1, false}, 0);
  std::vector<float> vector = UnitVectorOf("long", 1);
  vector[3] += 1;
  shard->Insert("long", 0, vector, CacheValue{1, 1, false}, 0);
  vector[3] = std::numeric_limits<float>::quiet_NaN();
  shard->Insert("nan", 0, vector, CacheValue{1, 1, false}, 0);
  PutUnit(shard.get(), "no \xff UTF-8");
  shard->Insert("replaced", 0, vector, CacheValue{1, 1, false}, 0);
  PutUnit(shard.get(), "replaced");
  shard->Insert("removed", 0, vector, CacheValue{1, 1, false}, 0);
  ASSERT_TRUE(shard->Erase("removed", 0).ok());
  shard->Close();
  const VerifyReport report = Verify();
  EXPECT_EQ(report.damaged, 3u) << TextOf(report);
  EXPECT_NE(TextOf(report).find("neither 1 nor 0"), std::string::npos);
  EXPECT_NE(TextOf(report).find("float 3 of the vector is not finite"), std::string::npos);
  EXPECT_NE(TextOf(report).find("not UTF-8"), std::string::npos);
}

TEST_F(ShardVerifier, NamesWhatDoesNotBelongThere) {
  Fill(10);
  temp_.Write(kShardName + "/notes.txt", "mine");
  ASSERT_EQ(chmod(Path("heat").c_str(), 0644), 0);
  const VerifyReport report = Verify();
  EXPECT_TRUE(report.sound()) << TextOf(report);
  ASSERT_EQ(report.findings.size(), 2u) << TextOf(report);
  EXPECT_EQ(report.findings[0].kind, Kind::kWarning);
  EXPECT_EQ(report.findings[0].file, Path("heat"));
  EXPECT_EQ(report.findings[1].file, Path("notes.txt"));
}

TEST_F(ShardVerifier, EndsWhenItIsToldTo) {
  std::unique_ptr<CacheShard> shard;
  CacheConfig config = SmallConfig(temp_.path());
  config.wal_segment_bytes = 16 << 20;
  config.wal_bytes_max = 64 << 20;
  shard = CacheShard::Open(config, disk_.get(), Clock::Real()).value();
  const std::string text(600'000, 'x');
  for (int i = 0; i < 15; ++i) PutUnit(shard.get(), text + std::to_string(i));
  shard->Close();
  OverlayDiskIo io;
  EXPECT_EQ(VerifyShard(&io, Survey(), [](uint64_t, uint64_t) { return false; }).code(), StatusCode::kCancelled);
}

}  // namespace
}  // namespace sutra::test
