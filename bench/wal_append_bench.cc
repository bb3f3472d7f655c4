// The cache's log and its hits:
//   - appends per second at the default durability (interval), each record 384 floats and a text of 200 bytes, until
//     synced
//   - group commit: 1, 8 and 64 threads that each insert and wait until it is durable, through our disk access and,
//     beside it in the same run and with the same committer, through buffered pwrite + fdatasync
//   - an exact hit, copied out
//   wal_append_bench [--dir DIRECTORY] [--runs N] [--json]
#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <thread>

#include "bench/bench_report.h"
#include "bench/cache_bench_support.h"
#include "cache/disk/disk_io.h"
#include "shm/base/clock.h"

namespace sutra::bench {
namespace {

using Steady = std::chrono::steady_clock;

double SecondsSince(Steady::time_point start) { return std::chrono::duration<double>(Steady::now() - start).count(); }

std::unique_ptr<CacheShard> OpenOrDie(const CacheConfig& config, DiskIo* io) {
  Result<std::unique_ptr<CacheShard>> shard = CacheShard::Open(config, io, Clock::Real());
  if (shard.ok()) return std::move(shard).value();
  std::fprintf(stderr, "%s\n", shard.status().message().c_str());
  std::exit(1);
}

// Records per second from the first insert to the last sync; the queue is kept from overflowing.
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
    shard->Insert(texts[i], 0, vector, CacheValue{1, 40, false}, 0);
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

// Durable inserts per second of `waiters` threads.
double GroupCommits(const std::string& base, DiskIo* io, int waiters) {
  const BenchDirectory directory(base);
  CacheConfig config = ConfigFor(directory.path());
  config.policy = DurabilityPolicy::kGroup;
  const std::unique_ptr<CacheShard> shard = OpenOrDie(config, io);
  std::atomic<bool> go{false}, stop{false};
  std::atomic<uint64_t> total{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < waiters; ++t) {
    threads.emplace_back([&, t] {
      const std::vector<float> vector = VectorFor(static_cast<uint64_t>(t));
      std::string text = TextOf(static_cast<uint64_t>(t));
      while (!go.load(std::memory_order_acquire)) std::this_thread::yield();
      uint64_t done = 0;
      while (!stop.load(std::memory_order_relaxed)) {  // relaxed: only ends the loop
        shard->Insert(text, 0, vector, CacheValue{1, 40, false}, 0);
        if (!shard->Sync().ok()) break;
        ++done;
      }
      total.fetch_add(done, std::memory_order_relaxed);
    });
  }
  const Steady::time_point start = Steady::now();
  go.store(true, std::memory_order_release);
  std::this_thread::sleep_for(std::chrono::milliseconds(700));
  stop.store(true, std::memory_order_relaxed);
  for (std::thread& thread : threads) thread.join();
  return static_cast<double>(total.load(std::memory_order_relaxed)) / SecondsSince(start);
}

// Nanoseconds per hit among 100,000 entries, in random order. The texts asked for are warm, as they are for an engine
// that has just copied them; the entries are not.
double HitNs() {
  constexpr uint64_t kEntries = 100'000, kBatches = 4'000, kBatch = 64;
  CacheConfig config = ConfigFor("");
  config.policy = DurabilityPolicy::kNone;
  const std::unique_ptr<CacheShard> shard = OpenOrDie(config, nullptr);
  for (uint64_t i = 0; i < kEntries; ++i) shard->Insert(TextOf(i), 0, VectorFor(i), CacheValue{1, 40, false}, 0);
  std::vector<float> vector(kWidth);
  CacheValue value;
  uint64_t found = 0, number = 1;
  double seconds = 0;
  std::vector<std::string> texts(kBatch);
  for (uint64_t batch = 0; batch < kBatches; ++batch) {
    for (std::string& text : texts) {
      number = number * 6364136223846793005u + 1442695040888963407u;
      text = TextOf((number >> 33) % kEntries);
    }
    const Steady::time_point start = Steady::now();
    for (const std::string& text : texts) found += shard->Lookup(text, 0, vector.data(), &value) ? 1 : 0;
    seconds += SecondsSince(start);
  }
  if (found != kBatches * kBatch) std::exit(1);
  return seconds * 1e9 / static_cast<double>(kBatches * kBatch);
}

int Run(int count, char** arguments) {
  std::string base = std::filesystem::temp_directory_path().string();
  int runs = 7;
  bool json = false;
  CLI::App options("Appends to the cache's log, group commit, and exact hits.");
  options.add_option("--dir", base, "where the files are created")->capture_default_str();
  options.add_option("--runs", runs, "measurements")->capture_default_str()->check(CLI::Range(1, 1000));
  options.add_flag("--json", json, "one JSON object as the last line");
  CLI11_PARSE(options, count, arguments);
  Result<std::unique_ptr<DiskIo>> ours = MakeDiskIo(
      DiskIoKind::kAuto, base, [](LogLevel, const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); });
  if (!ours.ok()) {
    std::fprintf(stderr, "%s\n", ours.status().message().c_str());
    return 1;
  }
  const std::unique_ptr<DiskIo> plain = MakePosixDiskIo(false);
  std::vector<double> interval, hits;
  const int waiters[] = {1, 8, 64};
  std::vector<double> group_ours[3], group_plain[3];
  for (int run = 0; run < runs; ++run) {
    interval.push_back(IntervalAppends(base, ours->get()));
    for (int i = 0; i < 3; ++i) {
      // The order changes, so that drift of the machine affects both.
      for (int turn = 0; turn < 2; ++turn) {
        const bool ours_now = (turn + run) % 2 == 0;
        (ours_now ? group_ours : group_plain)[i].push_back(
            GroupCommits(base, ours_now ? ours->get() : plain.get(), waiters[i]));
      }
    }
    hits.push_back(HitNs());
  }
  Report report("wal");
  report.Add("interval_appends_per_s", "appends/s, interval policy, until synced", interval);
  for (int i = 0; i < 3; ++i) {
    const std::string n = std::to_string(waiters[i]);
    const double ratio = Median(group_ours[i]) / Median(group_plain[i]);
    report.Add("group_" + n + "_per_s", "durable appends/s, " + n + " waiters, " + (*ours)->name(), group_ours[i]);
    report.Add("group_" + n + "_plain_per_s", "  the same by buffered pwrite + fdatasync", group_plain[i]);
    report.AddValue("group_" + n + "_over_plain", ratio);
    report.Note(n + " waiters: " + std::to_string(ratio) + " times plain pwrite + fdatasync");
  }
  report.Add("hit_ns", "exact hit of 384 floats among 100,000 entries, ns", hits);
  report.AddValue("runs", runs);
  report.Print(json);
  return 0;
}

}  // namespace
}  // namespace sutra::bench

int main(int count, char** arguments) { return sutra::bench::Run(count, arguments); }
