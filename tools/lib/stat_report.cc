// See stat_report.h.
#include "tools/lib/stat_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace sutra {

namespace {

constexpr std::pair<const char*, const char*> kStages[] = {
    {"take", "stage_take_ns"},       {"tokenise", "stage_tokenise_ns"}, {"queue", "stage_queue_ns"},
    {"compute", "stage_compute_ns"}, {"publish", "stage_publish_ns"},
};
constexpr std::pair<const char*, const char*> kTotals[] = {{"hit, total", "hit_total_ns"},
                                                           {"miss, total", "miss_total_ns"}};
constexpr std::pair<const char*, double> kPercentiles[] = {
    {"p50", 0.50}, {"p90", 0.90}, {"p99", 0.99}, {"p999", 0.999}};

using Lines = std::back_insert_iterator<std::string>;

// In a live view the last interval, otherwise everything since the engine started.
HistogramSnapshot Recent(const StatView& view, const char* label) {
  const HistogramSnapshot& all = view.now.histogram(label);
  return view.before == nullptr ? all : all.Since(view.before->histogram(label));
}

double Seconds(const StatView& view) {
  return static_cast<double>(view.now.taken_monotonic_ns - view.before->taken_monotonic_ns) / 1e9;
}

// " (123/s)" in a live view, else "".
std::string Rate(const StatView& view, const char* label) {
  if (view.before == nullptr || Seconds(view) <= 0) return {};
  const uint64_t earlier = view.before->counter(label);
  const uint64_t now = view.now.counter(label);
  return fmt::format(" ({:.0f}/s)", static_cast<double>(now - std::min(now, earlier)) / Seconds(view));
}

void EngineLines(const StatView& view, Lines out) {
  const StatsSnapshot& s = view.now;
  fmt::format_to(out, "engine    {}, last heartbeat {} ago, pid {}", EngineLifeName(view.life),
                 DurationText(static_cast<double>(HeartbeatAgeNs(s, view.evidence))), s.gauge("pid"));
  const uint64_t start = s.gauge("start_wall_ns");
  const uint64_t beat = s.gauge("heartbeat_wall_ns");
  if (start != 0 && beat > start) fmt::format_to(out, ", ran {}", DurationText(static_cast<double>(beat - start)));
  fmt::format_to(out, "\n");
  if (view.life == EngineLife::kStale) {
    fmt::format_to(out,
                   "          its lock is held but it does not beat: stopped (SIGSTOP), swapped out or overloaded\n");
  } else if (view.life == EngineLife::kCrashed) {
    fmt::format_to(out,
                   "          it ended without saying so; the figures below are its last. Start it again: the cache "
                   "recovers\n");
  }
  fmt::format_to(out, "model     {}, {} floats, {} tokens at most, {} on {}, {} worker(s)\n", s.model,
                 s.gauge("model_width"), s.gauge("model_tokens_max"), s.precision, s.device, s.gauge("workers"));
  fmt::format_to(out, "socket    {}   version {}\n", s.socket, s.version_text);
}

void TrafficLines(const StatView& view, Lines out) {
  const StatsSnapshot& s = view.now;
  const TextShares shares = SharesOf(s);
  fmt::format_to(out, "texts     {}{}, tokens computed {}{}, truncated {}\n", s.counter("texts"), Rate(view, "texts"),
                 s.counter("tokens_computed"), Rate(view, "tokens_computed"), s.counter("truncated"));
  fmt::format_to(out, "cache     hits {}{} = {:.1f} %, joined {}{} = {:.1f} %, misses {}{} = {:.1f} %\n", shares.hits,
                 Rate(view, "hits"), 100 * shares.Share(shares.hits), shares.joined, Rate(view, "joined"),
                 100 * shares.Share(shares.joined), shares.misses, Rate(view, "misses"),
                 100 * shares.Share(shares.misses));
  fmt::format_to(out,
                 "queue     {} texts, {} tokens, in flight {}; lanes {} (attached {}, refused {}, died {}, broke the "
                 "protocol {})\n",
                 s.gauge("queue_texts"), s.gauge("queue_tokens"), s.gauge("in_flight_texts"), s.gauge("lanes"),
                 s.counter("attaches"), s.counter("attaches_refused"), s.counter("lanes_client_died"),
                 s.counter("lanes_protocol_violation"));
  std::string failed;
  for (const auto& [label, count] : s.counters) {
    if (count != 0 && label.rfind("replies_", 0) == 0 && label != "replies_ok") {
      failed += fmt::format(", {} {}", label.substr(8), count);
    }
  }
  std::replace(failed.begin(), failed.end(), '_', ' ');
  fmt::format_to(out, "replies   ok {}{}\n", s.counter("replies_ok"), failed);
}

void BatchLines(const StatView& view, Lines out) {
  const HistogramSnapshot texts = Recent(view, "batch_size_texts");
  const HistogramSnapshot tokens = Recent(view, "batch_size_tokens");
  fmt::format_to(out,
                 "batches   {}{}: texts p50 {:.0f}, p99 {:.0f}, mean {:.1f}; tokens p50 {:.0f}, p99 {:.0f}, mean "
                 "{:.0f}; padding 0\n",
                 view.now.counter("batches"), Rate(view, "batches"), texts.Percentile(0.5), texts.Percentile(0.99),
                 texts.Mean(), tokens.Percentile(0.5), tokens.Percentile(0.99), tokens.Mean());
}

void LatencyRow(const char* name, const HistogramSnapshot& histogram, double mean_sum, Lines out) {
  fmt::format_to(out, "  {:<12}", name);
  if (histogram.count == 0) {
    fmt::format_to(out, " {:>9}\n", "none");
    return;
  }
  for (const auto& [label, fraction] : kPercentiles) {
    fmt::format_to(out, " {:>9}", DurationText(histogram.Percentile(fraction)));
  }
  fmt::format_to(out, " {:>9} {:>9}", DurationText(static_cast<double>(histogram.max)), histogram.count);
  if (mean_sum > 0) fmt::format_to(out, " {:>8.1f} %", 100 * histogram.Mean() / mean_sum);
  fmt::format_to(out, "\n");
}

// The last column is each stage's mean over the sum of the means: where a computed text spends its time. Compute counts
// once a batch, the other stages once a text.
void LatencyLines(const StatView& view, Lines out) {
  fmt::format_to(out, "latency       {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10}   {}\n", "p50", "p90", "p99", "p99.9",
                 "max", "count", "of a miss",
                 view.before == nullptr ? "(since start)" : "(last interval; max since start)");
  for (const auto& [name, label] : kTotals) LatencyRow(name, Recent(view, label), 0, out);
  double sum = 0;
  for (const auto& [name, label] : kStages) sum += Recent(view, label).Mean();
  for (const auto& [name, label] : kStages) LatencyRow(name, Recent(view, label), sum, out);
}

void StorageLines(const StatView& view, Lines out) {
  const StatsSnapshot& s = view.now;
  fmt::format_to(out, "entries   {}, {}, evicted {}, expired {}\n", s.gauge("cache_entries"),
                 BytesText(static_cast<double>(s.gauge("cache_bytes"))), s.gauge("cache_evictions"),
                 s.gauge("cache_expirations"));
  fmt::format_to(out,
                 "log       {} ({}), {} records, {}, {} syncs, {} segments; lag {} records, oldest unwritten {}, "
                 "oldest unsynced {}\n",
                 s.gauge("storage_failed") != 0 ? "FAILED: hits go on, nothing new is stored" : "ok",
                 s.disk_io.empty() ? "none" : s.disk_io, s.gauge("wal_appends"),
                 BytesText(static_cast<double>(s.gauge("wal_bytes"))), s.gauge("wal_syncs"), s.gauge("wal_segments"),
                 s.gauge("wal_pending_records"),
                 DurationText(1e3 * static_cast<double>(s.gauge("wal_oldest_unwritten_us"))),
                 DurationText(1e3 * static_cast<double>(s.gauge("wal_oldest_unsynced_us"))));
  fmt::format_to(out, "recovery  {} records, dropped {}, quarantined segments {}, dropped inserts {}\n",
                 s.gauge("recovered_records"), s.gauge("recovered_dropped"), s.gauge("quarantined_segments"),
                 s.gauge("wal_dropped_inserts"));
}

}  // namespace

