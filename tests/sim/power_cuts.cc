// A schedule, the crashes of its copies, and the run over many schedules.
#include "tests/sim/power_cuts.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "cache/wal/wal_format.h"
#include "shm/base/clock.h"
#include "shm/base/mutex.h"
#include "shm/base/time.h"
#include "tests/cache/cache_test_support.h"
#include "tests/sim/oracle.h"

namespace sutra::sim {
namespace {

constexpr uint64_t kKeys = 24;

class Schedule {
 public:
  Schedule(uint64_t seed, const PowerCutOptions& options)
      : options_(options), random_(seed), disk_(options.make_disk(seed)) {
    config_ = test::SmallConfig("/data");
    config_.wal_bytes_max = Random(2) == 0 ? 256 << 10 : 512 << 10;
    long_ = Random(10) == 0;
    if (long_) config_.wal_bytes_max = (4 + Random(2)) * kSegmentBytesMin;
    if (Random(100) < options.full_percent) config_.entries_max = 6 + Random(12);
    lazy_ = Random(2) == 0;
    if (options.verbose) config_.log = [](LogLevel, const std::string& line) { std::printf("  %s\n", line.c_str()); };
    if (options_.every > 0) disk_->KeepCopies(options_.every, 1 + seed % options_.every);
    oracle_.SetMiddle([this] { CrashCopies(); });
    oracle_.SetDiskFails([this] { return disk_fails(); });
  }

  PowerCutTotals Run() {
    Open();
    const uint64_t rounds = 2 + Random(4);
    for (uint64_t round = 0; round < rounds && totals_.good(); ++round) {
      ArmFaults();
      const uint64_t steps = (long_ ? 250 : 5) + Random(120);
      for (uint64_t step = 0; step < steps && totals_.good(); ++step) Step();
      Crash();
    }
    shard_.reset();
    totals_.schedules = 1;
    totals_.removals = oracle_.removals();
    totals_.many_removals = oracle_.many_removals();
    totals_.compactions = oracle_.compactions();
    totals_.evictions = oracle_.evictions();
    return totals_;
  }

 private:
  uint64_t Random(uint64_t below) { return std::uniform_int_distribution<uint64_t>(0, below - 1)(random_); }

  static LoggedShard::Options OptionsOf(bool lazy) {
    LoggedShard::Options options = test::Inline();
    options.load_at_open = !lazy;
    return options;
  }

  // Null and a failure if the start is refused.
  std::unique_ptr<LoggedShard> OpenOn(SimDisk* disk) {
    Result<std::unique_ptr<LoggedShard>> shard = LoggedShard::Open(config_, disk, &clock_, OptionsOf(lazy_));
    if (shard.ok()) return std::move(shard).value();
    Refuse("start refused: " + shard.status().message());
    return nullptr;
  }

  void Open() {
    config_.policy = DurabilityPolicy::kInterval;
    if (Random(4) == 0) config_.policy = Random(2) == 0 ? DurabilityPolicy::kGroup : DurabilityPolicy::kSync;
    power_off_at_ = 0;
    failures_before_ = disk_->failures().all;
    shard_ = OpenOn(disk_.get());
    if (shard_ == nullptr) return;
    CrashCopies();
    oracle_.Attach(shard_.get());
  }

  void ArmFaults() {
    SimDisk::Faults faults;
    const uint64_t later = long_ ? 200 : 0;
    if (Random(2) == 0) faults.power_off_at = 1 + later + Random(150);
    if (Random(3) == 0) faults.fail_at = 1 + later + Random(120);
    faults.fail_errno = Random(2) == 0 ? EIO : ENOSPC;
    faults.fail_forever = Random(4) == 0;
    if (Random(4) == 0) faults.noise_percent = 10;
    if (Random(4) == 0) faults.short_at = 1 + Random(60);
    const size_t lengths[] = {0, 1, 511, 512, 4095, 4096, 5000};
    faults.short_bytes = lengths[Random(7)];
    disk_->SetFaults(faults);
    power_off_at_ = faults.power_off_at;
    disk_->SetSlowSyncs(Random(2) == 0 ? 95 : 0);  // changes are written, and the power goes, while a sync runs
  }

  void Step() {
    const uint64_t key = Random(kKeys);
    const uint64_t lengths[] = {0, 100, 100 + key * 30};
    const std::string text = "key " + std::to_string(key) + std::string(lengths[Random(key % 4 == 0 ? 3 : 2)], 'x');
    const uint64_t kind = Random(20);
    if (kind < 11) {
      oracle_.Put(text);
    } else if (kind < 14) {
      oracle_.Erase(text);
    } else if (kind < 15) {
      Rare(text);
    } else if (kind < 17) {
      oracle_.Sync();
    } else {
      oracle_.Advance(kind == 17 ? 60 : kind == 18 ? 5 : 1100);
    }
    if (const std::string failure = oracle_.CheckRunning(text); !failure.empty()) Refuse(failure);
  }

