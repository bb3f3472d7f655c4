// A start by the indexes of the log, whose entries are read when they are asked for, finds what a start by the records
// finds (P1, P3, P5), whatever happened meanwhile: kills, power cuts and clean stops while entries were unread, a clock
// that was set, other bounds, other sizes of segments.
//   SUTRA_SEED=n runs one history; SUTRA_INDEX_RUNS=n sets how many are run.
#include <gtest/gtest.h>

#include <memory>

#include "tests/cache/random_history.h"
#include "tests/sim/sim_disk.h"

namespace sutra::test {
namespace {

using sim::SimDisk;

#if defined(SUTRA_SANITIZE)
constexpr uint64_t kRunsDefault = 6;
#else
constexpr uint64_t kRunsDefault = 60;
#endif

struct Reached {
  uint64_t indexed = 0, unread = 0, left_unread = 0, entries = 0;
};

class IndexedLives {
 public:
  IndexedLives(uint64_t seed, Reached* reached) : history_(seed), disk_(seed), reached_(reached) {
    if (history_.Random(2) == 0) history_.MakeRoom();
  }

  std::string Run() {
    for (uint64_t life = 0; life < 6; ++life) {
      if (std::string difference = StartBothWays(); !difference.empty()) {
        return "start " + std::to_string(life) + ": " + difference;
      }
      Result<std::unique_ptr<LoggedShard>> shard = Open(&disk_, false);
      if (!shard.ok()) return "start refused: " + shard.status().message();
      // Some lives end before anybody has asked for much.
      const uint64_t steps = history_.Random(3) == 0 ? history_.Random(20) : history_.Random(1500);
      for (uint64_t step = 0; step < steps; ++step) {
        history_.Step(shard->get(), &history_.random());
        (*shard)->Turn();
      }
      reached_->left_unread += (*shard)->Stats().unread_entries;
      EndLife(std::move(shard).value());
      ChangeWhatTheNextStartFinds();
    }
    return "";
  }

 private:
  Result<std::unique_ptr<LoggedShard>> Open(SimDisk* disk, bool by_records) {
    LoggedShard::Options options = Inline();
    options.load_at_open = false;
    CacheConfig config = history_.config();
    config.strict_recovery = by_records;  // it reads every record
    return LoggedShard::Open(config, disk, &history_.clock(), options);
  }

  void EndLife(std::unique_ptr<LoggedShard> shard) {
    const uint64_t end = history_.Random(3);
    if (end != 0) {
      SimDisk::Faults dead;
      dead.power_off_at = 1;
      disk_.SetFaults(dead);
    }
    shard.reset();
    end == 1 ? disk_.PowerCut() : disk_.ProcessKill();
  }

