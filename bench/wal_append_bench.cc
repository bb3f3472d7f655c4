// The cache's log and its hits:
//   - appends per second at the default durability (interval), each record 384 floats and a text of 200 bytes, until
//     synced
//   - group commit: 1, 8 and 64 threads that each insert and wait until it is durable, through our disk access and,
//     beside it in the same run and with the same committer, through buffered pwrite + fdatasync; and the waits of 64
//     while all CPUs compute
//   - one durable append at a time, beside bare ones without a log
//   - how long records stay unwritten while syncs are slow; what is written to the disk per byte inserted; what the log
//     costs an engine that embeds
//   - an exact hit, copied out
//   wal_append_bench [--dir DIRECTORY] [--model FOLDER] [--runs N] [--only PART] [--json]
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <optional>

#include "bench/bench_report.h"
#include "bench/cache_bench_support.h"
#include "bench/wal_disks.h"
#include "bench/wal_engine_cost.h"
#include "bench/wal_loads.h"
#include "cache/disk/disk_io.h"

namespace sutra::bench {
namespace {

using Steady = std::chrono::steady_clock;

constexpr int kWaiters[] = {1, 8, 64};
constexpr int kSlowSyncMs = 400, kSlowSyncInsertsPerMs = 20;

double SecondsSince(Steady::time_point start) { return std::chrono::duration<double>(Steady::now() - start).count(); }

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

// The values of one figure for each kind of group commit.
struct Groups {
  std::vector<double> ours[3], plain[3], over[3], loaded_ms, crowded_ms;
};

void MeasureGroups(const std::string& base, DiskIo* ours, DiskIo* plain, int run, Groups* groups) {
  for (int i = 0; i < 3; ++i) {
    double per_s[2] = {};
    // The order changes, so that drift of the machine affects both.
    for (int turn = 0; turn < 2; ++turn) {
      const bool ours_now = (turn + run) % 2 == 0;
      per_s[ours_now ? 0 : 1] = GroupCommits(base, ours_now ? ours : plain, kWaiters[i], Company::kNone).per_s;
    }
    groups->ours[i].push_back(per_s[0]);
    groups->plain[i].push_back(per_s[1]);
    groups->over[i].push_back(per_s[0] / per_s[1]);
  }
  groups->loaded_ms.push_back(GroupCommits(base, ours, 64, Company::kComputingBelow).p99_ms);
  groups->crowded_ms.push_back(GroupCommits(base, ours, 64, Company::kComputing).p99_ms);
}

void ReportGroups(const Groups& groups, const std::string& disk, Report* report) {
  for (int i = 0; i < 3; ++i) {
    const std::string n = std::to_string(kWaiters[i]);
    report->Add("group_" + n + "_per_s", "durable appends/s, " + n + " waiters, " + disk, groups.ours[i]);
    report->Add("group_" + n + "_plain_per_s", "  the same by buffered pwrite + fdatasync", groups.plain[i]);
    report->Add("group_" + n + "_over_plain", "  ratio", groups.over[i]);
  }
  report->AddValue("group_over_plain", Median(groups.over[2]));
  report->Add("group_p99_loaded_ms", "64 waiters, all CPUs computing, p99 ms", groups.loaded_ms);
  report->Add("group_p99_crowded_ms", "  the same, waiters at the priority of the load", groups.crowded_ms);
}

// A durable append of one waiter over the best of the bare ones, run by run.
void ReportAppends(const std::vector<AppendFigures>& runs, Report* report) {
  std::vector<double> ours, ratios;
  std::vector<std::vector<double>> bare(kBareAppends.size());
  for (const AppendFigures& run : runs) {
    ours.push_back(run.ours_us);
    ratios.push_back(run.ours_us / *std::min_element(run.bare_us.begin(), run.bare_us.end()));
    for (size_t kind = 0; kind < bare.size(); ++kind) bare[kind].push_back(run.bare_us[kind]);
  }
  report->Add("sync_us", "durable append, one waiter, p50 us", ours);
  for (size_t kind = 0; kind < bare.size(); ++kind) {
    report->Add("sync_bare_" + std::to_string(kind) + "_us", std::string("  ") + kBareAppends[kind].second, bare[kind]);
  }
  report->Add("sync_over_plain", "  ratio to the best of these", ratios);
}

int Run(int count, char** arguments) {
  std::string base = std::filesystem::temp_directory_path().string();
  std::string model, only;
  int runs = 7;
  bool json = false;
  CLI::App options("The cache's log: appends, group commit, slow syncs, bytes written; and exact hits.");
  options.add_option("--dir", base, "where the files are created")->capture_default_str();
  options.add_option("--runs", runs, "measurements")->capture_default_str()->check(CLI::Range(1, 1000));
  options.add_option("--model", model, "folder of the real model, for interval_cost");
  options.add_option("--only", only, "interval, groups, sync, slow, written, cost or hits");
  options.add_flag("--json", json, "one JSON object as the last line");
  CLI11_PARSE(options, count, arguments);
  Result<std::unique_ptr<DiskIo>> ours = MakeDiskIo(
      DiskIoKind::kAuto, base, [](LogLevel, const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); });
  if (!ours.ok()) {
    std::fprintf(stderr, "%s\n", ours.status().message().c_str());
    return 1;
  }
  const std::unique_ptr<DiskIo> plain = MakePosixDiskIo(false);
  const auto wanted = [&](const char* part) { return only.empty() || only == part; };
  Report report("wal");
  std::vector<double> interval, hits, written, cost, unwritten_ms, dropped;
  std::vector<AppendFigures> appends;
  Groups groups;
  std::string why;
  for (int run = 0; run < runs; ++run) {
    if (wanted("interval")) interval.push_back(IntervalAppends(base, ours->get()));
    if (wanted("groups")) MeasureGroups(base, ours->get(), plain.get(), run, &groups);
    if (wanted("sync")) appends.push_back(DurableAppends(base, ours->get()));
    if (wanted("hits")) hits.push_back(HitNs());
    // These take seconds, and vary little.
    if (run == 0 && wanted("written")) written.push_back(WriteAmplification(base));
    if (run == 0 && wanted("slow")) {
      const SlowSyncFigures slow = SlowSyncs(base, kSlowSyncMs, kSlowSyncInsertsPerMs);
      unwritten_ms.push_back(slow.unwritten_ms);
      dropped.push_back(slow.dropped);
    }
    if (run < 3 && wanted("cost")) {
      if (const std::optional<double> measured = IntervalCost(model, &why)) cost.push_back(*measured);
    }
  }
  report.Add("interval_appends_per_s", "appends/s, interval policy, until synced", interval);
  if (wanted("groups")) ReportGroups(groups, (*ours)->name(), &report);
  if (wanted("sync")) ReportAppends(appends, &report);
  report.Add("write_amplification", "bytes written per byte inserted, store full", written);
  report.Add("slow_sync_unwritten_ms", "syncs of 400 ms, 20,000 inserts/s: unwritten, ms", unwritten_ms);
  report.Add("slow_sync_dropped", "  inserts dropped from the log", dropped);
  report.Add("interval_cost", "CPU time of the log over that of embedding", cost);
  if (!why.empty()) report.Note("interval_cost: " + why);
  report.Add("hit_ns", "exact hit of 384 floats among 100,000 entries, ns", hits);
  report.AddValue("runs", runs);
  report.Print(json);
  return 0;
}

}  // namespace
}  // namespace sutra::bench

int main(int count, char** arguments) { return sutra::bench::Run(count, arguments); }
