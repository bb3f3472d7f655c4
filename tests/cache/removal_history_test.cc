// Random histories of inserts, hits, removals of every kind, compactions and restarts, against an oracle that knows of
// every entry its version, its age, and whether it was hit: previews count what it counts, removals take out what it
// takes out, and whatever way a life ends, the next one has what it has.
//   SUTRA_SEED=n runs one history; SUTRA_HISTORY_RUNS=n sets how many are run.
#include <map>
#include <random>

#include "tests/cache/admin_fixture.h"
#include "tests/kit/by_build.h"

namespace sutra::test {
namespace {

constexpr uint64_t kRunsDefault = ByBuild(1000, 100, 20);
constexpr uint64_t kSecond = 1'000'000'000;

struct Done {
  uint64_t removed = 0, filters = 0, everything = 0, compactions = 0, restarts = 0, kills = 0, unread = 0, stale = 0;
};

class History {
 public:
  History(uint64_t seed, Done* done) : random_(seed), disk_(seed), done_(done) {
    config_ = SmallConfig("/data");
    config_.wal_bytes_max = Random(2) == 0 ? 2 << 20 : 512 << 10;
    config_.interval_bytes_max = 32 << 10;
    const DurabilityPolicy policies[] = {DurabilityPolicy::kInterval, DurabilityPolicy::kGroup,
                                         DurabilityPolicy::kSync};
    config_.policy = policies[Random(3)];
    config_.observer = &observer_;
    options_ = Inline();
    options_.load_at_open = Random(2) == 0;
  }

  std::string Run() {
    Open();
    const uint64_t steps = 30 + Random(120);
    for (uint64_t step = 0; step < steps && failure_.empty(); ++step) Step();
    if (failure_.empty()) Restart();
    shard_.reset();
    return failure_;
  }

 private:
  struct Entry {
    uint32_t version = 0;
    uint64_t inserted_ns = 0, expires_ns = 0;
    bool hit = false;
  };

  uint64_t Random(uint64_t below) { return std::uniform_int_distribution<uint64_t>(0, below - 1)(random_); }
  std::string RandomText() {
    const uint64_t number = Random(60);
    return "text " + std::to_string(number) +
           std::string(number % 5 == 0 ? 900 : 3, static_cast<char>('a' + number % 4));
  }
  void Expect(bool holds, const std::string& what) {
    if (!holds && failure_.empty()) failure_ = what;
  }
  void Equal(uint64_t is, uint64_t should, const std::string& what) {
    Expect(is == should, what + " is " + std::to_string(is) + ", not " + std::to_string(should));
  }

  void Open() {
    Result<std::unique_ptr<LoggedShard>> shard = LoggedShard::Open(config_, &disk_, &clock_, options_);
    Expect(shard.ok(), shard.status().message());
    if (!shard.ok()) return;
    shard_ = std::move(shard).value();
    done_->unread += shard_->Stats().unread_entries;
  }

  void Step() {
    const uint64_t kind = Random(100);
    if (kind < 40) {
      Insert(RandomText(), false);
    } else if (kind < 60) {
      Hit(RandomText());
    } else if (kind < 68) {
      Erase(RandomText());
    } else if (kind < 82) {
      RemoveByFilter();
    } else if (kind < 83) {
      Remove(kEverything);
    } else if (kind < 92) {
      Advance(Random(8) == 0 ? Random(400) * kSecond : Random(3000) * 1'000'000);
    } else if (kind < 95) {
      CheckAll();
    } else if (kind < 96) {
      Expect(shard_->Compact(GoOn).ok(), "a compaction failed");
      ++done_->compactions;
    } else {
      Restart();
    }
  }

  void Advance(uint64_t ns) {
    clock_.Advance(ns);
    shard_->Turn();
    std::erase_if(entries_, [&](const auto& entry) { return entry.second.expires_ns <= clock_.BootNs(); });
  }

  void Insert(const std::string& text, bool stale) {
    const uint64_t lives[] = {86'400, 86'400, 600, 20};
    const uint64_t ttl_s = lives[Random(4)];
    const uint64_t seen = stale ? removals_seen_ : shard_->Removals();
    ++version_;
    shard_->Insert(text, 0, VectorOf(text, version_), CacheValue{static_cast<float>(version_), version_, false}, ttl_s,
                   seen);
    if (!stale) {
      entries_[text] = {version_, clock_.BootNs(), clock_.BootNs() + ttl_s * kSecond, false};
    }
  }

