// The process that tests/crash/cache_kills kills: opens a cache shard, tells what it finds, and then inserts, looks up
// and removes until it is killed, with a second thread that looks up beside it.
// Usage: sutra-cache-kills-child DIRECTORY JOURNAL SEED LIFE DISK_IO [full] [lie] [revive] [check]
//   full: the store holds fewer entries than there are keys   check: ends when it has told what it found
//   lie, revive: canaries: says that it synced and has not; puts back what it has removed
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "cache/disk/disk_io.h"
#include "shm/base/clock.h"
#include "shm/base/enum_names.h"
#include "tests/crash/kill_journal.h"

namespace sutra::test {
namespace {

struct Options {
  std::string directory, journal;
  uint64_t seed = 0, life = 0;
  DiskIoKind disk_io = DiskIoKind::kAuto;
  bool full = false, lie = false, revive = false, check = false;
};

class KilledChild {
 public:
  KilledChild(const Options& options, CacheShard* shard, KillJournal* journal)
      : options_(options), shard_(shard), journal_(journal), random_(options.seed * 7919 + options.life) {
    for (uint16_t key = 0; key < kKillKeys; ++key) texts_.push_back(KillKey(key));
  }

  void TellFound() {
    for (uint16_t key = 0; key < kKillKeys; ++key) {
      const int version = VersionOf(shard_, texts_[key]);
      if (version == -2) Tell(KillEvent::kWrong, key);
      if (version >= 0) Tell(KillEvent::kFound, key, static_cast<uint32_t>(version));
      there_[key] = version >= 0;
    }
    Tell(KillEvent::kReady);
  }

