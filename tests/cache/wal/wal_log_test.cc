// The chain of segments: when one is begun, what a failure does to the groups on their way, and what must be durable
// before the oldest segment is removed. Without threads, on the simulated disk.
#include "cache/wal/wal_log.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

#include "tests/cache/wal/fake_live_entries.h"

namespace sutra {
namespace {

using test::HandMadeLog;
using test::LogContent;
using Calls = std::vector<std::string>;

// A block each, and one for the index.
constexpr uint64_t kGroupsPerSegment = (kSegmentBytesMin - kSegmentDataStart) / kWalBlockBytes - 1;

// Remembers what was made and renamed; the next sync of a directory can fail.
class TracingDisk final : public sim::SimDisk {
 public:
  using SimDisk::SimDisk;
  // The numbers of the segments that became something else, or that something else became.
  struct Renames {
    std::vector<uint64_t> from, to;
  };
  Renames renames;
  int allocations = 0;
  bool fail_directory_sync = false;

  Status SyncDirectory(const std::string& path) override {
    if (!std::exchange(fail_directory_sync, false)) return SimDisk::SyncDirectory(path);
    return Status::FromErrno(StatusCode::kStorageError, "syncing the directory " + path, EIO);
  }

 protected:
  int RawAllocate(FileHandle file, uint64_t bytes, AllocateFill fill) override {
    ++allocations;
    return SimDisk::RawAllocate(file, bytes, fill);
  }
  Status RawRename(const std::string& from, const std::string& to) override {
    const auto number = [](const std::string& path) { return SegmentNumber(path.substr(path.rfind('/') + 1)); };
    if (number(from) != 0) renames.from.push_back(number(from));
    if (number(to) != 0) renames.to.push_back(number(to));
    return SimDisk::RawRename(from, to);
  }
};

class WalLogTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(disk_.MakeDirectory(test::kSmallLogDirectory).ok());
    config_.directory = test::kSmallLogDirectory;
    config_.model = test::Model();
    config_.width = test::kWidth;
    config_.segment_bytes = kSegmentBytesMin;
    config_.wal_bytes_max = 16 * kSegmentBytesMin;
    config_.threaded = false;
    config_.log_line = [this](LogLevel, const std::string& line) { lines_.push_back(line); };
  }

  Status Start() {
    const test::Recovered recovered = test::Recover(&disk_, test::kSmallLogDirectory);
    EXPECT_TRUE(recovered.status.ok()) << recovered.status.message();
    log_ = std::make_unique<WalLog>(&disk_, &clock_, &live_, &shared_, config_);
    return log_->Start(recovered.plan);
  }
  // Commits a group of one insert; returns the commit that its waiters wait for.
  std::shared_ptr<WalCommit> Commit(const std::string& text, int version, bool sync) {
    std::vector<std::unique_ptr<WalGroup>> groups;
    groups.push_back(test::GroupOf({{text, version}}));
    groups[0]->first_accepted_ns = clock_.MonotonicNs();
    const std::shared_ptr<WalCommit> commit = groups[0]->commit;
    log_->Commit(std::move(groups));
    if (sync) SyncAll();
    return commit;
  }
  void SyncAll() {
    if (log_->failed() || !log_->has_unsynced()) return;
    log_->BeginSync();
    log_->EndSync();
  }
  void Fail(uint64_t at, bool forever) {
    sim::SimDisk::Faults faults;
    faults.fail_at = at;
    faults.fail_forever = forever;
    disk_.SetFaults(faults);
  }
  std::vector<uint64_t> Segments() const {
    std::vector<uint64_t> numbers;
    for (const std::string& path : disk_.Paths()) {
      const uint64_t number = SegmentNumber(path.substr(test::kSmallLogDirectory.size() + 1));
      if (number != 0) numbers.push_back(number);
    }
    return numbers;
  }
  // What a new engine would find.
  LogContent ContentAfterKill() {
    disk_.ProcessKill();
    const test::Recovered recovered = test::Recover(&disk_, test::kSmallLogDirectory);
    EXPECT_FALSE(recovered.reported()) << recovered.status.message();
    return recovered.content;
  }
  bool Said(const std::string& part) const {
    return std::any_of(lines_.begin(), lines_.end(),
                       [&](const std::string& line) { return line.find(part) != std::string::npos; });
  }

