// What a restart costs. From a directory with 100,000 entries of 384 floats to the first exact hit: the files in the
// page cache, and dropped from it; beside it, reading the same bytes without using them. The same with a million, and
// the memory that they take up. And what a restart loses: how much of the hot set (hot_set.h).
// The directory is left as a killed engine leaves it. Every run is a process of its own.
//   restart_bench [--dir DIRECTORY] [--entries N] [--large N] [--runs N] [--json] [--self-test]
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <fstream>
#include <thread>

#include "bench/bench_child.h"
#include "bench/bench_report.h"
#include "bench/cache_bench_support.h"
#include "bench/hot_set.h"
#include "cache/disk/disk_io.h"
#include "shm/base/clock.h"

namespace sutra::bench {
namespace {

using Steady = std::chrono::steady_clock;

double MsSince(Steady::time_point start) {
  return std::chrono::duration<double, std::milli>(Steady::now() - start).count();
}

double Fill(const std::string& directory, uint64_t entries) {
  std::unique_ptr<DiskIo> io = MakeDiskIo(DiskIoKind::kAuto, directory, {}).value();
  Result<std::unique_ptr<CacheShard>> shard = CacheShard::Open(ConfigFor(directory), io.get(), Clock::Real());
  if (!shard.ok()) return -1;
  for (uint64_t i = 0; i < entries; ++i) {
    (*shard)->Insert(TextOf(i), 0, VectorFor(i), CacheValue{1, 40, false}, 0);
    while (i % 256 == 0 && (*shard)->Stats().wal_pending_records > 4096) std::this_thread::yield();
  }
  if (!(*shard)->Sync().ok() || (*shard)->Stats().wal_dropped_inserts != 0) return -1;
  return 0;
}

// Milliseconds from an empty process to the first hit. The process ends like a killed one.
double Restart(const std::string& directory, uint64_t entries) {
  const std::string text = TextOf(entries / 2);
  std::vector<float> vector(kWidth);
  CacheValue value;
  const Steady::time_point start = Steady::now();
  std::unique_ptr<DiskIo> io = MakeDiskIo(DiskIoKind::kAuto, directory, {}).value();
  Result<std::unique_ptr<CacheShard>> shard = CacheShard::Open(ConfigFor(directory), io.get(), Clock::Real());
  if (!shard.ok() || !(*shard)->Lookup(text, 0, vector.data(), &value)) return -1;
  const double ms = MsSince(start);
  if (vector != VectorFor(entries / 2) || (*shard)->Stats().entries != entries) return -1;
  return ms;
}

// Resident memory of this process in bytes: anonymous, and pages of mapped files.
double ResidentBytes() {
  std::ifstream file("/proc/self/smaps_rollup");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("Rss:", 0) == 0) return 1024 * std::strtod(line.c_str() + 4, nullptr);
  }
  return -1;
}

// A store whose bound is exactly what is put into it, with short texts: what one entry costs beside them shows best.
CacheConfig LargeConfig(const std::string& directory, uint64_t entries) {
  CacheConfig config = ConfigFor(directory);
  config.entries_max = entries;
  config.bytes_max = 2 * kCacheBytesDefault;
  return config;
}

double BeyondContent(double bytes, uint64_t entries) {
  return bytes / static_cast<double>(entries) - static_cast<double>(kWidth * sizeof(float) + kShortTextBytes);
}

// RETURNS bytes of memory per entry beyond vector and text.
double FillLarge(const std::string& directory, uint64_t entries) {
  const double before = ResidentBytes();
  std::unique_ptr<DiskIo> io = MakeDiskIo(DiskIoKind::kAuto, directory, {}).value();
  Result<std::unique_ptr<CacheShard>> shard =
      CacheShard::Open(LargeConfig(directory, entries), io.get(), Clock::Real());
  if (!shard.ok() || before < 0) return -1;
  for (uint64_t i = 0; i < entries; ++i) {
    (*shard)->Insert(ShortTextOf(i), 0, VectorFor(i), CacheValue{1, 40, false}, 0);
    while (i % 256 == 0 && (*shard)->Stats().wal_pending_records > 4096) std::this_thread::yield();
  }
  if (!(*shard)->Sync().ok() || (*shard)->Stats().wal_dropped_inserts != 0) return -1;
  return BeyondContent(ResidentBytes() - before, (*shard)->Stats().entries);
}

