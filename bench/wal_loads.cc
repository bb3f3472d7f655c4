#include "bench/wal_loads.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "bench/bench_report.h"
#include "bench/cache_bench_support.h"
#include "bench/wal_disks.h"
#include "shm/base/clock.h"

namespace sutra::bench {
namespace {

using Steady = std::chrono::steady_clock;

constexpr uint64_t kPayloadBytes = kWidth * sizeof(float) + 200;  // TextOf
constexpr CacheValue kValue{1, 40, false};

double SecondsSince(Steady::time_point start) { return std::chrono::duration<double>(Steady::now() - start).count(); }

double Quantile(std::vector<double>* values, double quantile) {
  if (values->empty()) return 0;
  const auto at = static_cast<size_t>(quantile * static_cast<double>(values->size() - 1));
  std::nth_element(values->begin(), values->begin() + static_cast<std::ptrdiff_t>(at), values->end());
  return (*values)[at];
}

// This thread runs before computing ones, and behind the log's, where that is allowed; or no longer.
void RunFirst(bool first) {
  sched_param priority{};
  priority.sched_priority = first ? 5 : 0;
  static_cast<void>(pthread_setschedparam(pthread_self(), first ? SCHED_FIFO : SCHED_OTHER, &priority));
}

// Computes on every CPU until it goes.
class Load {
 public:
  explicit Load(bool on) {
    for (unsigned cpu = 0; on && cpu < std::max(1u, std::thread::hardware_concurrency()); ++cpu) {
      threads_.emplace_back([this] {
        std::vector<float> a(64 * 64, 1.5f), b(64 * 64, 0.5f), c(64 * 64);
        while (!stop_.load(std::memory_order_relaxed)) {  // relaxed: only ends the loop
          for (size_t i = 0; i < 64; ++i) {
            for (size_t k = 0; k < 64; ++k) {
              for (size_t j = 0; j < 64; ++j) c[i * 64 + j] += a[i * 64 + k] * b[k * 64 + j];
            }
          }
        }
        if (c[0] < 0) std::abort();  // keeps the loop
      });
    }
  }
  ~Load() {
    stop_.store(true, std::memory_order_relaxed);
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<CacheShard> OpenOrDie(const CacheConfig& config, DiskIo* io) {
  Result<std::unique_ptr<CacheShard>> shard = CacheShard::Open(config, io, Clock::Real());
  if (shard.ok()) return std::move(shard).value();
  std::fprintf(stderr, "%s\n", shard.status().message().c_str());
  std::exit(1);
}

double IntervalAppends(const std::string& base, DiskIo* io) {
  constexpr uint64_t kRecords = 30'000;
  const BenchDirectory directory(base);
  CacheConfig config = ConfigFor(directory.path());
  const std::unique_ptr<CacheShard> shard = OpenOrDie(config, io);
  std::vector<std::string> texts;
  for (uint64_t i = 0; i < kRecords; ++i) texts.push_back(TextOf(i));
  const std::vector<float> vector = VectorFor(1);
  const Steady::time_point start = Steady::now();
  for (uint64_t i = 0; i < kRecords; ++i) {
    shard->Insert(texts[i], 0, vector, kValue, 0);
    if (i % 256 == 0) {
      while (shard->Stats().wal_pending_records > 4096) std::this_thread::yield();
    }
  }
  const bool synced = shard->Sync().ok();
  const double seconds = SecondsSince(start);
  if (!synced || shard->Stats().wal_dropped_inserts != 0) {
    std::fprintf(stderr, "records were dropped\n");
    std::exit(1);
  }
  return static_cast<double>(kRecords) / seconds;
}

GroupFigures GroupCommits(const std::string& base, DiskIo* io, int waiters, Company company) {
  const BenchDirectory directory(base);
  CacheConfig config = ConfigFor(directory.path());
  config.policy = DurabilityPolicy::kGroup;
  const std::unique_ptr<CacheShard> shard = OpenOrDie(config, io);
  const bool loaded = company != Company::kNone;
  const Load load(loaded);
  std::atomic<bool> go{false}, stop{false};
  std::vector<std::vector<double>> us(static_cast<size_t>(waiters));
  std::vector<std::thread> threads;
  for (int t = 0; t < waiters; ++t) {
    threads.emplace_back([&, t] {
      const std::vector<float> vector = VectorFor(static_cast<uint64_t>(t));
      const std::string text = TextOf(static_cast<uint64_t>(t));
      if (company == Company::kComputingBelow) RunFirst(true);
      while (!go.load(std::memory_order_acquire)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      while (!stop.load(std::memory_order_relaxed)) {  // relaxed: only ends the loop
        const Steady::time_point start = Steady::now();
        shard->Insert(text, 0, vector, kValue, 0);
        if (!shard->Sync().ok()) break;
        us[static_cast<size_t>(t)].push_back(SecondsSince(start) * 1e6);
      }
    });
  }
  const Steady::time_point start = Steady::now();
  go.store(true, std::memory_order_release);
  std::this_thread::sleep_for(std::chrono::milliseconds(loaded ? 2000 : 700));
  stop.store(true, std::memory_order_relaxed);
  for (std::thread& thread : threads) thread.join();
  const double seconds = SecondsSince(start);
  std::vector<double> all;
  for (const std::vector<double>& one : us) all.insert(all.end(), one.begin(), one.end());
  return {static_cast<double>(all.size()) / seconds, Quantile(&all, 0.5), Quantile(&all, 0.99) / 1000};
}

AppendFigures DurableAppends(const std::string& base, DiskIo* io) {
  constexpr int kRounds = 8, kPerRound = 100;
  const BenchDirectory directory(base);
  CacheConfig config = ConfigFor(directory.path());
  config.wal_segment_bytes = 1 << 20;
  const std::unique_ptr<CacheShard> shard = OpenOrDie(config, io);
  std::vector<std::unique_ptr<BareFile>> bare;
  for (const auto& [kind, name] : kBareAppends) bare.push_back(std::make_unique<BareFile>(directory.path(), kind));
  const std::vector<float> vector = VectorFor(1);
  const std::string text = TextOf(1);
  std::vector<double> ours;
  std::vector<std::vector<double>> bare_us(bare.size());
  // The first segment is not zeroed, because nothing could wait for that at a start; all later ones are.
  for (uint64_t at = 0; at < config.wal_segment_bytes; at += kDiskBlockBytes) {
    shard->Insert(text, 0, vector, kValue, 0);
    if (!shard->Sync().ok()) std::exit(1);
  }
  RunFirst(true);  // as the log's threads do: other work on this machine is not in the figures
  for (int round = 0; round < kRounds; ++round) {
    for (int i = 0; i < kPerRound; ++i) {
      const Steady::time_point start = Steady::now();
      shard->Insert(text, 0, vector, kValue, 0);
      if (!shard->Sync().ok()) std::exit(1);
      ours.push_back(SecondsSince(start) * 1e6);
    }
    for (size_t kind = 0; kind < bare.size(); ++kind) bare[kind]->Append(kPerRound, &bare_us[kind]);
  }
  RunFirst(false);
  AppendFigures figures;
  figures.ours_us = Median(ours);
  for (const std::vector<double>& us : bare_us) figures.bare_us.push_back(Median(us));
  return figures;
}

SlowSyncFigures SlowSyncs(const std::string& base, int delay_ms, int per_ms) {
  constexpr int kMilliseconds = 4000;
  const BenchDirectory directory(base);
  SlowDisk disk(true, delay_ms);
  CacheConfig config = ConfigFor(directory.path());
  const std::unique_ptr<CacheShard> shard = OpenOrDie(config, &disk);
  const std::vector<float> vector = VectorFor(1);
  std::vector<std::string> texts;
  for (uint64_t i = 0; i < 4096; ++i) texts.push_back(TextOf(i));
  SlowSyncFigures figures;
  const Steady::time_point start = Steady::now();
  uint64_t inserted = 0;
  for (int ms = 0; ms < kMilliseconds; ++ms) {
    std::this_thread::sleep_until(start + std::chrono::milliseconds(ms));
    for (int i = 0; i < per_ms; ++i) shard->Insert(texts[inserted++ % texts.size()], 0, vector, kValue, 0);
    figures.unwritten_ms =
        std::max(figures.unwritten_ms, static_cast<double>(shard->Stats().wal_oldest_unwritten_us) / 1000);
  }
  figures.dropped = static_cast<double>(shard->Stats().wal_dropped_inserts);
  return figures;
}

double WriteAmplification(const std::string& base) {
  constexpr uint64_t kLogBytes = 512 << 20;
  constexpr double kLivePerLog = static_cast<double>(kCacheEntriesDefault * kPayloadBytes) / kWalBytesDefault;
  const BenchDirectory directory(base);
  CountingDisk disk(true);
  CacheConfig config = ConfigFor(directory.path());
  config.wal_bytes_max = kLogBytes;
  config.wal_segment_bytes = kLogBytes / (kWalBytesDefault / kSegmentBytesDefault);
  config.entries_max = static_cast<uint64_t>(kLivePerLog * kLogBytes / kPayloadBytes);
  const std::unique_ptr<CacheShard> shard = OpenOrDie(config, &disk);
  const std::vector<float> vector = VectorFor(1);
  const uint64_t hot = config.entries_max * 9 / 10;
  std::vector<float> found(kWidth);
  CacheValue value;
  uint64_t number = 0;
  const auto insert = [&](uint64_t count) {
    for (uint64_t i = 0; i < count; ++i, ++number) {
      shard->Insert(TextOf(number), 0, vector, kValue, 0);
      for (uint64_t hit = 0; number >= hot && hit < 4; ++hit) {
        shard->Lookup(TextOf((number * 4 + hit) % hot), 0, found.data(), &value);
      }
      // A burst is small beside a segment, as with the defaults.
      while (number % 64 == 0 && shard->Stats().wal_pending_records > 512) std::this_thread::yield();
    }
    if (!shard->Sync().ok()) std::exit(1);
  };
  const uint64_t round = kLogBytes / kPayloadBytes;
  insert(2 * round);
  const uint64_t before = disk.bytes();
  insert(round);
  if (shard->Stats().wal_dropped_inserts != 0) std::exit(1);
  return static_cast<double>(disk.bytes() - before) / static_cast<double>(round * kPayloadBytes);
}

}  // namespace sutra::bench