  // Fills about so many segments, with records that are replaced at once.
  void Fill(uint64_t segments, bool sync) {
    for (uint64_t i = 0; i < segments * kGroupsPerSegment; ++i) Commit("filler", static_cast<int>(i), sync);
  }
  bool WrittenOver(uint64_t number) const {
    SegmentHeader header;
    std::memcpy(&header, disk_.Bytes(HandMadeLog::PathOf(number)).data(), sizeof(header));
    return header.flags == kSegmentWrittenOver;
  }

  TracingDisk disk_;
  sim::ManualClock clock_;
  test::FakeLiveEntries live_;
  WalShared shared_;
  WalLog::Config config_;
  std::vector<std::string> lines_;
  std::unique_ptr<WalLog> log_;
};

TEST_F(WalLogTest, BeginsASegmentAndKeepsAReserveReady) {
  ASSERT_TRUE(Start().ok());
  EXPECT_EQ(Segments(), std::vector<uint64_t>{1});
  EXPECT_EQ(disk_.Bytes(test::kSmallLogDirectory + "/reserve.tmp").size(), kSegmentBytesMin);
  EXPECT_EQ(shared_.current_segment.load(std::memory_order_relaxed), 1u);
  EXPECT_FALSE(log_->has_unsynced());
}

TEST_F(WalLogTest, AGroupIsUnsyncedUntilSomebodySyncsAndComesBackThen) {
  ASSERT_TRUE(Start().ok());
  const std::shared_ptr<WalCommit> first = Commit("a", 1, false);
  EXPECT_TRUE(log_->has_unsynced());
  EXPECT_EQ(log_->unsynced_bytes(), kWalBlockBytes);
  EXPECT_EQ(log_->oldest_unsynced_ns(), clock_.MonotonicNs());
  EXPECT_FALSE(first->finished());
  EXPECT_TRUE(log_->TakeSpent().empty());
  const std::shared_ptr<WalCommit> second = Commit("b", 2, true);
  EXPECT_TRUE(first->Wait()) << "one sync for both";
  EXPECT_TRUE(second->Wait());
  EXPECT_FALSE(log_->has_unsynced());
  EXPECT_EQ(log_->TakeSpent().size(), 2u);
  EXPECT_TRUE(log_->TakeSpent().empty());
  EXPECT_EQ(shared_.syncs.load(std::memory_order_relaxed), 1u);
  EXPECT_EQ(shared_.appends.load(std::memory_order_relaxed), 4u) << "two inserts and their watermarks";
}

TEST_F(WalLogTest, EachGroupHasItsOwnSyncWhenAskedTo) {
  config_.sync_each_group = true;
  ASSERT_TRUE(Start().ok());
  std::vector<std::unique_ptr<WalGroup>> groups;
  for (int i = 0; i < 3; ++i) groups.push_back(test::GroupOf({{std::to_string(i), i}}));
  log_->Commit(std::move(groups));
  EXPECT_EQ(shared_.syncs.load(std::memory_order_relaxed), 3u);
  EXPECT_FALSE(log_->has_unsynced());
}

TEST_F(WalLogTest, AFullSegmentIsSyncedAndFollowedByTheNext) {
  ASSERT_TRUE(Start().ok());
  std::vector<std::shared_ptr<WalCommit>> commits;
  for (uint64_t i = 0; i < kGroupsPerSegment; ++i) commits.push_back(Commit(std::to_string(i), 1, false));
  EXPECT_EQ(Segments(), std::vector<uint64_t>{1});
  EXPECT_FALSE(commits.back()->finished());
  const std::shared_ptr<WalCommit> next = Commit("next", 2, false);
  EXPECT_EQ(Segments(), (std::vector<uint64_t>{1, 2}));
  for (const auto& commit : commits) EXPECT_TRUE(commit->finished()) << "synced before the next one begins";
  EXPECT_FALSE(next->finished());
  EXPECT_EQ(ContentAfterKill().size(), kGroupsPerSegment + 1);
}