StatView MakeStatView(StatsSnapshot snapshot, const std::string& segment) {
  StatView view;
  view.now = std::move(snapshot);
  view.evidence = GatherEvidence(view.now);
  view.life = JudgeEngine(view.now, view.evidence);
  view.segment = segment;
  return view;
}

TextShares SharesOf(const StatsSnapshot& snapshot) {
  return {snapshot.counter("hits"), snapshot.counter("joined"), snapshot.counter("misses")};
}

std::string StatText(const StatView& view) {
  std::string text;
  Lines out(text);
  EngineLines(view, out);
  TrafficLines(view, out);
  BatchLines(view, out);
  LatencyLines(view, out);
  StorageLines(view, out);
  return text;
}

nlohmann::json StatJson(const StatView& view) {
  const StatsSnapshot& s = view.now;
  const TextShares shares = SharesOf(s);
  nlohmann::json json = {
      {"life", EngineLifeName(view.life)},
      {"heartbeat_age_ms", static_cast<double>(HeartbeatAgeNs(s, view.evidence)) / 1e6},
      {"segment", view.segment},
      {"socket", s.socket},
      {"version", s.version_text},
      {"engine_generation", fmt::format("{:016x}", s.engine_generation)},
      {"model", s.model},
      {"identity", s.identity},
      {"precision", s.precision},
      {"device", s.device},
      {"disk_io", s.disk_io},
      {"lookups", shares.lookups()},
      {"hit_rate", shares.Share(shares.hits)},
      {"joined_rate", shares.Share(shares.joined)},
      {"counters", s.counters},
      {"gauges", s.gauges},
  };
  for (const auto& [label, histogram] : s.histograms) {
    nlohmann::json& entry = json["histograms"][label];
    entry = {{"count", histogram.count}, {"sum", histogram.sum}, {"mean", histogram.Mean()}, {"max", histogram.max}};
    for (const auto& [name, fraction] : kPercentiles) entry[name] = histogram.Percentile(fraction);
  }
  return json;
}

