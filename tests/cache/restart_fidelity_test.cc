// A restart gives back what was there: after any history and a kill, a power cut or a clean stop, the set of texts that
// the shard answers, with their vectors, lengths, tokens and remaining lifetimes, equals the one before (P1, P2). The
// store is full all the time, so entries leave in every way: evicted by count or by bytes, expired, removed, replaced.
//   SUTRA_SEED=n runs one history; SUTRA_FIDELITY_RUNS=n sets how many are run.
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <set>
#include <thread>

#include "cache/disk/disk_io.h"
#include "tests/cache/random_history.h"
#include "tests/kit/by_build.h"
#include "tests/kit/temp_dir.h"
#include "tests/sim/sim_disk.h"

namespace sutra::test {
namespace {

using sim::SimDisk;

constexpr uint64_t kRunsDefault = ByBuild(60, 6, 2);

// What the histories of a test have done, so that one which no longer does it is noticed.
struct Done {
  uint64_t evictions = 0, by_count = 0, expirations = 0, log_bytes = 0, log_bound = 0, entries = 0, lives = 0,
           passed_over = 0, indexed = 0, unread = 0;

  void Add(const CacheStats& stats, const CacheConfig& config, bool count) {
    evictions += stats.evictions;
    if (count) by_count += stats.evictions;
    expirations += stats.expirations;
    log_bytes += stats.wal_bytes;
    log_bound += config.wal_bytes_max;
    entries += stats.entries;
    ++lives;
  }
  void Check(uint64_t runs, bool full) const {
    std::printf(
        "%llu histories, %llu lives: %llu entries each, %llu evictions, %llu by count, %llu expirations, the "
        "log went round %.1f times each\n",
        static_cast<unsigned long long>(runs), static_cast<unsigned long long>(lives),
        static_cast<unsigned long long>(entries / lives), static_cast<unsigned long long>(evictions),
        static_cast<unsigned long long>(by_count), static_cast<unsigned long long>(expirations),
        static_cast<double>(log_bytes) / static_cast<double>(log_bound));
    EXPECT_LE(passed_over, lives / 2);
    EXPECT_GT(indexed, 0u);
    if (runs < 50 || !full) return;
    EXPECT_GT(by_count, 100u);
    EXPECT_GT(evictions - by_count, 100u);
    EXPECT_GT(expirations, 10u);
    EXPECT_GT(log_bytes, log_bound);
  }
};

// How a life ends, and what must be true before so that nothing may be missing.
enum class End { kKillOfWritten, kKillOfSynced, kPowerCutOfSynced, kCleanStop };

enum class Room {
  kForAll,       // nothing is evicted
  kFullStore,    // the log's bound is twice the memory's, with enough segments not to evict anything for it
  kFullLogAlso,  // the log evicts too, at a start as well, since that takes a segment
};

class SimulatedLives {
 public:
  SimulatedLives(uint64_t seed, Room room, Done* done)
      : history_(seed), disk_(seed), room_(room), lazy_(seed % 2 == 0), done_(done) {
    if (room == Room::kForAll) history_.MakeRoom();
    if (room == Room::kFullLogAlso) history_.TightenLog();
  }

  std::string Run(bool threaded) {
    EntrySet before;
    const uint64_t lives = 2 + history_.Random(3);
    for (uint64_t life = 0; life <= lives; ++life) {
      if (std::string failure = Open(threaded); !failure.empty()) return failure;
      done_->indexed += shard_->Stats().recovered_indexed;
      done_->unread += shard_->Stats().unread_entries;
      const EntrySet found = Found(threaded);
      if (shard_->Stats().recovered_dropped != 0) return "a record is not what its index says";
      Difference difference = Compare(before, found);
      // At its bound the log evicts for the segment that a start takes. Writers without pauses bring it there too.
      if ((threaded || room_ == Room::kFullLogAlso) && difference.missing <= shard_->Stats().wal_evictions) {
        difference.missing = 0;
        before = found;
      }
      if (!comparable_) {
        before = found;
        ++done_->passed_over;
      } else if (!difference.none()) {
        return "start " + std::to_string(life) + ": " + difference.Text() + after_ + "; " +
               std::to_string(shard_->Stats().wal_evictions) + " evicted by the log during the start";
      }
      if (life == lives) return threaded || room_ == Room::kFullLogAlso ? "" : CheckLifetimes(before);
      threaded ? StepOnThreads() : StepHere();
      if (std::string failure = EndLife(threaded, &before); !failure.empty()) return failure;
    }
    return "";
  }