TEST_F(WalLogTest, AWatermarkProvesTheEndOnce) {
  ASSERT_TRUE(Start().ok());
  EXPECT_FALSE(log_->wants_watermark());
  Commit("a", 1, true);
  EXPECT_TRUE(log_->wants_watermark());
  log_->WriteWatermark();
  SyncAll();
  EXPECT_FALSE(log_->wants_watermark());
  EXPECT_EQ(shared_.syncs.load(std::memory_order_relaxed), 2u);
  const uint64_t operations = disk_.operations();
  SyncAll();
  EXPECT_EQ(disk_.operations(), operations) << "nothing is left to sync";
}

TEST_F(WalLogTest, AFailedWriteMovesEveryGroupOnItsWayToANewSegment) {
  ASSERT_TRUE(Start().ok());
  ASSERT_TRUE(Commit("synced", 1, true)->Wait());
  const std::shared_ptr<WalCommit> written = Commit("written", 2, false);
  Fail(1, false);
  const std::shared_ptr<WalCommit> failing = Commit("failing", 3, true);
  EXPECT_TRUE(written->Wait());
  EXPECT_TRUE(failing->Wait());
  EXPECT_FALSE(log_->failed());
  EXPECT_EQ(Segments(), (std::vector<uint64_t>{1, 2}));
  EXPECT_TRUE(Said("the log failed at segment 1"));
  EXPECT_EQ(ContentAfterKill(), (LogContent{{"synced", 1}, {"written", 2}, {"failing", 3}}));
}

TEST_F(WalLogTest, ASyncAcknowledgesWhatWasWrittenBeforeItBegan) {
  ASSERT_TRUE(Start().ok());
  const std::shared_ptr<WalCommit> before = Commit("before", 1, false);
  log_->BeginSync();
  clock_.Advance(1000);
  const std::shared_ptr<WalCommit> beside = Commit("beside", 2, false);
  EXPECT_FALSE(before->finished());
  EXPECT_EQ(log_->unsynced_bytes(), 2 * kWalBlockBytes);
  log_->EndSync();
  EXPECT_TRUE(before->finished());
  EXPECT_FALSE(beside->finished());
  EXPECT_EQ(log_->unsynced_bytes(), kWalBlockBytes);
  EXPECT_EQ(log_->oldest_unsynced_ns(), clock_.MonotonicNs());
  SyncAll();
  EXPECT_TRUE(beside->Wait());
}

TEST_F(WalLogTest, AFailedSyncMovesWhatWasWrittenBesideItToo) {
  ASSERT_TRUE(Start().ok());
  ASSERT_TRUE(Commit("synced", 1, true)->Wait());
  const std::shared_ptr<WalCommit> before = Commit("before", 2, false);
  log_->BeginSync();
  const std::shared_ptr<WalCommit> beside = Commit("beside", 3, false);
  Fail(1, false);
  log_->EndSync();
  EXPECT_TRUE(before->Wait());
  EXPECT_TRUE(beside->Wait());
  EXPECT_EQ(Segments(), (std::vector<uint64_t>{1, 2}));
  disk_.PowerCut();
  EXPECT_EQ(ContentAfterKill(), (LogContent{{"synced", 1}, {"before", 2}, {"beside", 3}}));
}

