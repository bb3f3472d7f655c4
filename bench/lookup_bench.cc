// How long a lookup waits beside a writer. A store that is full (every insert evicts), lookups at a steady rate through
// TryLookup, as the engine's loop makes them, first alone and then beside another thread's inserts. What TryLookup
// leaves to somebody else is answered by Lookup at once, as a worker would, and waits for as long as both take.
//
// A lookup that loses its CPU is no wait of the shard's. A slow one counts as a wait if its thread gave the CPU up by
// itself meanwhile (a lock, the disk), or was never switched (it spun); it counts as preempted if it was only ever
// switched by force. What the host of a virtual machine takes away cannot be told apart: the lookups without a writer
// show how much that is.
//   lookup_bench [--dir DIRECTORY] [--entries N] [--seconds N] [--runs N] [--inserts-per-s N] [--json]
//                [--self-test]
#include <sched.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <memory>
#include <random>
#include <thread>

#include "bench/bench_report.h"
#include "bench/cache_bench_support.h"
#include "cache/disk/disk_io.h"
#include "shm/base/clock.h"
#include "shm/base/cpu_pause.h"
#include "shm/base/time.h"

namespace sutra::bench {
namespace {

constexpr std::chrono::milliseconds kSleep{2};
constexpr uint64_t kSlowNs = 5 * kNsPerUs;  // several times a lookup that nothing holds up

struct Options {
  std::string base = std::filesystem::temp_directory_path().string();
  uint64_t entries = 1'000'000;
  uint64_t inserts_per_s = 20'000;
  uint64_t lookups_per_s = 100'000;
  uint32_t seconds = 5;
  int runs = 3;
  bool json = false;
  bool self_test = false;
  uint64_t sleep_every = 0;  // of the self-test: each so many lookups wait as on a disk
};

struct Waits {
  std::vector<double> all_us;     // of every lookup
  std::vector<double> waited_us;  // without those that were preempted
  uint64_t preempted = 0, busy = 0, hits = 0, wrong = 0;
};

struct Switches {
  long by_itself = 0, by_force = 0;
};

Switches SwitchesOfThread() {
  rusage usage = {};
  getrusage(RUSAGE_THREAD, &usage);
  return {usage.ru_nvcsw, usage.ru_nivcsw};
}

double Quantile(std::vector<double> values, double fraction) {
  if (values.empty()) return 0;
  const auto rank = static_cast<size_t>(fraction * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(rank), values.end());
  return values[rank];
}

double Largest(const std::vector<double>& values) {
  return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
}

// What is inserted: a new key each time, and the vectors of a few, so that making them costs the writer nothing.
class Inserts {
 public:
  explicit Inserts(CacheShard* shard) : shard_(shard) {
    for (uint64_t i = 0; i < kVectors; ++i) vectors_.push_back(VectorFor(i));
  }

  void InsertNext() {
    const uint64_t number = next_.load(std::memory_order_relaxed);  // only one thread inserts at a time
    shard_->Insert(ShortTextOf(number), 0, vectors_[number % kVectors], CacheValue{1, 40, false}, 0);
    next_.store(number + 1, std::memory_order_release);
  }
  // As many as the log takes.
  void Fill(uint64_t count) {
    while (next() < count) {
      InsertNext();
      while (next() % 256 == 0 && shard_->Stats().wal_pending_records > 4096) std::this_thread::yield();
    }
  }
  // Until `stop` is set: in turns of a millisecond, as a batch of the model is stored.
  void Keep(uint64_t per_s, const std::atomic<bool>& stop) {
    const uint64_t start_ns = MonotonicNs(), first = next();
    for (uint64_t turn = 1; !stop.load(std::memory_order_relaxed); ++turn) {  // relaxed: seen a turn late
      const uint64_t due = first + per_s * turn / 1000;
      while (next() < due) InsertNext();
      const uint64_t until_ns = start_ns + turn * kNsPerMs, now_ns = MonotonicNs();
      if (now_ns < until_ns) std::this_thread::sleep_for(std::chrono::nanoseconds(until_ns - now_ns));
    }
  }

  uint64_t next() const { return next_.load(std::memory_order_acquire); }
  bool IsVectorOf(uint64_t number, const std::vector<float>& vector) const {
    return vector == vectors_[number % kVectors];
  }

