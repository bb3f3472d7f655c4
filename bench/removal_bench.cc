// What a removal of many costs: a million entries of 384 floats with texts of 200 bytes, a filter by content that a
// tenth of them match: the preview, and the commit until it is durable. Beside it, writing and syncing as many bytes as
// the commit's records take, and the same for a removal of everything.
//   removal_bench [--dir DIRECTORY] [--entries N] [--runs N] [--json]
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <thread>

#include "bench/bench_report.h"
#include "bench/cache_bench_support.h"
#include "cache/disk/disk_io.h"
#include "shm/base/clock.h"

namespace sutra::bench {
namespace {

using Steady = std::chrono::steady_clock;

constexpr uint64_t kOneIn = 10;  // entries that match
constexpr uint64_t kRecordBytes = 128;

double SecondsSince(Steady::time_point start) { return std::chrono::duration<double>(Steady::now() - start).count(); }

struct Options {
  std::string base = std::filesystem::temp_directory_path().string();
  uint64_t entries = 1'000'000;
  int runs = 3;
  bool json = false;
};

struct Seconds {
  std::vector<double> preview, remove, everything, write;
};

CacheConfig LargeConfig(const std::string& directory) {
  CacheConfig config = ConfigFor(directory);
  config.bytes_max = 2 * kCacheBytesDefault;
  config.wal_bytes_max = 2 * config.bytes_max;
  return config;
}

void Insert(CacheShard* shard, const std::vector<std::vector<float>>& vectors, uint64_t number) {
  std::string text = TextOf(number);
  if (number % kOneIn == 0) text.replace(150, 10, "ACME-7 Ltd");
  shard->Insert(text, 0, vectors[number % vectors.size()], CacheValue{1, 40, false}, 0);
  while (number % 256 == 0 && shard->Stats().wal_pending_records > 4096) std::this_thread::yield();
}

// As the disk does it: the bytes of the commit's records, one sync.
double PlainWrite(const std::string& directory, uint64_t bytes) {
  const std::string path = directory + "/plain";
  const std::vector<char> chunk(1 << 20, 'x');
  const int file = open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  if (file < 0) return -1;
  const Steady::time_point start = Steady::now();
  bool good = true;
  for (uint64_t written = 0; written < bytes && good; written += chunk.size()) {
    good = write(file, chunk.data(), chunk.size()) == static_cast<ssize_t>(chunk.size());
  }
  good = fdatasync(file) == 0 && good;
  const double seconds = SecondsSince(start);
  close(file);
  unlink(path.c_str());
  return good ? seconds : -1;
}

const char* Measure(const Options& options, Seconds* seconds) {
  const BenchDirectory directory(options.base);
  const std::unique_ptr<DiskIo> io = MakeDiskIo(DiskIoKind::kAuto, directory.path(), {}).value();
  Result<std::unique_ptr<CacheShard>> opened = CacheShard::Open(LargeConfig(directory.path()), io.get(), Clock::Real());
  if (!opened.ok()) return "opening the shard";
  CacheShard* const shard = opened->get();
  std::vector<std::vector<float>> vectors;
  for (uint64_t i = 0; i < 1000; ++i) vectors.push_back(VectorFor(i));
  const auto go_on = [](uint64_t, uint64_t) { return true; };
  CacheFilter filter;
  filter.contains = "ACME-7";
  for (uint64_t i = 0; i < options.entries; ++i) Insert(shard, vectors, i);
  for (int run = 0; run < options.runs; ++run) {
    for (uint64_t i = 0; run > 0 && i < options.entries; i += kOneIn) Insert(shard, vectors, i);
    if (!shard->Sync().ok() || shard->Stats().entries != options.entries) return "filling the shard";
    Steady::time_point start = Steady::now();
    const Result<CacheAdmin::Preview> preview = shard->PreviewRemoval(filter, go_on);
    seconds->preview.push_back(SecondsSince(start));
    if (!preview.ok() || preview->entries != (options.entries + kOneIn - 1) / kOneIn) return "the preview";
    start = Steady::now();
    const Result<CacheAdmin::Removal> removal = shard->CommitRemoval(preview->token, go_on);
    seconds->remove.push_back(SecondsSince(start));
    if (!removal.ok() || removal->entries != preview->entries) return "the commit";
    seconds->write.push_back(PlainWrite(directory.path(), removal->entries * kRecordBytes));
  }
  filter = {};
  filter.everything = true;
  const Result<CacheAdmin::Preview> preview = shard->PreviewRemoval(filter, go_on);
  if (!preview.ok()) return "the preview of everything";
  const Steady::time_point start = Steady::now();
  if (!shard->CommitRemoval(preview->token, go_on).ok() || shard->Stats().entries != 0) return "removing everything";
  seconds->everything.push_back(SecondsSince(start));
  return nullptr;
}

int Run(int count, char** arguments) {
  Options options;
  CLI::App app("What a removal of many entries costs.");
  app.add_option("--dir", options.base, "where the files are created (a million entries: 2 GB)")->capture_default_str();
  app.add_option("--runs", options.runs, "measurements")->capture_default_str()->check(CLI::Range(1, 100));
  app.add_option("--entries", options.entries, "entries")->capture_default_str()->check(CLI::Range(100, 1'000'000));
  app.add_flag("--json", options.json, "one JSON object as the last line");
  CLI11_PARSE(app, count, arguments);
  Seconds seconds;
  if (const char* failed = Measure(options, &seconds); failed != nullptr) {
    std::fprintf(stderr, "removal_bench: %s failed\n", failed);
    return 1;
  }
  Report report("removal");
  if (options.entries != 1'000'000) report.Note("the figures are of --entries entries, not of a million");
  report.Add("preview_s", "a filter over a million entries: preview, s", seconds.preview);
  report.Add("remove_s", "  commit of the tenth that matches, durable, s", seconds.remove);
  report.Add("write_s", "    writing as many bytes and one sync, s", seconds.write);
  report.Add("everything_s", "  then everything, durable, s", seconds.everything);
  report.AddValue("entries", static_cast<double>(options.entries));
  report.AddValue("runs", options.runs);
  report.Print(options.json);
  return 0;
}

}  // namespace
}  // namespace sutra::bench

int main(int count, char** arguments) { return sutra::bench::Run(count, arguments); }