TEST_F(WalLogTest, AFailedWriteBesideASyncLeavesWhatTheSyncCovers) {
  ASSERT_TRUE(Start().ok());
  const std::shared_ptr<WalCommit> before = Commit("before", 1, false);
  log_->BeginSync();
  Fail(1, false);
  const std::shared_ptr<WalCommit> beside = Commit("beside", 2, false);
  EXPECT_TRUE(before->Wait());
  EXPECT_TRUE(beside->Wait());
  EXPECT_FALSE(log_->syncing());
  EXPECT_EQ(Segments(), (std::vector<uint64_t>{1, 2})) << "segment 1 counts as far as it was synced";
  disk_.PowerCut();
  EXPECT_EQ(ContentAfterKill(), (LogContent{{"before", 1}, {"beside", 2}}));
}

TEST_F(WalLogTest, ANewSegmentWaitsForTheSyncUnderWay) {
  ASSERT_TRUE(Start().ok());
  std::vector<std::shared_ptr<WalCommit>> commits;
  for (uint64_t i = 0; i < kGroupsPerSegment; ++i) {
    commits.push_back(Commit(std::to_string(i), 1, false));
    if (i == 2) log_->BeginSync();
  }
  Commit("next", 2, false);
  EXPECT_FALSE(log_->syncing());
  EXPECT_EQ(Segments(), (std::vector<uint64_t>{1, 2}));
  for (const auto& commit : commits) EXPECT_TRUE(commit->finished());
  EXPECT_EQ(shared_.syncs.load(std::memory_order_relaxed), 2u) << "the one under way, and one for the rest";
}

TEST_F(WalLogTest, AStopWaitsForTheSyncUnderWay) {
  ASSERT_TRUE(Start().ok());
  const std::shared_ptr<WalCommit> before = Commit("before", 1, false);
  log_->BeginSync();
  const std::shared_ptr<WalCommit> beside = Commit("beside", 2, false);
  log_->OutOfMemory();
  EXPECT_FALSE(log_->syncing());
  EXPECT_TRUE(before->Wait());
  EXPECT_FALSE(beside->Wait());
  log_->Probe();
  EXPECT_FALSE(log_->failed());
  EXPECT_EQ(ContentAfterKill(), (LogContent{{"before", 1}}));
}

