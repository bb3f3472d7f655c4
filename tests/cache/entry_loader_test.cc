// Entries that a start has found by the index come to memory from their records, and what is not right there is
// dropped, never served.
#include "cache/entry_loader.h"

#include <gtest/gtest.h>

#include <thread>

#include "cache/store_sink.h"
#include "tests/cache/wal/hand_made_log.h"

namespace sutra {
namespace {

using test::HandMadeLog;
using test::kWidth;
using test::SlotOfText;
using test::VectorOf;

constexpr uint64_t kWall = 1'700'000'000'000'000'000;

// Stops at a read of records, when told to.
class PausingDisk : public sim::SimDisk {
 public:
  using SimDisk::SimDisk;
  void PauseAtRecords() { state_.store(State::kArmed); }
  void WaitUntilPaused() const {
    while (state_.load() != State::kPaused) std::this_thread::yield();
  }
  void GoOn() { state_.store(State::kOff); }
  int open_files() const { return open_files_.load(); }

  int RawOpen(const std::string& path, OpenMode mode) override {
    const int file = SimDisk::RawOpen(path, mode);
    if (file >= 0) ++open_files_;
    return file;
  }
  void RawClose(FileHandle file) override {
    SimDisk::RawClose(file);
    --open_files_;
  }
  int64_t RawRead(FileHandle file, uint64_t offset, std::span<std::byte> into) override {
    State armed = State::kArmed;
    if (offset >= kSegmentDataStart) state_.compare_exchange_strong(armed, State::kPaused);
    while (state_.load() == State::kPaused) std::this_thread::yield();
    return SimDisk::RawRead(file, offset, into);
  }

 private:
  enum class State { kOff, kArmed, kPaused };
  std::atomic<State> state_{State::kOff};
  std::atomic<int> open_files_{0};
};

class EntryLoaderTest : public testing::Test {
 protected:
  // `count` texts in two segments, both with an index.
  void Make(int count) {
    HandMadeLog log(&disk_);
    for (uint64_t segment = 1; segment <= 2; ++segment) {
      log.Begin(segment);
      for (int i = 0; i < count / 2; ++i) log.Write({{TextOf(segment, i), i}});
      ASSERT_TRUE(log.writer()->WriteIndex().ok());
    }
    Recover();
  }
  void Recover() {
    RecoveryRequest request;
    request.directory = test::kSmallLogDirectory;
    request.width = kWidth;
    request.model = test::Model();
    StoreSink sink(&store_, &clock_, kWall);
    const Result<RecoveryPlan> plan = RecoverLog(&disk_, request, &sink);
    ASSERT_TRUE(plan.ok());
    EXPECT_EQ(plan->indexed, 2u);
    store_.FinishReplay();
    loader_ = std::make_unique<EntryLoader>(&store_, &disk_, &clock_, request, plan->chain,
                                            [this](LogLevel level, const std::string& line) {
                                              lines_.push_back({level, line});
                                            });
  }
  static std::string TextOf(uint64_t segment, int i) { return "e" + std::to_string(segment) + "-" + std::to_string(i); }
  int Find(const std::string& text) {
    std::vector<float> vector(kWidth);
    CacheValue value;
    const auto read = [this](uint32_t slot) { loader_->Load(slot); };
    if (!store_.Lookup(store_.KeyOf(text, 0), 0, vector.data(), &value, read)) return -1;
    return vector == VectorOf(text, value.token_count) ? static_cast<int>(value.token_count) : -2;
  }
  // As who may not wait; fills vector_, or unread_slot_.
  std::optional<bool> Try(const EntryKey& key) {
    CacheValue value;
    return store_.TryLookup(key, 0, vector_.data(), &value, &unread_slot_);
  }
  uint64_t unread() { return store_.GetCounts().unread; }
  // The record of this text is damaged from now on.
  void Damage(uint64_t segment, const std::string& text) {
    const std::string path = HandMadeLog::PathOf(segment);
    std::vector<std::byte> bytes = disk_.Bytes(path);
    const std::string_view all(static_cast<const char*>(static_cast<const void*>(bytes.data())), bytes.size());
    const size_t at = all.find(text + std::string(1, '\0'));
    ASSERT_NE(at, std::string_view::npos);
    bytes[at] ^= std::byte{1};
    disk_.SetBytes(path, std::move(bytes));
  }