// Seconds to the first hit, or memory as FillLarge when everything is read.
double RestartLarge(const std::string& directory, uint64_t entries, bool memory) {
  const std::string text = ShortTextOf(entries - 1);
  std::vector<float> vector(kWidth);
  CacheValue value;
  const double before = ResidentBytes();
  const Steady::time_point start = Steady::now();
  std::unique_ptr<DiskIo> io = MakeDiskIo(DiskIoKind::kAuto, directory, {}).value();
  Result<std::unique_ptr<CacheShard>> shard =
      CacheShard::Open(LargeConfig(directory, entries), io.get(), Clock::Real());
  if (!shard.ok() || !(*shard)->Lookup(text, 0, vector.data(), &value)) return -1;
  const double ms = MsSince(start);
  while (memory && (*shard)->Stats().unread_entries > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const uint64_t there = (*shard)->Stats().entries;
  if (vector != VectorFor(entries - 1) || there < entries - entries / 20) return -1;
  return memory ? BeyondContent(ResidentBytes() - before, there) : ms / 1e3;
}

template <typename Visit>
void ForEachSegment(const std::string& directory, Visit visit) {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    if (entry.path().extension() != ".log") continue;
    const int file = open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) continue;
    visit(file);
    close(file);
  }
}

void DropFromPageCache(const std::string& directory) {
  ForEachSegment(directory, [](int file) {
    fdatasync(file);
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
  });
}

double ReadOnly(const std::string& directory) {
  std::vector<char> buffer(1 << 20);
  const Steady::time_point start = Steady::now();
  ForEachSegment(directory, [&](int file) {
    while (read(file, buffer.data(), buffer.size()) > 0) {
    }
  });
  return MsSince(start);
}

struct Options {
  std::string base = std::filesystem::temp_directory_path().string();
  int runs = 7;
  uint64_t entries = 100'000;
  uint64_t large = 1'000'000;
  bool json = false;
  bool self_test = false;
};

// Each of these adds its rows, or names on standard error what failed.
bool Fail(const char* what) {
  std::fprintf(stderr, "restart_bench: %s failed\n", what);
  return false;
}