  void ChangeWhatTheNextStartFinds() {
    CacheConfig& config = history_.config();
    switch (history_.Random(6)) {
      case 0: config.entries_max = 20 + history_.Random(300); break;
      case 1: config.bytes_max = (64 + history_.Random(1024)) << 10; break;
      case 2: config.wal_segment_bytes = (history_.Random(2) == 0 ? 240 : 480) << 10; break;
      case 3: SetClock(-static_cast<int64_t>(history_.Random(7200))); break;
      case 4: SetClock(static_cast<int64_t>(history_.Random(7200))); break;
      default: break;
    }
    config.wal_bytes_max = 32 * config.wal_segment_bytes;
  }
  void SetClock(int64_t seconds) {
    sim::ManualClock& clock = history_.clock();
    clock.SetWall(clock.WallNs() + static_cast<uint64_t>(seconds * 1'000'000'000));
  }

  // On copies of the disk, and some time later, too.
  std::string StartBothWays() {
    const std::unique_ptr<SimDisk> copy = disk_.Copy(), other_copy = disk_.Copy();
    Result<std::unique_ptr<LoggedShard>> by_index = Open(copy.get(), false), by_records = Open(other_copy.get(), true);
    if (!by_index.ok() || !by_records.ok()) {
      return "refused: " + by_index.status().message() + by_records.status().message();
    }
    reached_->indexed += (*by_index)->Stats().recovered_indexed;
    reached_->unread += (*by_index)->Stats().unread_entries;
    if ((*by_records)->Stats().recovered_indexed != 0) return "a strict start has believed an index";
    const uint64_t wall_ns = history_.clock().WallNs();
    for (const uint64_t seconds : {0, 3, 700, 5000}) {
      history_.clock().Advance(seconds * 1'000'000'000);
      (*by_index)->Turn();
      (*by_records)->Turn();
      const EntrySet found = EntriesOf(by_index->get(), history_.keys());
      const Difference difference = Compare(EntriesOf(by_records->get(), history_.keys()), found);
      if (!difference.none()) return std::to_string(seconds) + " s later: " + difference.Text();
      if (std::string wrong = RandomHistory::CheckAnswers(found); !wrong.empty()) return wrong;
      reached_->entries += found.size();
    }
    history_.clock().SetWall(wall_ns);
    if ((*by_index)->Stats().recovered_dropped != 0) return "a record is not what its index says";
    return "";
  }

  RandomHistory history_;
  SimDisk disk_;
  Reached* const reached_;
};

TEST(IndexRestart, FindsWhatAStartByTheRecordsFinds) {
  const uint64_t only = NumberFromEnvironment("SUTRA_SEED", 0);
  const uint64_t first = only != 0 ? only : 1;
  const uint64_t last = only != 0 ? only : NumberFromEnvironment("SUTRA_INDEX_RUNS", kRunsDefault);
  Reached reached;
  for (uint64_t seed = first; seed <= last; ++seed) {
    ASSERT_EQ(IndexedLives(seed, &reached).Run(), "") << "SUTRA_SEED=" << seed;
  }
  std::printf("%llu segments read by their index, %llu entries unread then, %llu when their life ended\n",
              static_cast<unsigned long long>(reached.indexed), static_cast<unsigned long long>(reached.unread),
              static_cast<unsigned long long>(reached.left_unread));
  if (only != 0) return;
  EXPECT_GT(reached.indexed, last - first);
  EXPECT_GT(reached.left_unread, 0u);
  EXPECT_GT(reached.entries, 0u);
}

class Unread : public testing::Test {
 protected:
  static constexpr uint32_t kTexts = 600;

  void SetUp() override {
    config_.wal_bytes_max = 24 * config_.wal_segment_bytes;
    Start();
    for (uint32_t i = 0; i < kTexts; ++i) {
      Put(shard_.get(), TextOf(i), i, i % 10 == 9 ? 500 : 0);
      if (i % 4 == 3) Pass(60'000'000);  // a block for four: no segment holds more than the log can write again
    }
    Stop();
    Start();
    ASSERT_GT(shard_->Stats().recovered_indexed, 2u);
    ASSERT_EQ(shard_->Stats().unread_entries, kTexts);
  }
  static std::string TextOf(uint32_t i) { return "text " + std::to_string(i); }
  void Start() {
    LoggedShard::Options options = Inline();
    options.load_at_open = false;
    Result<std::unique_ptr<LoggedShard>> shard = LoggedShard::Open(config_, &disk_, &clock_, options);
    ASSERT_TRUE(shard.ok()) << shard.status().message();
    shard_ = std::move(shard).value();
  }
  void Stop() { shard_.reset(); }
  void Kill() {
    SimDisk::Faults dead;
    dead.power_off_at = 1;
    disk_.SetFaults(dead);
    shard_.reset();
    disk_.ProcessKill();
  }
  void Pass(uint64_t ns) {
    clock_.Advance(ns);
    shard_->Turn();
  }
  int Find(uint32_t i) { return VersionOf(shard_.get(), TextOf(i)); }

  SimDisk disk_;
  sim::ManualClock clock_;
  CacheConfig config_ = SmallConfig("/data");
  std::unique_ptr<LoggedShard> shard_;
};

TEST_F(Unread, AnEntryThatIsRemovedBeforeItIsReadStaysRemoved) {
  ASSERT_TRUE(shard_->Erase(TextOf(3), 0).ok());
  EXPECT_EQ(Find(3), -1);
  EXPECT_EQ(shard_->Stats().unread_entries, kTexts - 1);
  Kill();
  Start();
  EXPECT_EQ(Find(3), -1);
  EXPECT_EQ(Find(4), 4);
}

TEST_F(Unread, AnEntryThatIsReplacedBeforeItIsReadStaysReplaced) {
  Put(shard_.get(), TextOf(3), 1003);
  EXPECT_EQ(shard_->Stats().unread_entries, kTexts - 1);
  ASSERT_TRUE(shard_->Sync().ok());
  Kill();
  Start();
  EXPECT_EQ(Find(3), 1003);
}

TEST_F(Unread, OneThatExpiresBeforeItIsReadIsNotFoundAndNotRead) {
  Pass(501'000'000'000);
  const uint64_t reads = disk_.read_cost().calls;
  EXPECT_EQ(Find(9), -1);
  EXPECT_EQ(disk_.read_cost().calls, reads);
  EXPECT_EQ(Find(8), 8);
}

TEST_F(Unread, StartsThatAreKilledBeforeAnythingIsReadLoseNothingAndKeepTheLogAsItIs) {
  const uint64_t segments = shard_->Stats().wal_segments;
  for (uint32_t start = 0; start < 8; ++start) {
    EXPECT_EQ(Find(100 + start), static_cast<int>(100 + start));
    if (start % 2 == 0) {
      Kill();
    } else {
      Stop();
    }
    Start();
    EXPECT_EQ(shard_->Stats().wal_segments, segments);
    EXPECT_EQ(shard_->Stats().unread_entries, kTexts);
  }
  for (uint32_t i = 0; i < kTexts; ++i) ASSERT_EQ(Find(i), static_cast<int>(i));
}

TEST_F(Unread, TheLogGoesRoundAndWhatWasUnreadIsStillThere) {
  for (uint32_t i = 0; shard_->Stats().unread_entries > 0; ++i) {
    ASSERT_LT(i, 20'000u);
    Put(shard_.get(), "other " + std::to_string(i % 50), i);
    if (i % 20 == 0) Pass(1'000'000);
  }
  EXPECT_EQ(shard_->Stats().recovered_dropped, 0u);
  EXPECT_EQ(shard_->Stats().wal_evictions, 0u);
  for (uint32_t i = 0; i < kTexts; ++i) ASSERT_EQ(Find(i), static_cast<int>(i));
  ASSERT_TRUE(shard_->Sync().ok());
  Kill();
  Start();
  for (uint32_t i = 0; i < kTexts; ++i) ASSERT_EQ(Find(i), static_cast<int>(i));
}

TEST_F(Unread, WhileTheDirectoryIsAwayAnEntryIsMissedAndComesBackWithIt) {
  std::vector<std::string> moved;
  for (const std::string& path : disk_.Paths()) {
    if (path.find("/wal-") == std::string::npos) continue;
    ASSERT_TRUE(disk_.Rename(path, path + ".away").ok());
    moved.push_back(path);
  }
  ASSERT_GT(moved.size(), 2u);
  EXPECT_EQ(Find(3), -1);
  EXPECT_EQ(Find(4), -1);
  Put(shard_.get(), TextOf(4), 1004);
  EXPECT_EQ(Find(4), 1004) << "computed again";
  for (const std::string& path : moved) ASSERT_TRUE(disk_.Rename(path + ".away", path).ok());
  EXPECT_EQ(Find(3), 3);
  EXPECT_EQ(Find(4), 1004);
  EXPECT_EQ(shard_->Stats().recovered_dropped, 0u);
}

}  // namespace
}  // namespace sutra::test