  PausingDisk disk_{1};
  sim::ManualClock clock_{kWall};
  SlotTable store_{SlotTable::Limits{kWidth, 1000, 8 << 20}};
  std::vector<std::pair<LogLevel, std::string>> lines_;
  std::unique_ptr<EntryLoader> loader_;
  std::vector<float> vector_ = std::vector<float>(kWidth);
  uint32_t unread_slot_ = SlotTable::kNoSlot;
};

TEST_F(EntryLoaderTest, ReadsWhatSomebodyAsksForAtOnceAndTheRestInItsTurn) {
  Make(20);
  EXPECT_EQ(store_.GetCounts().entries, 20u);
  EXPECT_EQ(unread(), 20u);
  EXPECT_EQ(Find(TextOf(1, 7)), 7);
  EXPECT_EQ(unread(), 19u);
  loader_->LoadSegment(2);
  EXPECT_EQ(unread(), 9u);
  loader_->LoadAll();
  EXPECT_EQ(unread(), 0u);
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(Find(TextOf(1, i)), i);
    EXPECT_EQ(Find(TextOf(2, i)), i);
  }
  ASSERT_EQ(lines_.size(), 1u);
  EXPECT_EQ(lines_[0].first, LogLevel::kInfo);
  EXPECT_EQ(loader_->lost(), 0u);
}

TEST_F(EntryLoaderTest, ADamagedRecordCostsItsEntryAndIsReported) {
  Make(20);
  Damage(1, TextOf(1, 3));
  Damage(2, TextOf(2, 9));
  EXPECT_EQ(Find(TextOf(1, 3)), -1);
  EXPECT_EQ(loader_->lost(), 1u);
  loader_->LoadAll();
  EXPECT_EQ(loader_->lost(), 2u);
  EXPECT_EQ(Find(TextOf(2, 9)), -1);
  EXPECT_EQ(Find(TextOf(1, 4)), 4);
  EXPECT_EQ(store_.GetCounts().entries, 18u);
  ASSERT_EQ(lines_.size(), 2u);
  EXPECT_EQ(lines_[1].first, LogLevel::kError);
  EXPECT_NE(lines_[1].second.find("2 entries"), std::string::npos) << lines_[1].second;
}

// The directory may be moved, or another put in its place, and come back.
TEST_F(EntryLoaderTest, ASegmentThatIsNotThereNowCostsNothingOnceItIsBack) {
  Make(20);
  const std::string first = HandMadeLog::PathOf(1), second = HandMadeLog::PathOf(2);
  ASSERT_TRUE(disk_.Rename(first, first + ".away").ok());
  EXPECT_EQ(Find(TextOf(1, 3)), -1);
  ASSERT_TRUE(disk_.Rename(second, first).ok()) << "another segment in its place";
  EXPECT_EQ(Find(TextOf(1, 3)), -1);
  loader_->LoadAll();
  EXPECT_EQ(store_.GetCounts().entries, 20u);
  EXPECT_EQ(unread(), 20u);
  EXPECT_EQ(loader_->lost(), 0u);
  ASSERT_EQ(lines_.size(), 2u);
  EXPECT_NE(lines_[1].second.find("20 entries"), std::string::npos) << lines_[1].second;
  ASSERT_TRUE(disk_.Rename(first, second).ok());
  ASSERT_TRUE(disk_.Rename(first + ".away", first).ok());
  EXPECT_EQ(Find(TextOf(1, 3)), 3);
  loader_->LoadAll();
  EXPECT_EQ(unread(), 0u);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Find(TextOf(2, i)), i);
}

TEST_F(EntryLoaderTest, WhatIsStillNotThereWhenItsSegmentGoesIsGoneToo) {
  Make(20);
  ASSERT_TRUE(disk_.Unlink(HandMadeLog::PathOf(1)).ok());
  uint64_t cursor = 0;
  for (uint32_t slot; (slot = store_.NextUnread(&cursor, 1)) != SlotTable::kNoSlot;) loader_->LoadOrDrop(slot);
  EXPECT_EQ(store_.GetCounts().entries, 10u);
  EXPECT_EQ(unread(), 10u) << "those of the other segment";
  EXPECT_EQ(loader_->lost(), 10u);
}

TEST_F(EntryLoaderTest, ABlockThatCannotBeReadNowCostsNothingOnceItCan) {
  Make(20);
  const std::string path = HandMadeLog::PathOf(1);
  const std::vector<std::byte> bytes = disk_.Bytes(path);
  for (uint64_t at = kSegmentDataStart; at < bytes.size(); at += kWalBlockBytes) disk_.SpoilBlock(path, at);
  EXPECT_EQ(Find(TextOf(1, 3)), -1);
  loader_->LoadAll();
  EXPECT_EQ(unread(), 10u);
  EXPECT_EQ(loader_->lost(), 0u);
  disk_.SetBytes(path, bytes);
  EXPECT_EQ(Find(TextOf(1, 3)), 3);
  EXPECT_EQ(unread(), 9u);
}

// The log goes on for a while after the loader was stopped, and may give a segment back.
TEST_F(EntryLoaderTest, AfterAStopASegmentIsStillReadAtOnce) {
  Make(20);
  loader_->Stop();
  loader_->LoadSegment(1);
  EXPECT_EQ(unread(), 10u);
}