  void Rare(const std::string& text) {
    const uint64_t kind = Random(10);
    if (kind == 0) {
      oracle_.RemoveMany({.everything = true, .contains = {}});
    } else if (kind == 1) {
      oracle_.Compact();
    } else if (kind < 6) {
      CacheFilter filter;
      filter.contains = kind < 4 ? text.substr(0, 5) : "xx";  // a tenth to a half of the texts
      oracle_.RemoveMany(filter);
    } else {
      oracle_.Erase(text);
    }
  }

  // The dead engine's destructor must not do what a dead engine cannot.
  void Die(SimDisk* disk, std::unique_ptr<LoggedShard>* shard) {
    SimDisk::Faults dead;
    dead.power_off_at = 1;
    if (*shard != nullptr) disk->SetFaults(dead);
    shard->reset();
  }

  void Cut(SimDisk* disk, bool power_cut) {
    ++(power_cut ? totals_.cuts : totals_.kills);
    power_cut ? disk->PowerCut() : disk->ProcessKill();
  }

  // The power fails, or the process is killed, once more during the start.
  void CutStart(SimDisk* disk, bool power_cut) {
    SimDisk::Faults again;
    again.power_off_at = 1 + Random(40);
    disk->SetFaults(again);
    Result<std::unique_ptr<LoggedShard>> shard = LoggedShard::Open(config_, disk, &clock_, OptionsOf(lazy_));
    if (shard.ok() && lazy_) oracle_.AskAll(shard->get());
    if (shard.ok()) Die(disk, &shard.value());
    ++totals_.second_cuts;
    Cut(disk, power_cut);
  }

  void Crash() {
    const bool power_cut = Random(3) != 0;
    CountWrittenOver();
    if (Random(4) == 0) {  // a clean stop first; its last syncs may fail like any other
      oracle_.Sync();
      shard_.reset();
      CrashCopies();
    }
    Die(disk_.get(), &shard_);
    Cut(disk_.get(), power_cut);
    after_power_cut_ = power_cut;
    while (Random(2) == 0) {
      CutStart(disk_.get(), power_cut);
      CrashCopies();
    }
    const std::unique_ptr<SimDisk> copy = lazy_ ? disk_->Copy() : nullptr;
    Open();
    if (shard_ == nullptr) return;
    CheckSound(*shard_);
    // Asking for everything would leave nothing unread.
    std::unique_ptr<LoggedShard> judged = lazy_ ? OpenOn(copy.get()) : nullptr;
    if (lazy_ && judged == nullptr) return;
    if (lazy_) oracle_.Attach(judged.get());
    Count(oracle_.CheckRecovered(power_cut, disk_full()));
    if (lazy_) {
      CheckLoaded(*judged);
      oracle_.Attach(shard_.get());
      Die(copy.get(), &judged);
    }
    after_power_cut_ = false;
    full_before_ = disk_->failures().full;
  }

  void CountWrittenOver() {
    for (const std::string& path : disk_->Paths()) {
      if (SegmentNumber(path.substr(path.rfind('/') + 1)) == 0) continue;
      const std::vector<std::byte> bytes = disk_->Bytes(path);
      SegmentHeader header;
      if (bytes.size() >= sizeof(header)) std::memcpy(&header, bytes.data(), sizeof(header));
      totals_.written_over += header.flags == kSegmentWrittenOver ? 1 : 0;
    }
  }

  // What a crash at each of the operations would have left that were copied since the last call.
  void CrashCopies() {
    // What was written is gone when its sync fails, and in another segment only when the call is over.
    const bool failed = std::exchange(failures_, disk_->failures().all) != disk_->failures().all;
    for (const std::unique_ptr<SimDisk>& copy : disk_->TakeCopies()) {
      if (!totals_.good()) return;
      const bool power_cut = Random(4) != 0;
      Cut(copy.get(), power_cut);
      if (Random(2) == 0) CutStart(copy.get(), power_cut);
      std::unique_ptr<LoggedShard> shard = OpenOn(copy.get());
      if (shard == nullptr) return;
      CheckSound(*shard);
      Count(oracle_.Judge(shard.get(), power_cut || after_power_cut_ || failed, disk_full()));
      CheckLoaded(*shard);
      Die(copy.get(), &shard);
    }
  }

  // Since the last start that succeeded.
  bool disk_full() const { return disk_->failures().full != full_before_; }

  // An operation has failed since the start of the shard.
  bool disk_fails() const {
    return disk_->failures().all != failures_before_ || (power_off_at_ != 0 && disk_->operations() >= power_off_at_);
  }