bool MeasureRestarts(const Options& options, Report* report) {
  const BenchDirectory directory(options.base);
  if (InChild([&] { return Fill(directory.path(), options.entries); }) < 0) return Fail("filling the directory");
  std::vector<double> warm, cold, read_warm, read_cold, seconds;
  for (int run = 0; run < options.runs; ++run) {
    DropFromPageCache(directory.path());
    read_cold.push_back(InChild([&] { return ReadOnly(directory.path()); }));
    DropFromPageCache(directory.path());
    cold.push_back(InChild([&] { return Restart(directory.path(), options.entries); }));
    read_warm.push_back(InChild([&] { return ReadOnly(directory.path()); }));
    warm.push_back(InChild([&] { return Restart(directory.path(), options.entries); }));
    if (warm.back() < 0 || cold.back() < 0) return Fail("a restart");
    if (options.entries == 100'000) seconds.push_back(warm.back() / 1e3);
  }
  report->Add("restart_warm_ms", "to the first exact hit, page cache warm, ms", warm);
  report->Add("read_warm_ms", "  reading the same files only", read_warm);
  report->Add("restart_cold_ms", "to the first exact hit, page cache cold, ms", cold);
  report->Add("read_cold_ms", "  reading the same files only", read_cold);
  report->Add("s_100k", "100,000 entries: to the first exact hit, warm, s", seconds);
  return true;
}

bool MeasureLarge(const Options& options, Report* report) {
  const BenchDirectory directory(options.base);
  std::vector<double> seconds, read, filled, restarted;
  if (options.large != 0) {
    filled.push_back(InChild([&] { return FillLarge(directory.path(), options.large); }));
    if (filled.back() < 0) return Fail("filling the large directory");
    for (int run = 0; run < std::min(options.runs, 3); ++run) {
      read.push_back(InChild([&] { return ReadOnly(directory.path()); }) / 1e3);
      seconds.push_back(InChild([&] { return RestartLarge(directory.path(), options.large, false); }));
      restarted.push_back(InChild([&] { return RestartLarge(directory.path(), options.large, true); }));
      if (seconds.back() < 0 || restarted.back() < 0) return Fail("a restart of the large directory");
    }
  }
  if (options.large != 1'000'000) report->Note("s_1m and its rows are of --large entries, not of a million");
  report->Add("s_1m", "1,000,000 entries: to the first exact hit, warm, s", seconds);
  report->Add("read_1m_s", "  reading the same files only", read);
  report->Add("bytes_per_entry", "memory per entry beyond vector and text, bytes", filled);
  report->Add("bytes_per_entry_restarted", "  after a restart", restarted);
  return true;
}

bool MeasureHotSet(const Options& options, Report* report) {
  std::vector<double> before, kept;
  for (int run = 0; run < std::min(options.runs, 3); ++run) {
    const BenchDirectory directory(options.base);
    const HotSet::Result result = HotSet(directory.path()).Run();
    if (result.kept_percent < 0) return Fail("the hot set");
    before.push_back(result.before_percent);
    kept.push_back(result.kept_percent);
  }
  report->Add("hot_before_percent", "hot keys in the full store before kill -9, %", before);
  report->Add("hot_kept_percent", "  of those, there after the restart, %", kept);
  return true;
}

// That the figure can be bad: without the log nothing of the hot set is kept.
int SelfTest(const Options& options) {
  const BenchDirectory directory(options.base);
  const HotSet::Result result = HotSet(directory.path()).Run([&] {
    for (const auto& entry : std::filesystem::directory_iterator(directory.path())) remove_all(entry.path());
  });
  std::printf("self-test: hot keys before %.1f %%, kept without the log %.1f %%\n", result.before_percent,
              result.kept_percent);
  return result.before_percent > 50 && result.kept_percent == 0 ? 0 : 1;
}

int Run(int count, char** arguments) {
  Options options;
  CLI::App app("From a directory full of entries to the first exact hit, and what a restart costs and loses.");
  app.add_option("--dir", options.base, "where the files are created (a million entries: 2 GB)")->capture_default_str();
  app.add_option("--runs", options.runs, "measurements")->capture_default_str()->check(CLI::Range(1, 1000));
  app.add_option("--entries", options.entries, "entries in the directory")
      ->capture_default_str()
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--large", options.large, "entries in the large directory (0: leave it out)")
      ->capture_default_str()
      ->check(CLI::Range(0, 1'000'000));
  app.add_flag("--json", options.json, "one JSON object as the last line");
  app.add_flag("--self-test", options.self_test, "shows that a lost hot set is seen");
  CLI11_PARSE(app, count, arguments);
  if (options.self_test) return SelfTest(options);
  Report report("restart");
  if (!MeasureRestarts(options, &report) || !MeasureLarge(options, &report) || !MeasureHotSet(options, &report))
    return 1;
  report.AddValue("entries", static_cast<double>(options.entries));
  report.AddValue("runs", options.runs);
  report.Print(options.json);
  return 0;
}

}  // namespace
}  // namespace sutra::bench

int main(int count, char** arguments) { return sutra::bench::Run(count, arguments); }