 private:
  // What the start has found. Asking for it would leave nothing unread, so that another one on a copy is asked.
  EntrySet Found(bool threaded) {
    if (threaded || !lazy_) return EntriesOf(shard_.get(), history_.keys());
    return copy_found_;
  }

  std::string Open(bool threaded) {
    LoggedShard::Options options = Inline();
    options.threaded = threaded;
    options.load_at_open = !lazy_;
    const std::unique_ptr<SimDisk> copy = threaded || !lazy_ ? nullptr : disk_.Copy();
    Result<std::unique_ptr<LoggedShard>> shard =
        LoggedShard::Open(history_.config(), &disk_, &history_.clock(), options);
    if (!shard.ok()) return "start refused: " + shard.status().message();
    shard_ = std::move(shard).value();
    if (copy == nullptr) return "";
    options.load_at_open = true;
    const Result<std::unique_ptr<LoggedShard>> other =
        LoggedShard::Open(history_.config(), copy.get(), &history_.clock(), options);
    if (!other.ok()) return "start on a copy refused: " + other.status().message();
    copy_found_ = EntriesOf(other->get(), history_.keys());
    return "";
  }

  void StepHere() {
    const uint64_t steps = history_.Random(2500);
    for (uint64_t step = 0; step < steps; ++step) {
      history_.Step(shard_.get(), &history_.random());
      shard_->Turn();
    }
  }