TEST_F(WalLogTest, FailuresOfOneMinuteAreSaidOnceAndCounted) {
  ASSERT_TRUE(Start().ok());
  for (const uint64_t wait_s : {0u, 1u, 1u, 60u}) {
    clock_.Advance(wait_s * 1'000'000'000);
    if (wait_s == 60) {
      EXPECT_FALSE(Said("failures since this was said last"));
    }
    Fail(1, false);
    ASSERT_TRUE(Commit("t", 1, true)->Wait());
  }
  EXPECT_TRUE(Said("a new one is started; 3 failures since this was said last"));
}

TEST_F(WalLogTest, AFailedSegmentInWhichNothingWasAcknowledgedIsLeftOut) {
  ASSERT_TRUE(Start().ok());
  Fail(1, false);
  EXPECT_TRUE(Commit("a", 1, true)->Wait());
  EXPECT_EQ(Segments(), std::vector<uint64_t>{2});
  EXPECT_EQ(shared_.segments.load(std::memory_order_relaxed), 1u);
  EXPECT_EQ(ContentAfterKill(), (LogContent{{"a", 1}}));
}

TEST_F(WalLogTest, RefusesWhenTheNextSegmentFailsTooAndTriesAgainEverySecond) {
  ASSERT_TRUE(Start().ok());
  ASSERT_TRUE(Commit("a", 1, true)->Wait());
  const std::shared_ptr<WalCommit> written = Commit("b", 2, false);
  Fail(1, true);
  EXPECT_FALSE(Commit("c", 3, true)->Wait());
  EXPECT_FALSE(written->Wait()) << "it was never synced";
  EXPECT_TRUE(log_->failed());
  EXPECT_TRUE(shared_.failed.load(std::memory_order_relaxed));
  EXPECT_FALSE(log_->has_unsynced());
  ASSERT_FALSE(live_.calls.empty());
  EXPECT_EQ(live_.calls.back(), "hold by 1") << "what the refused records were to hold is held by the oldest segment";
  EXPECT_EQ(shared_.dropped_inserts.load(std::memory_order_relaxed), 2u);
  const uint64_t operations = disk_.operations();
  EXPECT_FALSE(Commit("d", 4, true)->Wait());
  EXPECT_EQ(disk_.operations(), operations) << "a refusal leaves the disk alone";

  EXPECT_EQ(log_->probe_at_ns(), clock_.MonotonicNs() + 1'000'000'000);
  log_->Probe();
  EXPECT_TRUE(log_->failed()) << "the disk is still broken";
  disk_.SetFaults(sim::SimDisk::Faults());
  log_->Probe();
  EXPECT_FALSE(log_->failed());
  EXPECT_TRUE(Said("the log takes records again"));
  EXPECT_TRUE(Commit("e", 5, true)->Wait());
  EXPECT_EQ(ContentAfterKill(), (LogContent{{"a", 1}, {"e", 5}}));
}

TEST_F(WalLogTest, TheOldestSegmentGoesOnlyWhenWhatLivesInItIsDurableElsewhere) {
  config_.wal_bytes_max = 4 * kSegmentBytesMin;
  ASSERT_TRUE(Start().ok());
  bool asked = false;
  log_->SetPendingSource([&] {
    std::vector<std::unique_ptr<WalGroup>> groups;
    if (!asked) groups.push_back(test::GroupOf({{"queued", 7}}));
    asked = true;
    return groups;
  });
  live_.live = {{"lives", 1}};
  for (int i = 0; i < 200 && Segments().front() == 1; ++i) Commit("filler", i, false);
  ASSERT_NE(Segments().front(), 1u) << "segment 1 was recycled";
  EXPECT_TRUE(asked) << "queued records may replace one in it";
  ASSERT_FALSE(live_.calls.empty());
  EXPECT_EQ(live_.calls[0].substr(0, 12), "collect 1 in");
  disk_.PowerCut();
  const test::Recovered recovered = test::Recover(&disk_, test::kSmallLogDirectory);
  EXPECT_FALSE(recovered.reported()) << recovered.status.message();
  EXPECT_EQ(recovered.content.count("lives"), 1u);
  EXPECT_EQ(recovered.content.count("queued"), 1u);
}

TEST_F(WalLogTest, StaysWithinItsBoundEvenIfEverythingInItLives) {
  config_.wal_bytes_max = 4 * kSegmentBytesMin;
  ASSERT_TRUE(Start().ok());
  for (int i = 0; i < 300; ++i) {
    live_.live.push_back({"live " + std::to_string(i), 1});
    Commit("filler " + std::to_string(i), i, true);
    ASSERT_LE((Segments().size() + 1) * kSegmentBytesMin, config_.wal_bytes_max);
  }
  EXPECT_GT(Segments().front(), 1u);
}

TEST_F(WalLogTest, AppendsAgainWhatDamageThreatensBeforeTheFileIsSetAside) {
  {
    HandMadeLog old(&disk_);
    old.Begin(1);
    old.Write({{"a", 1}, {"damaged"}});
    old.Write({{"b", 3}});
  }
  std::vector<std::byte> bytes = disk_.Bytes(HandMadeLog::PathOf(1));
  bytes[kSegmentDataStart + 192 + 64] ^= std::byte{1};  // the body of the removal
  disk_.SetBytes(HandMadeLog::PathOf(1), bytes);
  live_.live = {{"b", 3}};
  ASSERT_TRUE(Start().ok());
  EXPECT_EQ(live_.calls, Calls{"collect 1 into 2"});
  EXPECT_EQ(Segments(), std::vector<uint64_t>{2});
  EXPECT_FALSE(disk_.Bytes(HandMadeLog::PathOf(1) + ".quarantined").empty());
  EXPECT_TRUE(Said("is damaged and was renamed to " + HandMadeLog::PathOf(1) + ".quarantined"));
  EXPECT_EQ(ContentAfterKill(), (LogContent{{"b", 3}}));
}

// Numbers can start again, when a person has moved the segments away.
TEST_F(WalLogTest, AFileSetAsideEarlierIsNotOverwritten) {
  const std::string path = HandMadeLog::PathOf(1);
  const std::vector<std::byte> first(10, std::byte{1}), second(20, std::byte{2});
  disk_.SetBytes(path + ".quarantined", first);
  disk_.SetBytes(path + ".2.quarantined", second);
  std::vector<std::byte> damaged(kSegmentBytesMin, std::byte{3});
  disk_.SetBytes(path, damaged);
  ASSERT_TRUE(Start().ok());
  EXPECT_EQ(disk_.Bytes(path + ".quarantined"), first);
  EXPECT_EQ(disk_.Bytes(path + ".2.quarantined"), second);
  EXPECT_EQ(disk_.Bytes(path + ".3.quarantined"), damaged);
  EXPECT_TRUE(Said(path + ".3.quarantined"));
  EXPECT_EQ(Segments(), std::vector<uint64_t>{2});
}

TEST_F(WalLogTest, ADiskThatKeepsAFileCostsTheBoundNotTheLog) {
  config_.wal_bytes_max = 4 * kSegmentBytesMin;
  ASSERT_TRUE(Start().ok());
  std::shared_ptr<WalCommit> last;
  for (int i = 0; i < 100; ++i) {
    // Another program removes the first segment: the log cannot remove it when it is due.
    if (i == 5) {
      ASSERT_TRUE(disk_.Unlink(HandMadeLog::PathOf(1)).ok());
    }
    last = Commit("filler", i, true);
  }
  EXPECT_TRUE(last->Wait());
  EXPECT_FALSE(log_->failed());
  EXPECT_TRUE(Said("the log stays larger than its bound"));
}

TEST_F(WalLogTest, OnceTheLogGoesRoundNoNewFileIsMade) {
  config_.wal_bytes_max = 8 * kSegmentBytesMin;
  for (const bool sync : {true, false}) {
    ASSERT_TRUE(Start().ok());
    Fill(12, sync);
    const int allocations = disk_.allocations;
    const uint64_t before = Segments().back();
    disk_.SetCapacity(0);
    for (int i = 0; i < 20 * static_cast<int>(kGroupsPerSegment); ++i) {
      if (i % 3 == 0) live_.live.push_back({"live " + std::to_string(i), 1});
      Commit("filler", i, sync);
      ASSERT_LE((Segments().size() + 1) * kSegmentBytesMin, config_.wal_bytes_max);
    }
    EXPECT_EQ(disk_.allocations, allocations);
    EXPECT_GT(Segments().back(), before + 20);
    EXPECT_TRUE(WrittenOver(Segments().back()));
    EXPECT_TRUE(std::none_of(live_.calls.begin(), live_.calls.end(),
                             [](const std::string& call) { return call.substr(0, 5) == "evict"; }));
    EXPECT_TRUE(lines_.empty()) << lines_[0];
    disk_.SetCapacity(UINT64_MAX);
    log_.reset();
    EXPECT_EQ(ContentAfterKill().count("filler"), 1u);
  }
}

TEST_F(WalLogTest, ASegmentIsLetGoBeforeItIsRemoved) {
  config_.wal_bytes_max = 8 * kSegmentBytesMin;
  std::set<uint64_t> let_go;
  live_.on_let_go = [&](uint64_t through) {
    const std::vector<uint64_t> there = Segments();
    EXPECT_EQ(std::count(there.begin(), there.end(), through), 1) << "segment " << through;
    let_go.insert(through);
  };
  ASSERT_TRUE(Start().ok());
  Fill(20, true);
  ASSERT_GT(Segments().front(), 10u);
  for (uint64_t gone = 1; gone < Segments().front(); ++gone) EXPECT_EQ(let_go.count(gone), 1u) << "segment " << gone;
}

// The power goes at any operation, with nothing else to make names durable than the beginning of segments.
TEST_F(WalLogTest, AFileIsNotWrittenOverBeforeItIsDurablyNoSegmentAnyMore) {
  config_.wal_bytes_max = 4 * kSegmentBytesMin;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    TracingDisk disk(seed);
    ASSERT_TRUE(disk.MakeDirectory(test::kSmallLogDirectory).ok());
    WalLog log(&disk, &clock_, &live_, &shared_, config_);
    ASSERT_TRUE(log.Start(test::Recover(&disk, test::kSmallLogDirectory).plan).ok());
    const auto fill = [&](uint64_t segments) {
      for (uint64_t i = 0; i < segments * kGroupsPerSegment; ++i) {
        std::vector<std::unique_ptr<WalGroup>> groups;
        groups.push_back(test::GroupOf({{"filler", static_cast<int>(i)}}));
        log.Commit(std::move(groups));
      }
    };
    fill(6);
    ASSERT_FALSE(disk.renames.from.empty());
    sim::SimDisk::Faults faults;
    faults.power_off_at = 1 + seed % 50;
    disk.SetFaults(faults);
    fill(4);
    disk.PowerCut();
    const test::Recovered recovered = test::Recover(&disk, test::kSmallLogDirectory);
    ASSERT_FALSE(recovered.reported()) << "seed " << seed << ": " << recovered.status.message();
    ASSERT_EQ(recovered.content.count("filler"), 1u) << "seed " << seed;
  }
}

TEST_F(WalLogTest, AFileIsNotWrittenOverAfterASyncOfItsDirectoryFailed) {
  config_.wal_bytes_max = 4 * kSegmentBytesMin;
  ASSERT_TRUE(Start().ok());
  Fill(6, false);
  const size_t reused = disk_.renames.from.size();
  Fill(2, false);
  ASSERT_GT(disk_.renames.from.size(), reused);
  const uint64_t before = Segments().back();
  ASSERT_TRUE(WrittenOver(before));
  disk_.fail_directory_sync = true;
  Fill(1, false);
  ASSERT_FALSE(disk_.fail_directory_sync);
  EXPECT_FALSE(log_->failed());
  EXPECT_EQ(Segments().back(), before + 1);
  EXPECT_FALSE(WrittenOver(before + 1));
}

// Writes of the engine that ended may still be in flight.
TEST_F(WalLogTest, SegmentsOfAnEngineThatEndedAreRemovedNotWrittenOver) {
  config_.wal_bytes_max = 6 * kSegmentBytesMin;
  ASSERT_TRUE(Start().ok());
  Fill(3, true);
  log_.reset();
  disk_.ProcessKill();
  const uint64_t last = Segments().back();
  disk_.renames = {};
  ASSERT_TRUE(Start().ok());
  Fill(30, true);
  EXPECT_GT(Segments().front(), last);
  ASSERT_GT(disk_.renames.from.size(), 10u);
  EXPECT_GT(disk_.renames.from.front(), last);
}

TEST_F(WalLogTest, AFailedSegmentIsRemovedNotWrittenOver) {
  config_.wal_bytes_max = 6 * kSegmentBytesMin;
  ASSERT_TRUE(Start().ok());
  Fill(2, true);
  Commit("synced", 1, true);
  const uint64_t failed = Segments().back();
  Fail(1, false);
  Commit("fails", 1, true);
  ASSERT_TRUE(Said("the log failed at segment " + std::to_string(failed)));
  Fill(30, true);
  EXPECT_GT(Segments().front(), failed);
  const std::vector<uint64_t>& from = disk_.renames.from;
  EXPECT_EQ(std::count(from.begin(), from.end(), failed), 0);
  EXPECT_EQ(std::count(from.begin(), from.end(), failed - 1), 1);
  EXPECT_EQ(std::count(from.begin(), from.end(), failed + 1), 1);
}

}  // namespace
}  // namespace sutra