std::string DurationText(double ns) {
  if (ns < 1e3) return fmt::format("{:.0f} ns", ns);
  if (ns < 1e4) return fmt::format("{:.1f} us", ns / 1e3);
  if (ns < 1e6) return fmt::format("{:.0f} us", ns / 1e3);
  if (ns < 1e7) return fmt::format("{:.1f} ms", ns / 1e6);
  if (ns < 1e9) return fmt::format("{:.0f} ms", ns / 1e6);
  const double s = ns / 1e9;
  if (s < 60) return fmt::format("{:.1f} s", s);
  const auto whole = static_cast<uint64_t>(s);
  if (s < 3600) return fmt::format("{} m {} s", whole / 60, whole % 60);
  if (s < 86'400) return fmt::format("{} h {} m", whole / 3600, whole % 3600 / 60);
  return fmt::format("{} d {} h", whole / 86'400, whole % 86'400 / 3600);
}

std::string BytesText(double bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  for (; bytes >= 1024 && unit + 1 < std::size(kUnits); ++unit) bytes /= 1024;
  return fmt::format("{:.{}f} {}", bytes, unit == 0 ? 0 : 1, kUnits[unit]);
}

int StatExitCode(EngineLife life) {
  switch (life) {
    case EngineLife::kStopped: return 2;
    case EngineLife::kCrashed: return 3;
    case EngineLife::kStale: return 4;
    default: return 0;
  }
}

}  // namespace sutra
