// How the reader classifies every kind of place: the header's states, the reason why a run of records ends, and what
// lies behind it.
#include "cache/wal/wal_reader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "tests/cache/wal/hand_made_log.h"

namespace sutra {
namespace {

constexpr uint64_t kStart = kSegmentDataStart;
constexpr uint64_t kBlock = kWalBlockBytes;

// Segment 1: "a" (sequence 1) and "b" (2), their watermark (3); a removal of "a" (4) and its watermark (5). The second
// group says that the first was synced.
class WalReaderTest : public testing::Test {
 protected:
  void SetUp() override {
    test::HandMadeLog log(&disk_);
    log.Begin(1);
    log.Write({{"a", 1}, {"b", 2}});
    log.Write({{"a"}});
    id_ = log.writer()->id();
    bytes_ = disk_.Bytes(path_);
  }

  std::unique_ptr<WalReader> Open() { return Open(SegmentExpectation{1, test::Model(), test::kWidth}); }
  std::unique_ptr<WalReader> Open(const SegmentExpectation& expected) {
    disk_.SetBytes(path_, bytes_);
    return WalReader::Open(&disk_, path_, expected).value();
  }
  HeaderState HeaderOf(const SegmentExpectation& expected) { return Open(expected)->header_state(); }
  HeaderState HeaderOf() { return Open()->header_state(); }

  // The state of the record at `offset` when `sequence` is expected there.
  RecordState StateAt(uint64_t offset, uint64_t sequence) {
    const std::unique_ptr<WalReader> reader = Open();
    WalRecord record;
    for (uint64_t next = 1; reader->position() < offset; ++next) {
      EXPECT_EQ(reader->Classify(next, &record).value(), RecordState::kGood) << "on the way, at " << reader->position();
      reader->Skip(record);
    }
    return reader->Classify(sequence, &record).value();
  }

  void Flip(uint64_t at) { bytes_[at] ^= std::byte{1}; }
  // Changes the header of the record at `offset` and recomputes its checksum.
  void ChangeHeader(uint64_t offset, const std::function<void(RecordHeader*)>& change) {
    RecordHeader header;
    std::memcpy(&header, bytes_.data() + offset, sizeof(header));
    change(&header);
    std::memcpy(bytes_.data() + offset, &header, sizeof(header));
    StampRecord(bytes_.data() + offset, id_, offset,
                {header.sequence, header.acked_through, header.wall_highest_ns, header.removals});
  }
  void ChangeSegmentHeader(const std::function<void(SegmentHeader*)>& change) {
    SegmentHeader header;
    std::memcpy(&header, bytes_.data(), sizeof(header));
    change(&header);
    EncodeSegmentHeader(header, bytes_.data());
    EncodeSegmentHeader(header, bytes_.data() + kBlock);
  }