  void StepOnThreads() {
    constexpr uint64_t kThreads = 3;
    const uint64_t seed = history_.random()();
    const uint64_t steps = history_.Random(1200);
    std::vector<std::thread> threads;
    for (uint64_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        std::mt19937_64 random(seed + t);
        constexpr uint64_t kShare = RandomHistory::kKeys / kThreads;
        bool synced = true;
        for (uint64_t i = 0; i < steps; ++i) {
          history_.Step(shard_.get(), &random, t * kShare, kShare);
          if (i % 10 == 0) synced = shard_->Sync().ok() && synced;  // or the log's recycling is overtaken at once
        }
        EXPECT_TRUE(synced);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  std::string EndLife(bool threaded, EntrySet* before) {
    auto end = static_cast<End>(history_.Random(4));
    if (end == End::kKillOfWritten && threaded) end = End::kKillOfSynced;
    if (end == End::kKillOfWritten) {
      history_.clock().Advance(60'000'000);
      shard_->Turn();
      if (shard_->Stats().wal_pending_records != 0) return "not written after 60 ms";
    } else if (Status synced = shard_->Sync(); !synced.ok()) {
      return "not synced: " + synced.message();
    }
    const uint64_t log_evictions = shard_->Stats().wal_evictions;
    *before = EntriesOf(shard_.get(), history_.keys());
    const CacheStats stats = shard_->Stats();
    done_->Add(stats, history_.config(), history_.by_count());
    if (stats.wal_dropped_inserts != 0) return "the log has dropped inserts";
    if (end != End::kCleanStop) {
      SimDisk::Faults dead;
      dead.power_off_at = 1;
      disk_.SetFaults(dead);
    }
    // Behind a Sync the log's thread may still be evicting what no longer fits: then the set was taken too early.
    shard_->Close();
    comparable_ = shard_->Stats().wal_evictions == log_evictions;
    shard_.reset();
    end == End::kPowerCutOfSynced ? disk_.PowerCut() : disk_.ProcessKill();
    const char* const ends[] = {" (a kill of what was written", " (a kill", " (a power cut", " (a clean stop"};
    after_ = std::string(ends[static_cast<int>(end)]) + ", " + std::to_string(before->size()) + " entries before, " +
             std::to_string(stats.evictions) + " evictions, " + std::to_string(stats.wal_evictions) +
             " of them by the log)";
    std::string failure = history_.CheckCalls();
    return failure.empty() ? RandomHistory::CheckAnswers(*before) : failure;
  }

  // As time passes, entries go when they would have gone without the restart.
  std::string CheckLifetimes(const EntrySet& before) {
    for (const uint64_t seconds : {1, 2, 5, 300, 400, 3600, 3600, 86'400}) {
      history_.clock().Advance(seconds * 1'000'000'000);
      shard_->Turn();
      const EntrySet left = EntriesOf(shard_.get(), history_.keys());
      const Difference difference = Compare(history_.Unexpired(before), left);
      if (!difference.none()) return "lifetimes: " + difference.Text();
    }
    return "";
  }

  RandomHistory history_;
  SimDisk disk_;
  const Room room_;
  const bool lazy_;  // entries are read when they are asked for
  EntrySet copy_found_;
  Done* const done_;
  std::unique_ptr<LoggedShard> shard_;
  std::string after_;
  bool comparable_ = true;
};

void RunHistories(bool threaded, uint64_t runs, Room room = Room::kFullStore) {
  const uint64_t only = NumberFromEnvironment("SUTRA_SEED", 0);
  const uint64_t first = only != 0 ? only : 1;
  const uint64_t last = only != 0 ? only : runs;
  Done done;
  for (uint64_t seed = first; seed <= last; ++seed) {
    ASSERT_EQ(SimulatedLives(seed, room, &done).Run(threaded), "") << "SUTRA_SEED=" << seed;
    if (seed % 1000 == 0) std::printf("%llu histories\n", static_cast<unsigned long long>(seed));
  }
  done.Check(last - first + 1, room != Room::kForAll);
}

uint64_t Runs(uint64_t otherwise = kRunsDefault) { return NumberFromEnvironment("SUTRA_FIDELITY_RUNS", otherwise); }

TEST(RestartFidelity, TheSetOfEntriesEqualsTheOneBefore) { RunHistories(false, Runs()); }

TEST(RestartFidelity, TheSameWithRoomForAll) { RunHistories(false, Runs() / 2, Room::kForAll); }

TEST(RestartFidelity, TheSameWithWritersOnThreadsOfTheirOwn) { RunHistories(true, Runs(ByBuild(60, 6, 6)) / 2); }

// What the log evicts at its bound is evicted for good.
TEST(RestartFidelity, NothingReturnsThatAFullLogHasEvicted) { RunHistories(false, Runs(), Room::kFullLogAlso); }

// What a kill leaves of a directory, but for the reserve that is being prepared. The log may still be removing segments
// after a Sync: the copy is made again until nothing has changed meanwhile.
void CopyFiles(const std::string& from, const std::string& to) {
  namespace fs = std::filesystem;
  const auto names = [&] {
    std::set<fs::path> paths;
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(from)) {
      if (entry.path().extension() != ".tmp") paths.insert(entry.path());
    }
    return paths;
  };
  std::set<fs::path> before;
  do {
    before = names();
    fs::remove_all(to);
    for (const fs::path& path : before) {
      const fs::path target = to / path.lexically_relative(from);
      std::error_code gone;
      if (fs::is_directory(path, gone)) {
        fs::create_directories(target);
      } else {
        fs::create_directories(target.parent_path());
        fs::copy_file(path, target, gone);
      }
    }
  } while (names() != before);
}

TEST(RestartFidelity, TheSameOnRealFiles) {
  const uint64_t seed = TestSeed(7);
  for (const DiskIoKind kind : {DiskIoKind::kAuto, DiskIoKind::kPosix}) {
    const TempDir temp;
    RandomHistory history(seed);
    EntrySet before;
    for (int life = 0; life < 4; ++life) {
      history.config().directory = temp / std::to_string(life);  // what the last life has left
      std::unique_ptr<DiskIo> io = MakeDiskIo(kind, history.config().directory, {}).value();
      Result<std::unique_ptr<CacheShard>> opened = CacheShard::Open(history.config(), io.get(), &history.clock());
      ASSERT_TRUE(opened.ok()) << opened.status().message();
      CacheShard* shard = opened->get();
      ASSERT_EQ(Compare(before, EntriesOf(shard, history.keys())).Text(), "") << "start " << life;
      for (int step = 0; step < 800; ++step) history.Step(shard, &history.random());
      ASSERT_TRUE(shard->Sync().ok());
      // At its bound the log may still be evicting, too.
      do {
        before = EntriesOf(shard, history.keys());
        CopyFiles(history.config().directory, temp / std::to_string(life + 1));
      } while (EntriesOf(shard, history.keys()) != before);
      ASSERT_EQ(RandomHistory::CheckAnswers(before), "");
    }
  }
}

// With few keys the set can be taken after every call. What a power cut in the middle of a call leaves lies between two
// sets that followed each other, at or after the last one that was synced.
std::string CutInTheMiddle(uint64_t seed, uint64_t entries_max) {
  RandomHistory history(seed);
  CacheConfig config = history.config();
  config.entries_max = entries_max;
  SimDisk disk(seed);
  const std::vector<TextKey> keys(history.keys().begin(), history.keys().begin() + 40);
  std::vector<EntrySet> sets;
  for (int life = 0; life < 4; ++life) {
    Result<std::unique_ptr<LoggedShard>> shard = LoggedShard::Open(config, &disk, &history.clock(), Inline());
    if (!shard.ok()) return "start refused: " + shard.status().message();
    const EntrySet found = EntriesOf(shard->get(), keys);
    bool between = sets.empty();
    for (size_t i = 0; i < sets.size() && !between; ++i) {
      between = IsBetween(found, sets[i], sets[std::min(i + 1, sets.size() - 1)]);
    }
    if (!between) {
      return "start " + std::to_string(life) + ": none of the last " + std::to_string(sets.size()) +
             " sets; from the last one: " + Compare(sets.back(), found).Text();
    }
    sets = {found};
    SimDisk::Faults faults;
    faults.power_off_at = 1 + history.Random(120);
    disk.SetFaults(faults);
    for (uint64_t step = history.Random(150); step > 0 && !(*shard)->Stats().storage_failed; --step) {
      const TextKey& key = keys[history.Random(keys.size())];
      const uint64_t kind = history.Random(20);
      bool durable = false;
      if (kind < 14) {
        const auto version = static_cast<uint32_t>(1 + history.Random(1000));
        const Answer answer = RandomHistory::AnswerOf(key, version);
        (*shard)->Insert(key.first, key.second, answer.vector, CacheValue{answer.norm, answer.tokens, answer.truncated},
                         0);
      } else if (kind < 16) {
        durable = (*shard)->Erase(key.first, key.second).ok();
      } else if (kind < 17) {
        durable = (*shard)->Sync().ok();
      } else {
        history.clock().Advance(history.Random(80) * 1'000'000);
        (*shard)->Turn();
      }
      if ((*shard)->Stats().storage_failed || (*shard)->Stats().wal_dropped_inserts != 0) break;
      if (durable) sets.clear();
      sets.push_back(EntriesOf(shard->get(), keys));
    }
    if (sets.empty() || disk.operations() >= faults.power_off_at) sets.push_back(EntriesOf(shard->get(), keys));
    SimDisk::Faults dead;
    dead.power_off_at = 1;
    disk.SetFaults(dead);
    shard->reset();
    disk.PowerCut();
  }
  return "";
}

void CutAll(uint64_t entries_max) {
  const uint64_t only = NumberFromEnvironment("SUTRA_SEED", 0);
  const uint64_t first = only != 0 ? only : 1;
  const uint64_t last = only != 0 ? only : 10 * Runs();
  for (uint64_t seed = first; seed <= last; ++seed) {
    ASSERT_EQ(CutInTheMiddle(seed, entries_max), "") << "SUTRA_SEED=" << seed;
  }
}

TEST(RestartFidelity, APowerCutInTheMiddleLeavesASetThatWasThere) { CutAll(12); }
TEST(RestartFidelity, TheSameCutsWithRoomForAll) { CutAll(1000); }

// The checks notice an entry too few, one too many and one that is another.
TEST(RestartFidelity, CanaryEveryKindOfDifferenceIsNoticed) {
  RandomHistory history(1);
  SimDisk disk;
  const auto put = [&](LoggedShard* shard, size_t number, uint32_t version) {
    const TextKey& key = history.keys()[number];
    const Answer answer = RandomHistory::AnswerOf(key, version);
    shard->Insert(key.first, key.second, answer.vector, CacheValue{answer.norm, answer.tokens, answer.truncated}, 0);
  };
  EntrySet before;
  {
    std::unique_ptr<LoggedShard> shard = LoggedShard::Open(history.config(), &disk, &history.clock(), Inline()).value();
    for (size_t number = 0; number < 8; ++number) put(shard.get(), number, 1);
    before = EntriesOf(shard.get(), history.keys());
    ASSERT_EQ(before.size(), 8u);
    put(shard.get(), 0, 2);
    put(shard.get(), 8, 1);
    ASSERT_TRUE(shard->Erase(history.keys()[1].first, history.keys()[1].second).ok());
  }
  disk.ProcessKill();
  const std::unique_ptr<LoggedShard> shard =
      LoggedShard::Open(history.config(), &disk, &history.clock(), Inline()).value();
  const EntrySet after = EntriesOf(shard.get(), history.keys());
  const Difference difference = Compare(before, after);
  EXPECT_EQ(difference.missing, 1u);
  EXPECT_EQ(difference.returned, 1u);
  EXPECT_EQ(difference.changed, 1u);
  EXPECT_FALSE(IsBetween(after, before, before));
  EntrySet wrong = after;
  wrong.begin()->second.vector[0] += 1;
  EXPECT_NE(RandomHistory::CheckAnswers(wrong), "");
}

}  // namespace
}  // namespace sutra::test