 private:
  static constexpr uint64_t kVectors = 64;
  CacheShard* const shard_;
  std::atomic<uint64_t> next_{0};
  std::vector<std::vector<float>> vectors_;
};

// Looks for keys among the youngest `options.entries`, at the steady rate, on this thread.
Waits LookUp(CacheShard* shard, const Inserts& inserts, const Options& options, uint64_t seed) {
  Waits waits;
  const uint64_t count = options.lookups_per_s * options.seconds;
  waits.all_us.reserve(count);
  waits.waited_us.reserve(count);
  std::mt19937_64 random(seed);
  std::vector<float> vector(kWidth);
  CacheValue value;
  const uint64_t start_ns = MonotonicNs();
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t number = inserts.next() - 1 - random() % std::min(inserts.next(), options.entries);
    const std::string text = ShortTextOf(number);
    const uint64_t due_ns = start_ns + i * kNsPerSecond / options.lookups_per_s;
    while (MonotonicNs() < due_ns) CpuPause();
    const Switches before = SwitchesOfThread();
    const uint64_t from_ns = MonotonicNs();
    if (options.sleep_every != 0 && i % options.sleep_every == 0) std::this_thread::sleep_for(kSleep);
    const std::optional<bool> tried = shard->TryLookup(text, 0, vector.data(), &value);
    const bool hit = tried.has_value() ? *tried : shard->Lookup(text, 0, vector.data(), &value);
    const uint64_t ns = MonotonicNs() - from_ns;
    bool preempted = false;
    if (ns >= kSlowNs) {
      const Switches after = SwitchesOfThread();
      preempted = after.by_itself == before.by_itself && after.by_force != before.by_force;
    }
    const double us = static_cast<double>(ns) / 1e3;
    waits.all_us.push_back(us);
    preempted ? void(++waits.preempted) : waits.waited_us.push_back(us);
    waits.busy += tried.has_value() ? 0 : 1;
    waits.hits += hit ? 1 : 0;
    waits.wrong += hit && !inserts.IsVectorOf(number, vector) ? 1 : 0;
  }
  return waits;
}

// The rows of one kind of run.
class Rows {
 public:
  void Add(const Waits& waits) {
    const auto count = static_cast<double>(waits.all_us.size());
    median_.push_back(Quantile(waits.all_us, 0.5));
    p9999_.push_back(Quantile(waits.waited_us, 0.9999));
    p9999_all_.push_back(Quantile(waits.all_us, 0.9999));
    max_.push_back(Largest(waits.waited_us));
    max_all_.push_back(Largest(waits.all_us));
    preempted_.push_back(1e6 * static_cast<double>(waits.preempted) / count);
    busy_.push_back(static_cast<double>(waits.busy) / count);
    hits_.push_back(static_cast<double>(waits.hits) / count);
  }
  void Show(const std::string& prefix, const std::string& title, Report* report) const {
    report->Add(prefix + "p9999_us", title + ": longest wait, p99.99, us", p9999_);
    report->Add(prefix + "p9999_all_us", "  preempted lookups included", p9999_all_);
    report->Add(prefix + "max_us", "  longest wait of all, us", max_);
    report->Add(prefix + "max_all_us", "  preempted lookups included", max_all_);
    report->Add(prefix + "p50_us", "  median of a lookup, us", median_);
    report->Add(prefix + "preempted_ppm", "  preempted, of a million", preempted_);
    report->Add(prefix + "busy", "  left to a worker, share of lookups", busy_);
    report->Add(prefix + "hit_rate", "  hits, share of lookups", hits_);
  }