  sim::SimDisk disk_;
  const std::string path_ = test::HandMadeLog::PathOf(1);
  SegmentId id_ = {};
  std::vector<std::byte> bytes_;
};

TEST_F(WalReaderTest, YieldsEveryRecordThenTheZerosBehindThem) {
  const std::unique_ptr<WalReader> reader = Open();
  EXPECT_EQ(reader->header_state(), HeaderState::kGood);
  EXPECT_EQ(reader->header().id, id_);
  EXPECT_EQ(reader->file_bytes(), kSegmentBytesMin);
  std::string seen;
  WalRecord record;
  uint64_t sequence = 1;
  for (; reader->Classify(sequence, &record).value() == RecordState::kGood; ++sequence) {
    EXPECT_EQ(record.header.sequence, sequence);
    EXPECT_EQ(record.offset, reader->position());
    if (record.type() == RecordType::kInsert) {
      seen += "+" + std::string(record.text);
      const std::vector<float> vector = test::VectorOf(std::string(record.text), record.insert.token_count);
      ASSERT_EQ(record.vector.size(), vector.size() * sizeof(float));
      EXPECT_EQ(std::memcmp(record.vector.data(), vector.data(), record.vector.size()), 0);
    } else if (record.type() == RecordType::kErase) {
      EXPECT_EQ(record.erase.digest_low, test::DigestOf("a", 0, 0).digest_low);
      seen += "-a";
    } else {
      seen += "|";
    }
    reader->Skip(record);
  }
  EXPECT_EQ(seen, "+a+b|-a|");
  EXPECT_EQ(sequence, 6u);
  EXPECT_EQ(reader->position(), kStart + 2 * kBlock);
  EXPECT_EQ(reader->Classify(sequence, &record).value(), RecordState::kUnwritten);
}

TEST_F(WalReaderTest, AFullSegmentEndsWithItsIndexOrItself) {
  sim::SimDisk disk;
  test::HandMadeLog log(&disk);
  log.Begin(1);
  uint64_t records = 0;
  for (; log.writer()->Fits(kBlock, 2); records += 2) log.Write({{"t", 1}});
  EXPECT_TRUE(log.writer()->WriteIndex().ok());
  const SegmentExpectation expected{1, test::Model(), test::kWidth};
  const std::unique_ptr<WalReader> reader = WalReader::Open(&disk, path_, expected).value();
  SegmentIndex index;
  EXPECT_EQ(reader->ReadIndex(&index).value(), IndexState::kGood);
  WalRecord record;
  for (uint64_t sequence = 1; sequence <= records; ++sequence) {
    ASSERT_EQ(reader->Classify(sequence, &record).value(), RecordState::kGood) << sequence;
    reader->Skip(record);
  }
  EXPECT_EQ(reader->Classify(records + 1, &record).value(), RecordState::kEndOfSegment);
  EXPECT_EQ(reader->position(), kSegmentBytesMin - kBlock);
}

TEST_F(WalReaderTest, AShorterFileThanItsHeaderSaysIsMissing) {
  const std::vector<std::byte> whole = bytes_;
  for (const uint64_t size : {kStart, kStart + 63, kStart + 64, kStart + 191}) {
    bytes_ = {whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)};
    EXPECT_EQ(StateAt(kStart, 1), RecordState::kMissing) << size << " bytes";
  }
  bytes_ = {whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(kStart + 192)};
  EXPECT_EQ(StateAt(kStart, 1), RecordState::kGood);
  EXPECT_EQ(StateAt(kStart + 192, 2), RecordState::kMissing);
}

TEST_F(WalReaderTest, ADamagedHeaderOrASenselessLengthIsABadHeader) {
  for (uint64_t at = 0; at < sizeof(RecordHeader); ++at) {
    Flip(kStart + at);
    EXPECT_EQ(StateAt(kStart, 1), RecordState::kBadHeader) << "byte " << at;
    Flip(kStart + at);
  }
  for (const uint32_t length : {0u, 63u, 100u, static_cast<uint32_t>(kSegmentBytesMin), UINT32_MAX}) {
    ChangeHeader(kStart, [&](RecordHeader* header) { header->length = length; });
    EXPECT_EQ(StateAt(kStart, 1), RecordState::kBadHeader) << "length " << length;
  }
}

TEST_F(WalReaderTest, AGoodRecordOfAnotherPlaceOrSegmentIsABadHeader) {
  std::copy_n(bytes_.begin() + kStart + kBlock, 128, bytes_.begin() + kStart);  // the removal, where "a" stood
  EXPECT_EQ(StateAt(kStart, 4), RecordState::kBadHeader);
  sim::SimDisk other;
  test::HandMadeLog log(&other);
  log.Begin(1);
  log.Write({{"a", 1}, {"b", 2}});
  const std::vector<std::byte> foreign = other.Bytes(path_);
  std::copy_n(foreign.begin() + kStart, kBlock, bytes_.begin() + kStart);
  EXPECT_EQ(StateAt(kStart, 1), RecordState::kBadHeader);
}

// An insert with a valid header is known not to be a removal, whatever became of the rest.
TEST_F(WalReaderTest, ADamagedBodyTellsAnInsertFromTheRest) {
  for (uint64_t at = sizeof(RecordHeader); at < 192; ++at) {
    Flip(kStart + at);
    EXPECT_EQ(StateAt(kStart, 1), RecordState::kBadInsertBody) << "byte " << at;
    Flip(kStart + at);
  }
  Flip(kStart + kBlock + 64);
  EXPECT_EQ(StateAt(kStart + kBlock, 4), RecordState::kBadBody) << "the removal";
  Flip(kStart + kBlock + 64);
  Flip(kStart + 500);
  EXPECT_EQ(StateAt(kStart + 384, 3), RecordState::kBadWatermark);
}

// Valid checksums do not excuse numbers that contradict each other.
TEST_F(WalReaderTest, ABodyThatContradictsItselfIsBad) {
  const auto with_body = [&](const std::function<void(InsertBody*)>& change, uint32_t slot = 3) {
    InsertBody body;
    body.width = test::kWidth;
    body.text_bytes = 1;
    change(&body);
    const std::vector<float> vector(test::kWidth);
    WalGroup group(kBlock);
    UnplacedRecord record = UnplacedRecord::Insert(body, std::as_bytes(std::span(vector)), "a");
    record.slot = slot;
    group.Append(record);
    group.Close();
    RecordStamp stamp;
    group.Stamp(id_, kStart, &stamp);
    std::copy_n(group.bytes().begin(), kBlock, bytes_.begin() + kStart);
    return StateAt(kStart, 1);
  };
  EXPECT_EQ(with_body([](InsertBody*) {}), RecordState::kGood);
  EXPECT_EQ(with_body([](InsertBody*) {}, kNoRecordSlot), RecordState::kBadInsertBody);
  EXPECT_EQ(with_body([](InsertBody* body) { body->width = 15; }), RecordState::kBadInsertBody);
  EXPECT_EQ(with_body([](InsertBody* body) { body->text_bytes = 25; }), RecordState::kBadInsertBody);
  EXPECT_EQ(with_body([](InsertBody* body) { body->text_bytes = UINT32_MAX; }), RecordState::kBadInsertBody);
}

TEST_F(WalReaderTest, AnotherSequenceThanExpectedIsNamed) {
  EXPECT_EQ(StateAt(kStart, 2), RecordState::kWrongSequence);
  EXPECT_EQ(StateAt(kStart, 0), RecordState::kWrongSequence);
}

TEST_F(WalReaderTest, ALaterVersionsTypeIsUnknownAndSkippableOnlyIfItSaysSo) {
  ChangeHeader(kStart, [](RecordHeader* header) { header->type = kRecordTypeMax + 1; });
  EXPECT_EQ(StateAt(kStart, 1), RecordState::kUnknown);
  ChangeHeader(kStart, [](RecordHeader* header) { header->flags = kRecordFlagIgnorable; });
  EXPECT_EQ(StateAt(kStart, 1), RecordState::kUnknownIgnorable);
  Flip(kStart + 70);
  EXPECT_EQ(StateAt(kStart, 1), RecordState::kBadBody) << "a body that is not whole is nothing to skip";
}

TEST_F(WalReaderTest, TheSegmentHeaderIsGoodZeroBadNewerOrMisplaced) {
  const std::vector<std::byte> whole = bytes_;
  EXPECT_EQ(HeaderOf(), HeaderState::kGood);
  for (const uint64_t copy : {uint64_t{0}, kBlock}) {
    bytes_ = whole;
    Flip(copy + 100);
    EXPECT_EQ(HeaderOf(), HeaderState::kGood) << "one copy is enough";
  }
  Flip(100);
  EXPECT_EQ(HeaderOf(), HeaderState::kBad) << "both copies";
  bytes_ = whole;
  bytes_.resize(kStart - 1);
  EXPECT_EQ(HeaderOf(), HeaderState::kBad) << "shorter than the header";

  bytes_.assign(kSegmentBytesMin, std::byte{0});
  EXPECT_EQ(HeaderOf(), HeaderState::kZero);
  bytes_.back() = std::byte{1};
  EXPECT_EQ(HeaderOf(), HeaderState::kBad) << "zeros in front of data are rot";

  bytes_ = whole;
  EXPECT_EQ(HeaderOf({2, test::Model(), test::kWidth}), HeaderState::kMisplaced);
  EXPECT_EQ(HeaderOf({1, test::Model(), test::kWidth + 1}), HeaderState::kMisplaced);
  EXPECT_EQ(HeaderOf({1, ModelIdentity{}, test::kWidth}), HeaderState::kMisplaced);
  ChangeSegmentHeader([](SegmentHeader* header) { header->previous_number = 1; });
  EXPECT_EQ(HeaderOf(), HeaderState::kMisplaced) << "no segment comes after itself";
  ChangeSegmentHeader([](SegmentHeader* header) { header->incompatible_flags = 1; });
  EXPECT_EQ(HeaderOf(), HeaderState::kNewer);
}

TEST_F(WalReaderTest, LooksAheadForRecordsAndForWhatTheySayWasSynced) {
  const auto follow_from = [&](uint64_t sequence) { return Open()->LookAhead(sequence).value(); };
  EXPECT_EQ(follow_from(1), Follow::kAcked) << "the second group says that 1 to 3 were synced";
  EXPECT_EQ(follow_from(3), Follow::kAcked);
  EXPECT_EQ(follow_from(4), Follow::kUnacked) << "5 follows, and says nothing of 4";
  EXPECT_EQ(follow_from(5), Follow::kNone);
  Flip(kStart + kBlock);  // the removal's header and its watermark's: no evidence is left
  Flip(kStart + kBlock + 128);
  EXPECT_EQ(follow_from(1), Follow::kUnacked);
  EXPECT_EQ(follow_from(3), Follow::kNone);
}

TEST_F(WalReaderTest, ADamagedBodyIsEvidenceAllTheSame) {
  Flip(kStart + kBlock + 64);
  Flip(kStart + kBlock + 128);
  EXPECT_EQ(Open()->LookAhead(3).value(), Follow::kAcked);
}

TEST_F(WalReaderTest, ResyncGoesOnAtTheNextWholeRecord) {
  Flip(kStart);              // "a": its header
  Flip(kStart + 192 + 100);  // "b": its body
  const std::unique_ptr<WalReader> reader = Open();
  EXPECT_EQ(reader->Resync(1).value(), 3u);
  EXPECT_EQ(reader->position(), kStart + 384);
  EXPECT_EQ(reader->Resync(4).value(), 5u) << "a sequence that was expected already is passed over";
  EXPECT_EQ(reader->Resync(5).value(), 0u);
  EXPECT_EQ(reader->position(), kStart + kBlock + 128) << "it stays where it was";
}

TEST_F(WalReaderTest, RecordsOnBothSidesOfTheWindowAreRead) {
  sim::SimDisk disk;
  test::HandMadeLog log(&disk);
  const uint64_t bytes = 4 << 20;
  log.Begin(1, bytes);
  const std::string text(700'000, 't');
  for (int version = 1; version <= 5; ++version) log.Write({{text, version}});
  const std::unique_ptr<WalReader> reader =
      WalReader::Open(&disk, path_, SegmentExpectation{1, test::Model(), test::kWidth}).value();
  WalRecord record;
  for (uint64_t sequence = 1; sequence <= 10; ++sequence) {
    ASSERT_EQ(reader->Classify(sequence, &record).value(), RecordState::kGood) << sequence;
    ASSERT_TRUE(record.type() == RecordType::kWatermark || record.text == text) << sequence;
    reader->Skip(record);
  }
  EXPECT_EQ(reader->Classify(11, &record).value(), RecordState::kUnwritten);
}

TEST_F(WalReaderTest, AnErrorThatIsNotOfAPlaceIsTheDisksNotTheLogs) {
  const std::unique_ptr<WalReader> reader = Open();
  ASSERT_TRUE(reader->SyncAndDropCache().ok());  // its window is gone: the next call reads from the disk
  sim::SimDisk::Faults faults;
  faults.fail_at = 1;
  faults.fail_errno = ENOMEM;
  faults.fail_forever = true;
  disk_.SetFaults(faults);
  WalRecord record;
  EXPECT_EQ(reader->Classify(1, &record).status().os_error(), ENOMEM);
  EXPECT_EQ(reader->LookAhead(1).status().os_error(), ENOMEM);
  EXPECT_EQ(reader->Resync(1).status().os_error(), ENOMEM);
  EXPECT_EQ(reader->SyncAndDropCache().os_error(), ENOMEM);
  EXPECT_FALSE(WalReader::Open(&disk_, path_, SegmentExpectation{1, test::Model(), test::kWidth}).ok());
}

TEST_F(WalReaderTest, WhatTheDiskCannotReadIsAState) {
  bytes_.resize(16 * kBlock);
  const auto state_at = [&](uint64_t spoiled) {
    std::unique_ptr<WalReader> reader = Open();  // replaces the file: what was spoiled before is readable again
    disk_.SpoilBlock(path_, spoiled);
    reader = WalReader::Open(&disk_, path_, SegmentExpectation{1, test::Model(), test::kWidth}).value();
    WalRecord record;
    return reader->Classify(1, &record).value();
  };
  EXPECT_EQ(state_at(kStart), RecordState::kUnreadable);
  EXPECT_EQ(state_at(kStart + kBlock), RecordState::kGood) << "the next block is no part of it";
  EXPECT_EQ(state_at(0), RecordState::kGood) << "one header copy is enough";

  Open();
  disk_.SpoilBlock(path_, kStart);
  const SegmentExpectation expected{1, test::Model(), test::kWidth};
  std::unique_ptr<WalReader> reader = WalReader::Open(&disk_, path_, expected).value();
  EXPECT_EQ(reader->LookAhead(1).value(), Follow::kAcked);
  EXPECT_EQ(reader->Resync(1).value(), 4u);
  EXPECT_EQ(reader->position(), kStart + kBlock);
  EXPECT_EQ(reader->unreadable_blocks(), 1u);
  disk_.SpoilBlock(path_, 0);
  EXPECT_EQ(WalReader::Open(&disk_, path_, expected).value()->header_state(), HeaderState::kGood);
  disk_.SpoilBlock(path_, kBlock);
  EXPECT_EQ(WalReader::Open(&disk_, path_, expected).value()->header_state(), HeaderState::kUnreadable);
}

// After a failed sync the page cache may hold, marked clean, data that never reached the disk.
TEST(WalReaderSync, ReadsTheDiskItselfAfterwards) {
  int gone = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    sim::SimDisk disk(seed);
    test::HandMadeLog log(&disk);
    log.Begin(1);
    log.Write({{"a", 1}}, false);
    sim::SimDisk::Faults faults;
    faults.fail_at = 1;
    disk.SetFaults(faults);
    EXPECT_FALSE(log.writer()->Sync().ok());
    const std::unique_ptr<WalReader> reader =
        WalReader::Open(&disk, test::HandMadeLog::PathOf(1), SegmentExpectation{1, test::Model(), test::kWidth})
            .value();
    WalRecord record;
    EXPECT_EQ(reader->Classify(1, &record).value(), RecordState::kGood) << "the page cache has it";
    ASSERT_TRUE(reader->SyncAndDropCache().ok());
    const RecordState state = reader->Classify(1, &record).value();
    ASSERT_TRUE(state == RecordState::kGood || state == RecordState::kUnwritten);
    if (state == RecordState::kUnwritten) ++gone;
  }
  EXPECT_GT(gone, 0);
  EXPECT_LT(gone, 20);
}

// Segment 2 in the file of segment 1, which was full of short and of long records: two groups, then what is left of
// segment 1. The second group says that the first was synced.
class WrittenOverTest : public testing::Test {
 protected:
  void SetUp() override {
    test::HandMadeLog log(&disk_);
    log.Begin(1);
    while (log.writer()->Fits(4 * kBlock, 4)) {
      log.Write({{"short", 1}, {"short too", 2}});
      log.Write({{std::string(2 * kBlock, 'x'), 3}});
    }
    first_ = log.writer()->written_through() + 1;
    old_ = disk_.Bytes(test::HandMadeLog::PathOf(1));
    log.BeginOver(2, 1);
    log.Write({{"a", 1}});
    log.Write({{"b", 2}});
    bytes_ = disk_.Bytes(path_);
  }