  void Hit(const std::string& text) {
    std::vector<float> vector(kWidth);
    CacheValue value;
    const auto entry = entries_.find(text);
    const bool found = shard_->Lookup(text, 0, vector.data(), &value);
    Expect(found == (entry != entries_.end()), "\"" + text + "\" is " + (found ? "" : "not ") + "answered");
    if (!found || entry == entries_.end()) return;
    Equal(value.token_count, entry->second.version, "the version of \"" + text + "\"");
    Expect(vector == VectorOf(text, entry->second.version), "\"" + text + "\" has another vector");
    Equal(value.expires_ns, entry->second.expires_ns, "the expiry of \"" + text + "\"");
    entry->second.hit = true;
  }

  // A computation that began before the removal ends after it.
  void BringBack(const std::string& text) {
    ++done_->stale;
    Insert(text, true);
  }

  void Erase(const std::string& text) {
    removals_seen_ = shard_->Removals();
    const size_t told = observer_.told.size();
    Expect(shard_->Erase(text, 0).ok(), "a removal failed");
    Expect(observer_.told.size() == told + 1 && observer_.told.back() == "-" + text, "the observer was not told");
    entries_.erase(text);
    if (Random(2) == 0) BringBack(text);
  }

  uint64_t AgeOf(const Entry& entry) const { return (clock_.BootNs() - entry.inserted_ns) / kSecond; }
  bool Matches(const CacheFilter& filter, const std::string& text, const Entry& entry) const {
    return filter.everything || (text.find(filter.contains) != std::string::npos &&
                                 AgeOf(entry) >= filter.older_than_s && !(filter.never_hit && entry.hit));
  }
  // A time that no entry's age is near: a restart may make one older by a second.
  uint64_t RandomAge() {
    const uint64_t age = 1 + Random(Random(2) == 0 ? 10 : 1000);
    for (const auto& [text, entry] : entries_) {
      if (AgeOf(entry) + 2 >= age && age + 2 >= AgeOf(entry)) return 0;
    }
    return age;
  }

  void Remove(const CacheFilter& filter) {
    std::map<std::string, Entry> doomed;
    for (const auto& [text, entry] : entries_) {
      if (Matches(filter, text, entry)) doomed.emplace(text, entry);
    }
    const Result<CacheAdmin::Preview> preview = shard_->PreviewRemoval(filter, GoOn);
    Expect(preview.ok(), "a preview failed");
    if (!preview.ok()) return;
    if (!filter.everything) Equal(preview->entries, doomed.size(), "what the preview counts");
    Equal(preview->lost, 0, "what the preview could not read");
    // The world goes on meanwhile: a hit spares no entry, a new one of the same text is another.
    if (Random(3) == 0) Hit(RandomText());
    if (Random(3) == 0) {
      const std::string text = RandomText();
      Advance(1);
      Insert(text, false);
      const bool about_texts = filter.older_than_s == 0 && !filter.never_hit;
      if (filter.everything) {
        doomed.emplace(text, entries_[text]);
      } else if (!about_texts) {
        doomed.erase(text);
      }
    }
    removals_seen_ = shard_->Removals();
    const size_t told = observer_.told.size();
    const Result<CacheAdmin::Removal> removal = shard_->CommitRemoval(preview->token, GoOn);
    Expect(removal.ok(), "a commit failed");
    if (!removal.ok()) return;
    // Of everything, what has expired and was not swept yet is counted, too.
    if (!filter.everything) Equal(removal->entries, doomed.size(), "what the commit counts");
    Expect(observer_.told.size() == told + 1 && observer_.told.back() == "*", "the observer was not told");
    Equal(observer_.removals, shard_->Removals(), "the number that the observer was told");
    for (const auto& [text, entry] : doomed) entries_.erase(text);
    if (Random(2) == 0) BringBack(doomed.empty() ? RandomText() : doomed.begin()->first);
    (filter.everything ? done_->everything : done_->filters) += 1;
    done_->removed += doomed.size();
  }

  void RemoveByFilter() {
    CacheFilter filter;
    const std::string parts[] = {"a", "bbb", "text 1", "7c", "text", "nowhere"};
    if (Random(2) == 0) filter.contains = parts[Random(6)];
    if (Random(3) == 0) filter.older_than_s = RandomAge();
    filter.never_hit = Random(3) == 0;
    if (filter.any()) Remove(filter);
  }