 private:
  std::vector<double> median_, p9999_, p9999_all_, max_, max_all_, preempted_, busy_, hits_;
};

bool Fail(const std::string& what) {
  std::fprintf(stderr, "lookup_bench: %s\n", what.c_str());
  return false;
}

bool StayOnOneCpu() {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET(static_cast<size_t>(sched_getcpu()), &cpus);
  return sched_setaffinity(0, sizeof(cpus), &cpus) == 0;
}

// That the figures can be bad: lookups that sleep are waits, and those whose CPU another thread takes are not.
bool SelfTest(CacheShard* shard, const Inserts& inserts, Options options) {
  options.sleep_every = 5'000;
  const Waits asleep = LookUp(shard, inserts, options, 1);
  const double slept_us = Quantile(asleep.waited_us, 0.9999);
  options.sleep_every = 0;
  if (!StayOnOneCpu()) return Fail("self-test: this thread cannot be kept on its CPU");
  std::atomic<bool> stop{false};
  std::thread hog([&] {
    while (!stop.load(std::memory_order_relaxed)) CpuPause();  // relaxed: seen a round late
  });
  const Waits pushed = LookUp(shard, inserts, options, 2);
  stop.store(true, std::memory_order_relaxed);
  hog.join();
  std::printf("self-test: asleep p99.99 %.0f us; beside a hog on its CPU preempted %lu, p99.99 %.0f us, all %.0f us\n",
              slept_us, pushed.preempted, Quantile(pushed.waited_us, 0.9999), Quantile(pushed.all_us, 0.9999));
  if (slept_us < 2'000) return Fail("self-test: lookups that sleep are not seen");
  if (pushed.preempted == 0) return Fail("self-test: lookups that lose their CPU are taken for waits");
  return true;
}

bool Measure(const Options& options, Report* report) {
  const BenchDirectory directory(options.base);
  CacheConfig config = ConfigFor(directory.path());
  config.entries_max = options.entries;
  config.bytes_max = 2 * kCacheBytesDefault;  // the bound in entries is the one that is met
  const std::unique_ptr<DiskIo> io = MakeDiskIo(DiskIoKind::kAuto, directory.path(), {}).value();
  const Result<std::unique_ptr<CacheShard>> opened = CacheShard::Open(config, io.get(), Clock::Real());
  if (!opened.ok()) return Fail(opened.status().message());
  CacheShard* const shard = opened.value().get();
  Inserts inserts(shard);
  inserts.Fill(options.entries + options.entries / 10);
  if (!shard->Sync().ok()) return Fail("filling the store failed");
  if (options.self_test) return SelfTest(shard, inserts, options);
  Rows alone, beside;
  std::vector<double> rates;
  const uint64_t evictions = shard->Stats().evictions;
  for (int run = 0; run < options.runs; ++run) {
    const Waits idle = LookUp(shard, inserts, options, 2 * static_cast<uint64_t>(run));
    std::atomic<bool> stop{false};
    const uint64_t before = inserts.next(), start_ns = MonotonicNs();
    std::thread writer([&] { inserts.Keep(options.inserts_per_s, stop); });
    const Waits busy = LookUp(shard, inserts, options, 2 * static_cast<uint64_t>(run) + 1);
    stop.store(true, std::memory_order_relaxed);
    writer.join();
    rates.push_back(static_cast<double>(inserts.next() - before) * 1e9 / static_cast<double>(MonotonicNs() - start_ns));
    if (idle.wrong + busy.wrong != 0) return Fail("a lookup answered with another key's vector");
    alone.Add(idle);
    beside.Add(busy);
  }
  const CacheStats stats = shard->Stats();
  if (stats.evictions == evictions) return Fail("nothing was evicted: the store was not full");
  beside.Show("", "beside the writer", report);
  alone.Show("alone_", "without a writer", report);
  report->Add("inserts_per_s", "inserts per second beside the lookups", rates);
  report->AddValue("entries", static_cast<double>(stats.entries));
  report->AddValue("evictions", static_cast<double>(stats.evictions - evictions));
  report->AddValue("dropped_inserts", static_cast<double>(stats.wal_dropped_inserts));
  return true;
}

int Run(int count, char** arguments) {
  Options options;
  CLI::App app("How long lookups of a full store wait beside a thread that inserts.");
  app.add_option("--dir", options.base, "where the files are created (a million entries: 2 GB)")->capture_default_str();
  app.add_option("--entries", options.entries, "entries that the store holds; a million take 2 GB of memory")
      ->capture_default_str()
      ->check(CLI::Range(1000, 10'000'000));
  app.add_option("--seconds", options.seconds, "of each measurement")->capture_default_str()->check(CLI::Range(1, 60));
  app.add_option("--runs", options.runs, "measurements")->capture_default_str()->check(CLI::Range(1, 100));
  app.add_option("--inserts-per-s", options.inserts_per_s, "by the writer")
      ->capture_default_str()
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--lookups-per-s", options.lookups_per_s, "by the looking thread")
      ->capture_default_str()
      ->check(CLI::Range(1, 1'000'000));
  app.add_flag("--self-test", options.self_test, "shows that waits are seen, and preemption told apart");
  app.add_flag("--json", options.json, "one JSON object as the last line");
  CLI11_PARSE(app, count, arguments);
  Report report("lookup");
  if (!Measure(options, &report)) return 1;
  if (options.self_test) return 0;
  report.AddValue("runs", options.runs);
  report.Print(options.json);
  return 0;
}

}  // namespace
}  // namespace sutra::bench

int main(int count, char** arguments) { return sutra::bench::Run(count, arguments); }