  std::unique_ptr<WalReader> Open() {
    disk_.SetBytes(path_, bytes_);
    return WalReader::Open(&disk_, path_, {2, test::Model(), test::kWidth}).value();
  }
  // Before all that is written from `block` on.
  void Unwrite(uint64_t block, uint64_t blocks) {
    const auto from = static_cast<std::ptrdiff_t>(kStart + block * kBlock);
    std::copy_n(old_.begin() + from, blocks * kBlock, bytes_.begin() + from);
  }
  // What follows the records, and the state of the place behind them.
  std::pair<RecordState, Follow> End(uint64_t records) {
    const std::unique_ptr<WalReader> reader = Open();
    WalRecord record;
    uint64_t next = first_;
    for (; next < first_ + records; ++next) {
      EXPECT_EQ(reader->Classify(next, &record).value(), RecordState::kGood);
      reader->Skip(record);
    }
    const RecordState state = reader->Classify(next, &record).value();
    const Follow follow = reader->LookAhead(next).value();
    EXPECT_EQ(reader->Resync(next).value() != 0, follow != Follow::kNone);
    return {state, follow};
  }

  sim::SimDisk disk_;
  const std::string path_ = test::HandMadeLog::PathOf(2);
  uint64_t first_ = 0;
  std::vector<std::byte> old_, bytes_;
};

TEST_F(WrittenOverTest, WhatTheFileHeldBeforeIsNotWrittenYet) {
  EXPECT_EQ(End(4), std::pair(RecordState::kUnwritten, Follow::kNone));
  // Wherever the end is: in the middle of an old record, too.
  for (uint64_t groups = 3; kStart + groups * kBlock < kSegmentBytesMin; ++groups) {
    test::HandMadeLog log(&disk_);
    disk_.SetBytes(test::HandMadeLog::PathOf(1), old_);
    log.BeginOver(2, 1);
    for (uint64_t i = 0; i < groups; ++i) log.Write({{"a", 1}});
    bytes_ = disk_.Bytes(path_);
    first_ = 1;
    EXPECT_EQ(End(2 * groups), std::pair(RecordState::kUnwritten, Follow::kNone)) << groups;
  }
}

TEST_F(WrittenOverTest, WithoutTheFlagItIsTakenForATornWrite) {
  for (uint64_t copy = 0; copy < kSegmentHeaderCopies; ++copy) {
    SegmentHeader header;
    std::memcpy(&header, bytes_.data() + copy * kBlock, sizeof(header));
    EXPECT_EQ(std::exchange(header.flags, 0u), kSegmentWrittenOver);
    EncodeSegmentHeader(header, bytes_.data() + copy * kBlock);
  }
  EXPECT_EQ(End(4), std::pair(RecordState::kBadHeader, Follow::kNone));
}

TEST_F(WrittenOverTest, ALostGroupBeforeALaterOneIsNoEnd) {
  Unwrite(0, 1);
  EXPECT_EQ(End(0), std::pair(RecordState::kUnwritten, Follow::kAcked));
}

// Even if every checksum of the old records fitted: their numbers are lower than any that is expected.
TEST_F(WrittenOverTest, OldRecordsWithTheRightChecksumsProveNothing) {
  SegmentHeader header;
  std::memcpy(&header, bytes_.data(), sizeof(header));
  uint64_t stamped = 0;
  for (uint64_t at = kStart; at < kSegmentBytesMin; at += kRecordAlign) {
    RecordHeader old;
    std::memcpy(&old, old_.data() + at, sizeof(old));
    if (old.type == 0 || old.type > kRecordTypeMax || old.length > kSegmentBytesMin) continue;
    StampRecord(old_.data() + at, header.id, at, {old.sequence, old.acked_through, old.wall_highest_ns, old.removals});
    ++stamped;
  }
  EXPECT_GT(stamped, 10u);
  Unwrite(2, (kSegmentBytesMin - kStart) / kBlock - 2);
  const auto [state, follow] = End(4);
  EXPECT_NE(state, RecordState::kGood);
  EXPECT_EQ(follow, Follow::kNone);
}

}  // namespace
}  // namespace sutra
