// From a directory with 100,000 entries of 384 floats to the first exact hit: the files in the page cache, and dropped
// from it. The directory is left as a killed engine leaves it. Every run is a process of its own. Beside it: reading
// the same bytes without using them.
//   restart_bench [--dir DIRECTORY] [--entries N] [--runs N] [--json]
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <functional>
#include <thread>

#include "bench/bench_report.h"
#include "bench/cache_bench_support.h"
#include "cache/disk/disk_io.h"
#include "shm/base/clock.h"

namespace sutra::bench {
namespace {

using Steady = std::chrono::steady_clock;

double MsSince(Steady::time_point start) {
  return std::chrono::duration<double, std::milli>(Steady::now() - start).count();
}

// Runs `work` in a child process, which ends without any clean-up, and returns its figure; negative on failure.
double InChild(const std::function<double()>& work) {
  int ends[2];
  if (pipe(ends) != 0) return -1;
  const pid_t child = fork();
  if (child == 0) {
    const double result = work();
    const bool sent = write(ends[1], &result, sizeof(result)) == static_cast<ssize_t>(sizeof(result));
    _exit(sent ? 0 : 1);
  }
  close(ends[1]);
  double result = -1;
  if (read(ends[0], &result, sizeof(result)) != static_cast<ssize_t>(sizeof(result))) result = -1;
  close(ends[0]);
  waitpid(child, nullptr, 0);
  return result;
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

int Run(int count, char** arguments) {
  std::string base = std::filesystem::temp_directory_path().string();
  int runs = 7;
  uint64_t entries = 100'000;
  bool json = false;
  CLI::App options("From a directory full of entries to the first exact hit.");
  options.add_option("--dir", base, "where the files are created")->capture_default_str();
  options.add_option("--runs", runs, "measurements")->capture_default_str()->check(CLI::Range(1, 1000));
  options.add_option("--entries", entries, "entries in the directory")
      ->capture_default_str()
      ->check(CLI::Range(1, 1'000'000));
  options.add_flag("--json", json, "one JSON object as the last line");
  CLI11_PARSE(options, count, arguments);
  const BenchDirectory directory(base);
  const auto fail = [](const char* what) {
    std::fprintf(stderr, "restart_bench: %s failed\n", what);
    return 1;
  };
  if (InChild([&] { return Fill(directory.path(), entries); }) < 0) return fail("filling the directory");
  std::vector<double> warm, cold, read_warm, read_cold;
  for (int run = 0; run < runs; ++run) {
    DropFromPageCache(directory.path());
    read_cold.push_back(InChild([&] { return ReadOnly(directory.path()); }));
    DropFromPageCache(directory.path());
    cold.push_back(InChild([&] { return Restart(directory.path(), entries); }));
    read_warm.push_back(InChild([&] { return ReadOnly(directory.path()); }));
    warm.push_back(InChild([&] { return Restart(directory.path(), entries); }));
    if (warm.back() < 0 || cold.back() < 0) return fail("a restart");
  }
  Report report("restart");
  report.Add("restart_warm_ms", "to the first exact hit, page cache warm, ms", warm);
  report.Add("read_warm_ms", "  reading the same files only", read_warm);
  report.Add("restart_cold_ms", "to the first exact hit, page cache cold, ms", cold);
  report.Add("read_cold_ms", "  reading the same files only", read_cold);
  report.AddValue("entries", static_cast<double>(entries));
  report.AddValue("runs", runs);
  report.Print(json);
  return 0;
}

}  // namespace
}  // namespace sutra::bench

int main(int count, char** arguments) { return sutra::bench::Run(count, arguments); }