TEST_F(EntryLoaderTest, ADiskThatFailsAsAWholeCostsNothingOnceItReadsAgain) {
  Make(20);
  sim::SimDisk::Faults faults;
  faults.fail_at = 1;
  faults.fail_forever = true;
  disk_.SetFaults(faults);
  EXPECT_EQ(Find(TextOf(1, 3)), -1);
  loader_->LoadAll();
  disk_.SetFaults({});
  EXPECT_EQ(unread() + loader_->lost(), 20u);
  EXPECT_EQ(Find(TextOf(2, 3)), loader_->lost() == 0 ? 3 : -1);
}

TEST_F(EntryLoaderTest, WhatIsReplacedOrRemovedMeanwhileStaysSo) {
  Make(20);
  {
    const std::vector<float> vector = VectorOf(TextOf(1, 3), 30);
    const MutexLock lock(store_.mutex());
    store_.PutLocked(store_.KeyOf(TextOf(1, 3), 0), std::as_bytes(std::span(vector)), {1, 30, false}, UINT64_MAX, 0);
    EXPECT_TRUE(store_.EraseLocked(store_.KeyOf(TextOf(1, 4), 0)));
  }
  loader_->LoadAll();
  EXPECT_EQ(Find(TextOf(1, 3)), 30);
  EXPECT_EQ(Find(TextOf(1, 4)), -1);
  EXPECT_EQ(loader_->lost(), 0u);
}

TEST_F(EntryLoaderTest, LookupsAndTheThreadReadBesideEachOther) {
  Make(20);
  loader_->Start();
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int thread = 0; thread < 3; ++thread) {
    threads.emplace_back([&] {
      for (int round = 0; round < 50; ++round) {
        for (int i = 0; i < 10; ++i) wrong += Find(TextOf(1 + round % 2, i)) == i ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  loader_->Stop();
  EXPECT_EQ(wrong.load(), 0);
}

TEST_F(EntryLoaderTest, WhoMayNotWaitAsksAndFindsItSoon) {
  Make(20);
  std::atomic<bool> go{false};
  loader_->Start([&] {
    while (!go.load()) std::this_thread::yield();
  });
  const std::string text = TextOf(1, 3);
  const EntryKey key = store_.KeyOf(text, 0);
  EXPECT_EQ(Try(key), std::nullopt);
  const uint32_t unread = unread_slot_;
  ASSERT_NE(unread, SlotTable::kNoSlot);
  EXPECT_TRUE(loader_->Ask(unread));
  EXPECT_TRUE(loader_->Ask(unread)) << "and again, without harm";
  clock_.Advance(3'000'000'000);
  EXPECT_FALSE(loader_->Ask(unread)) << "it takes longer than computing it";
  go.store(true);
  while (!Try(key).has_value()) std::this_thread::yield();
  EXPECT_EQ(vector_, VectorOf(text, 3));
  loader_->Stop();
  EXPECT_FALSE(loader_->Ask(unread)) << "nobody would read it";
}

TEST_F(EntryLoaderTest, WhatCannotBeReadNowIsReadWhenItIsAskedForLater) {
  Make(20);
  sim::SimDisk::Faults faults;
  faults.fail_at = 1;
  faults.fail_forever = true;
  faults.fail_errno = EMFILE;
  disk_.SetFaults(faults);
  loader_->Start();
  const std::string text = TextOf(1, 3);
  const EntryKey key = store_.KeyOf(text, 0);
  ASSERT_EQ(Try(key), std::nullopt);
  const uint32_t unread = unread_slot_;
  while (loader_->Ask(unread)) std::this_thread::yield();
  disk_.SetFaults({});
  do {
    clock_.Advance(2'000'000'000);
    loader_->Ask(unread);
    std::this_thread::yield();
  } while (!Try(key).has_value());
  EXPECT_EQ(vector_, VectorOf(text, 3));
}

// A file that is still open keeps its blocks, and a full disk would have no room for the next segment.
TEST_F(EntryLoaderTest, ASegmentThatIsLetGoIsNotOpenAnyMoreAndNotOpenedAgain) {
  Make(20);
  const int open_before = disk_.open_files();
  disk_.PauseAtRecords();
  loader_->Start();
  disk_.WaitUntilPaused();
  std::atomic<bool> let_go{false};
  std::thread log([&] {
    loader_->LetGo(2);
    let_go.store(true);
  });
  for (int turn = 0; turn < 10'000 && !let_go.load(); ++turn) std::this_thread::yield();
  EXPECT_FALSE(let_go.load()) << "while it is open";
  disk_.GoOn();
  log.join();
  EXPECT_EQ(disk_.open_files(), open_before);
  EXPECT_EQ(unread(), 20u) << "it read on";
  loader_->LoadSegment(1);
  loader_->LoadSegment(2);
  EXPECT_EQ(unread(), 20u);
  EXPECT_EQ(loader_->lost(), 0u);
}

}  // namespace
}  // namespace sutra