  // When everything was asked for.
  void CheckLoaded(const LoggedShard& shard) {
    totals_.dropped += shard.Stats().recovered_dropped;
    if (shard.Stats().recovered_dropped != 0) Refuse("a record is not what its index says");
  }

  void CheckSound(const LoggedShard& shard) {
    const CacheStats stats = shard.Stats();
    totals_.indexed += stats.recovered_indexed;
    totals_.unread += stats.unread_entries;
    if (stats.quarantined_segments != 0 || stats.recovered_dropped != 0) Refuse("damage reported without damage");
  }

  void Count(const Judgement& judgement) {
    totals_.lost += judgement.lost;
    totals_.wrong += judgement.wrong;
    totals_.revived += judgement.revived;
    totals_.given_back += judgement.given_back;
    if (totals_.failure.empty()) totals_.failure = judgement.failure;
  }

  void Refuse(const std::string& failure) {
    ++totals_.refused;
    if (totals_.failure.empty()) totals_.failure = failure;
  }

  const PowerCutOptions& options_;
  std::mt19937_64 random_;
  const std::unique_ptr<SimDisk> disk_;
  ManualClock clock_;
  CacheConfig config_;
  bool lazy_ = false;             // entries are read when they are asked for
  uint64_t power_off_at_ = 0;     // of the armed faults
  uint64_t failures_before_ = 0;  // of the disk, until the last start
  bool long_ = false;             // rounds of so many changes that the log goes round in each
  std::unique_ptr<LoggedShard> shard_;
  Oracle oracle_{&clock_};
  bool after_power_cut_ = false;  // and no start since has succeeded
  uint64_t failures_ = 0;         // of the disk, until the last copies
  uint64_t full_before_ = 0;      // failures for lack of room before the last start
  PowerCutTotals totals_;
};

}  // namespace

void PowerCutTotals::Add(const PowerCutTotals& other) {
  schedules += other.schedules;
  cuts += other.cuts;
  second_cuts += other.second_cuts;
  kills += other.kills;
  lost += other.lost;
  wrong += other.wrong;
  refused += other.refused;
  removals += other.removals;
  many_removals += other.many_removals;
  compactions += other.compactions;
  evictions += other.evictions;
  indexed += other.indexed;
  unread += other.unread;
  dropped += other.dropped;
  revived += other.revived;
  written_over += other.written_over;
  given_back += other.given_back;
  if (!other.failure.empty() && (failure.empty() || other.failed_seed < failed_seed)) {
    failure = other.failure;
    failed_seed = other.failed_seed;
  }
}

PowerCutTotals RunPowerCutSchedule(uint64_t seed, const PowerCutOptions& options) {
  PowerCutTotals totals = Schedule(seed, options).Run();
  totals.failed_seed = totals.good() ? 0 : seed;
  return totals;
}

PowerCutTotals RunPowerCuts(const PowerCutOptions& options, const std::atomic<bool>* stop) {
  Mutex mutex;
  PowerCutTotals totals;
  std::atomic<uint64_t> next{0};
  const uint64_t started_ns = Clock::Real()->MonotonicNs();
  uint64_t said_ns = started_ns;
  const auto work = [&] {
    for (uint64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < options.schedules;) {
      if (stop != nullptr && stop->load(std::memory_order_relaxed)) return;
      const PowerCutTotals one = RunPowerCutSchedule(options.seed + i, options);
      const MutexLock lock(mutex);
      totals.Add(one);
      if (!one.good() && options.progress_s > 0) {
        std::fprintf(stderr, "seed %llu: %s\n", static_cast<unsigned long long>(one.failed_seed), one.failure.c_str());
      }
      const uint64_t now = Clock::Real()->MonotonicNs();
      if (options.progress_s > 0 && now - said_ns >= options.progress_s * kNsPerSecond) {
        said_ns = now;
        std::fprintf(stderr, "%llu of %llu schedules, %llu cuts, %llu lost, %llu wrong, %llu refused, %llu s\n",
                     static_cast<unsigned long long>(totals.schedules),
                     static_cast<unsigned long long>(options.schedules), static_cast<unsigned long long>(totals.cuts),
                     static_cast<unsigned long long>(totals.lost), static_cast<unsigned long long>(totals.wrong),
                     static_cast<unsigned long long>(totals.refused),
                     static_cast<unsigned long long>((now - started_ns) / kNsPerSecond));
      }
      if (options.end_at_first && !totals.good()) return;
    }
  };
  std::vector<std::thread> threads;
  for (uint64_t job = 1; job < options.jobs; ++job) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  totals.ms = (Clock::Real()->MonotonicNs() - started_ns) / kNsPerMs;
  return totals;
}

}  // namespace sutra::sim