  // Returns only if the kill does not come.
  void Run() {
    std::thread reader([this] {
      std::mt19937_64 random(options_.seed + options_.life);
      while (!ended_.load(std::memory_order_relaxed)) {
        if (VersionOf(shard_, texts_[random() % 40]) == -2) wrong_.store(true, std::memory_order_relaxed);
      }
    });
    const uint64_t removals = options_.life % 3 == 0 ? 8 : 1;  // a removal waits for the disk
    evictions_ = shard_->Stats().evictions;
    for (uint32_t step = 0; !journal_->full(); ++step) {
      const double skewed = static_cast<double>(random_() % 1024) / 1024;
      const auto key = static_cast<uint16_t>(skewed * skewed * kKillKeys);
      const uint64_t kind = random_() % 100;
      if (kind < 50) {
        Insert(key, static_cast<uint32_t>(options_.life * 100'000 + step));
      } else if (kind < 50 + removals) {
        Erase(key);
      } else if (kind < 59) {
        AskWritten();
      } else if (kind < 60) {
        random_() % 8 == 0 ? EraseMany() : random_() % 8 == 0 ? Compact() : AskWritten();
      } else if (kind < 61) {
        if (options_.lie || shard_->Sync().ok()) Tell(KillEvent::kConfirmed);
      } else {
        Hit(key);
      }
      if (wrong_.load(std::memory_order_relaxed)) Tell(KillEvent::kWrong);
    }
    ended_.store(true, std::memory_order_relaxed);
    reader.join();
  }

 private:
  void Tell(KillEvent event, uint16_t key = 0, uint32_t version = 0) {
    journal_->Append({event, key, version, Clock::Real()->MonotonicNs()});
  }

  void Insert(uint16_t key, uint32_t version) {
    Tell(KillEvent::kPut, key, version);
    Put(shard_, texts_[key], version);
    there_[key] = true;
    NoticeEvictions();
    Tell(KillEvent::kDone);
  }

  void Erase(uint16_t key) {
    const int before = options_.revive ? VersionOf(shard_, texts_[key]) : -1;
    Tell(KillEvent::kErase, key);
    if (shard_->Erase(texts_[key], 0).ok()) Tell(KillEvent::kConfirmed);
    there_[key] = false;
    NoticeEvictions();
    Tell(KillEvent::kDone);
    if (before >= 0) Put(shard_, texts_[key], static_cast<uint32_t>(before));
  }

  // Of a filter, or of everything. What it is to remove is told before: a kill may come when it has removed a part.
  void EraseMany() {
    CacheFilter filter;
    filter.everything = random_() % 8 == 0;
    if (!filter.everything) filter.contains = "key " + std::to_string(random_() % 10);
    bool first = true;
    for (uint16_t key = 0; key < kKillKeys; ++key) {
      if (!there_[key] || (!filter.everything && texts_[key].find(filter.contains) == std::string::npos)) continue;
      Tell(first ? KillEvent::kErase : KillEvent::kEraseAlso, key);
      there_[key] = first = false;
    }
    if (first) return;
    const auto go_on = [](uint64_t, uint64_t) { return true; };
    const Result<CacheAdmin::Preview> preview = shard_->PreviewRemoval(filter, go_on);
    if (preview.ok() && shard_->CommitRemoval(preview->token, go_on).ok()) Tell(KillEvent::kConfirmed);
    NoticeEvictions();
    Tell(KillEvent::kDone);
  }

  void Compact() {
    static_cast<void>(shard_->Compact([](uint64_t, uint64_t) { return true; }));
  }

  void AskWritten() {
    const CacheStats stats = shard_->Stats();
    if (stats.wal_pending_records == 0 && stats.wal_oldest_unwritten_us == 0) Tell(KillEvent::kWritten);
  }

  void Hit(uint16_t key) {
    const int version = VersionOf(shard_, texts_[key]);
    if (version == -2) Tell(KillEvent::kWrong, key);
    if (version == -1 && there_[key]) {  // evicted by the log
      there_[key] = false;
      Tell(KillEvent::kEvicted, key);
      Tell(KillEvent::kDone);
    }
  }

  void NoticeEvictions() {
    const CacheStats stats = shard_->Stats();
    if (stats.evictions == evictions_) return;
    evictions_ = stats.evictions;
    for (uint16_t key = 0; key < kKillKeys; ++key) {
      if (!there_[key] || VersionOf(shard_, texts_[key]) != -1) continue;
      there_[key] = false;
      Tell(KillEvent::kEvicted, key, static_cast<uint32_t>(stats.wal_evictions));
    }
  }

  const Options options_;
  CacheShard* const shard_;
  KillJournal* const journal_;
  std::mt19937_64 random_;
  std::vector<std::string> texts_;
  bool there_[kKillKeys] = {};
  uint64_t evictions_ = 0;
  std::atomic<bool> ended_{false}, wrong_{false};
};

int Main(int count, char** arguments) {
  if (count < 6) return 2;
  Options options;
  options.directory = arguments[1];
  options.journal = arguments[2];
  options.seed = std::stoull(arguments[3]);
  options.life = std::stoull(arguments[4]);
  const std::optional<DiskIoKind> disk_io = EnumOf(kDiskIoKindNames, arguments[5]);
  if (!disk_io.has_value()) return 2;
  for (int i = 6; i < count; ++i) {
    const std::string flag = arguments[i];
    options.full = options.full || flag == "full";
    options.lie = options.lie || flag == "lie";
    options.revive = options.revive || flag == "revive";
    options.check = options.check || flag == "check";
  }
  KillJournal journal(options.journal, false);
  if (!journal.open_ok()) return 3;
  Result<std::unique_ptr<DiskIo>> io = MakeDiskIo(*disk_io, options.directory, {});
  if (!io.ok()) return 4;
  CacheConfig config = KillConfig(options.directory, options.full, options.seed);
  config.log = [](LogLevel level, const std::string& line) {
    if (level == LogLevel::kError) std::fprintf(stderr, "%s\n", line.c_str());
  };
  Result<std::unique_ptr<CacheShard>> shard = CacheShard::Open(config, io->get(), Clock::Real());
  if (!shard.ok()) {
    std::fprintf(stderr, "%s\n", shard.status().message().c_str());
    return 5;
  }
  if ((*shard)->Stats().quarantined_segments != 0 || (*shard)->Stats().recovered_dropped != 0) {
    std::fprintf(stderr, "damage reported without damage\n");
    return 5;
  }
  KilledChild child(options, shard->get(), &journal);
  child.TellFound();
  if (!options.check) child.Run();
  return 0;
}

}  // namespace
}  // namespace sutra::test

int main(int count, char** arguments) { return sutra::test::Main(count, arguments); }