  // Every entry that is there, once, with all that is known of it.
  void CheckAll() {
    std::map<std::string, Entry> left = entries_;
    uint64_t cursor = 0;
    for (bool all = false; !all && failure_.empty();) {
      uint64_t at_once = 1 + Random(30);
      const Result<bool> visited = shard_->Visit(CacheAdmin::Which::kAll, &cursor, [&](const CacheEntry& entry) {
        const auto found = left.find(entry.text);
        Expect(found != left.end(), "\"" + entry.text + "\" is there, or there twice");
        if (found == left.end()) return false;
        Equal(entry.value.token_count, found->second.version, "the version of \"" + entry.text + "\"");
        Expect(entry.vector == VectorOf(entry.text, found->second.version), "a vector is another one");
        Expect(entry.hit == found->second.hit, "\"" + entry.text + "\" was hit: " + std::to_string(entry.hit));
        Expect(entry.age_s >= AgeOf(found->second) && entry.age_s <= AgeOf(found->second) + 1,
               "\"" + entry.text + "\" is " + std::to_string(entry.age_s) + " s old, not " +
                   std::to_string(AgeOf(found->second)));
        left.erase(found);
        return --at_once > 0;
      });
      Expect(visited.ok(), "a visit failed");
      all = !visited.ok() || *visited;
    }
    if (!left.empty()) Expect(false, "\"" + left.begin()->first + "\" is not there");
  }

  void Restart() {
    const bool kill = Random(2) == 0;
    if (kill) {
      // Removals are durable already; what else must survive is synced.
      const bool synced = Random(4) != 0;
      if (synced) Expect(shard_->Sync().ok(), "a sync failed");
      Random(2) == 0 && synced ? disk_.PowerCut() : disk_.ProcessKill();
      sim::SimDisk::Faults dead;
      dead.fail_at = 1;
      dead.fail_forever = true;
      disk_.SetFaults(dead);
      shard_.reset();
      disk_.SetFaults({});
      ++done_->kills;
      Open();
      if (failure_.empty()) Adopt(synced);
    } else {
      shard_.reset();
      Open();
      ++done_->restarts;
    }
    removals_seen_ = shard_ != nullptr ? shard_->Removals() : 0;
    if (failure_.empty()) CheckAll();
  }

  // After a kill: what was removed is not there; what was not synced may be missing, or an older one may be there that
  // was not removed. Which entries were hit is advice, and was written down a minute ago at the latest.
  void Adopt(bool synced) {
    for (auto entry = entries_.begin(); entry != entries_.end();) {
      const Result<CacheEntry> there = shard_->Get(entry->first, 0);
      Expect(there.ok() || !synced, "\"" + entry->first + "\" was synced and is gone");
      if (!there.ok()) {
        entry = entries_.erase(entry);
        continue;
      }
      Entry& mine = entry->second;
      if (there->value.token_count != mine.version) {
        Expect(!synced, "\"" + entry->first + "\" was synced and is an older one");
        mine.version = there->value.token_count;
        mine.inserted_ns = clock_.BootNs() - there->age_s * kSecond;
        mine.expires_ns = there->value.expires_ns;
      }
      mine.hit = there->hit;
      ++entry;
    }
  }

  std::mt19937_64 random_;
  sim::SimDisk disk_;
  sim::ManualClock clock_;
  CacheConfig config_;
  LoggedShard::Options options_;
  ToldObserver observer_;
  Done* const done_;
  std::unique_ptr<LoggedShard> shard_;
  std::map<std::string, Entry> entries_;  // that are there
  uint32_t version_ = 0;
  uint64_t removals_seen_ = 0;  // before the last removal
  std::string failure_;
};

TEST(RemovalHistory, EveryRemovalTakesOutWhatItShouldAndNothingComesBack) {
  const uint64_t only = NumberFromEnvironment("SUTRA_SEED", 0);
  const uint64_t first = only != 0 ? only : 1;
  const uint64_t last = only != 0 ? only : NumberFromEnvironment("SUTRA_HISTORY_RUNS", kRunsDefault);
  Done done;
  for (uint64_t seed = first; seed <= last; ++seed) {
    ASSERT_EQ(History(seed, &done).Run(), "") << "SUTRA_SEED=" << seed;
  }
  if (last - first < 19) return;
  EXPECT_GT(done.removed, 200u);
  EXPECT_GT(done.filters, 20u);
  EXPECT_GT(done.everything, 0u);
  EXPECT_GT(done.compactions, 0u);
  EXPECT_GT(done.restarts, 10u);
  EXPECT_GT(done.kills, 10u);
  EXPECT_GT(done.unread, 10u);
  EXPECT_GT(done.stale, 10u);
}

}  // namespace
}  // namespace sutra::test
