// The lines of the text report, one function per group of lines, then the JSON object and the exit codes.
#include "tools/lib/stat_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <iterator>
#include <utility>

#include "shm/base/time.h"

namespace sutra {

namespace {

constexpr std::pair<const char*, Histogram> kStages[] = {
    {"take", Histogram::kStageTake},       {"tokenise", Histogram::kStageTokenise}, {"queue", Histogram::kStageQueue},
    {"compute", Histogram::kStageCompute}, {"publish", Histogram::kStagePublish},
};
constexpr std::pair<const char*, Histogram> kTotals[] = {{"hit, total", Histogram::kHitTotal},
                                                         {"miss, total", Histogram::kMissTotal}};
constexpr std::pair<const char*, double> kPercentiles[] = {
    {"p50", 0.50}, {"p90", 0.90}, {"p99", 0.99}, {"p999", 0.999}};

using Lines = std::back_insert_iterator<std::string>;

// In a live view the last interval, otherwise everything since the engine started.
HistogramSnapshot Recent(const StatView& view, Histogram histogram) {
  const HistogramSnapshot& all = view.now.histogram(histogram);
  return view.before == nullptr ? all : all.Since(view.before->histogram(histogram));
}

double Seconds(const StatView& view) {
  return static_cast<double>(view.now.taken_monotonic_ns - view.before->taken_monotonic_ns) / 1e9;
}

// " (123/s)" in a live view, else "".
std::string Rate(const StatView& view, Counter counter) {
  if (view.before == nullptr || Seconds(view) <= 0) return {};
  const uint64_t earlier = view.before->counter(counter);
  const uint64_t now = view.now.counter(counter);
  return fmt::format(" ({:.0f}/s)", static_cast<double>(now - std::min(now, earlier)) / Seconds(view));
}

void EngineLines(const StatView& view, Lines out) {
  const StatsSnapshot& s = view.now;
  fmt::format_to(out, "engine    {}, last heartbeat {} ago, pid {}", EngineLifeName(view.life),
                 DurationText(static_cast<double>(HeartbeatAgeNs(s, view.evidence))), s.gauge(Gauge::kPid));
  const uint64_t start = s.gauge(Gauge::kStartWallNs);
  const uint64_t beat = s.gauge(Gauge::kHeartbeatWallNs);
  if (start != 0 && beat > start) fmt::format_to(out, ", ran {}", DurationText(static_cast<double>(beat - start)));
  fmt::format_to(out, "\n");
  if (view.life == EngineLife::kStale) {
    fmt::format_to(out, "          no heartbeat, but its lock is held: stopped (SIGSTOP), swapped out or overloaded\n");
  } else if (view.life == EngineLife::kCrashed) {
    fmt::format_to(out,
                   "          it ended without shutting down; these figures are its last. Start it again: the cache "
                   "recovers\n");
  }
  if (s.gauge(Gauge::kSocketLost) != 0) {
    fmt::format_to(out, "          SOCKET LOST: it was removed or replaced, new clients cannot attach\n");
  }
  if (s.gauge(Gauge::kDataLost) != 0) {
    fmt::format_to(out, "          DATA LOST: its directory was removed or replaced, nothing new is kept\n");
  }
  fmt::format_to(out, "model     {}, {} floats, {} tokens at most, {} on {}, {} worker(s)\n", s.model,
                 s.gauge(Gauge::kModelWidth), s.gauge(Gauge::kModelTokensMax), s.precision, s.device,
                 s.gauge(Gauge::kWorkers));
  fmt::format_to(out, "socket    {}   version {}, standbys {} ({} of them ready)\n", s.socket, s.version_text,
                 s.gauge(Gauge::kStandbys), s.gauge(Gauge::kStandbysReady));
}

// ", reason count" for each counter that is not zero and whose label is this prefix and a reason other than `ok`.
std::string NonZero(const StatsSnapshot& s, std::string_view prefix) {
  std::string text;
  for (const auto& [label, count] : s.counters) {
    if (count == 0 || label.rfind(prefix, 0) != 0 || label == LabelOf(Counter::kRepliesOk)) continue;
    text += fmt::format(", {} {}", label.substr(prefix.size()), count);
  }
  std::replace(text.begin(), text.end(), '_', ' ');
  return text;
}

// Nothing where there is no table, and never was one.
void HotLine(const StatView& view, const TextShares& shares, Lines out) {
  const StatsSnapshot& s = view.now;
  if (s.gauge(Gauge::kHotSlots) == 0 && shares.hot == 0) return;
  fmt::format_to(out,
                 "hot       clients report {}{} = {:.1f} % of {} lookups; table {} of {} slots, published {}, evicted "
                 "{}, removed {}\n",
                 shares.hot, Rate(view, Counter::kHotHits), 100 * shares.hot_rate(), shares.lookups(),
                 s.gauge(Gauge::kHotUsed), s.gauge(Gauge::kHotSlots), s.gauge(Gauge::kHotPublished),
                 s.gauge(Gauge::kHotEvicted), s.gauge(Gauge::kHotRemoved));
}

void TrafficLines(const StatView& view, Lines out) {
  const StatsSnapshot& s = view.now;
  const TextShares shares = SharesOf(s);
  fmt::format_to(out, "texts     {}{}, tokens computed {}{}, truncated {}\n", s.counter(Counter::kTexts),
                 Rate(view, Counter::kTexts), s.counter(Counter::kTokens), Rate(view, Counter::kTokens),
                 s.counter(Counter::kTruncated));
  fmt::format_to(out, "cache     hits {}{} = {:.1f} %, joined {}{} = {:.1f} %, misses {}{} = {:.1f} %\n", shares.hits,
                 Rate(view, Counter::kHits), 100 * shares.Share(shares.hits), shares.joined,
                 Rate(view, Counter::kJoined), 100 * shares.Share(shares.joined), shares.misses,
                 Rate(view, Counter::kMisses), 100 * shares.Share(shares.misses));
  HotLine(view, shares, out);
  fmt::format_to(
      out,
      "queue     {} texts, {} tokens, {}, in flight {}; lanes {} of {} ({} of them parked; attached {}, refused {}, "
      "detached {}, died {}, broke the protocol {})\n",
      s.gauge(Gauge::kQueueTexts), s.gauge(Gauge::kQueueTokens),
      BytesText(static_cast<double>(s.gauge(Gauge::kQueueBytes))), s.gauge(Gauge::kInFlightTexts),
      s.gauge(Gauge::kLanes), s.gauge(Gauge::kLanesMax), s.gauge(Gauge::kLanesParked), s.counter(Counter::kAttaches),
      s.counter(Counter::kAttachesRefused), s.counter(Counter::kDetaches), s.counter(Counter::kLanesDead),
      s.counter(Counter::kLanesViolated));
  const std::string refused = NonZero(s, "attach_refused_");
  if (!refused.empty()) fmt::format_to(out, "refused   {}\n", refused.substr(2));
  fmt::format_to(out, "replies   ok {}{}\n", s.counter(Counter::kRepliesOk), NonZero(s, "replies_"));
}

void BatchLines(const StatView& view, Lines out) {
  const HistogramSnapshot texts = Recent(view, Histogram::kBatchSizeTexts);
  const HistogramSnapshot tokens = Recent(view, Histogram::kBatchSizeTokens);
  fmt::format_to(out,
                 "batches   {}{}: texts p50 {:.0f}, p99 {:.0f}, mean {:.1f}; tokens p50 {:.0f}, p99 {:.0f}, mean "
                 "{:.0f}\n",
                 view.now.counter(Counter::kBatches), Rate(view, Counter::kBatches), texts.Percentile(0.5),
                 texts.Percentile(0.99), texts.Mean(), tokens.Percentile(0.5), tokens.Percentile(0.99), tokens.Mean());
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

// The last column is each stage's mean over the sum of the means: where a computed text spends its time. Compute is
// counted once per batch, the other stages once per text.
void LatencyLines(const StatView& view, Lines out) {
  fmt::format_to(out, "latency       {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10}   {}\n", "p50", "p90", "p99", "p99.9",
                 "max", "count", "of a miss",
                 view.before == nullptr ? "(since start)" : "(last interval; max since start)");
  for (const auto& [name, histogram] : kTotals) LatencyRow(name, Recent(view, histogram), 0, out);
  double sum = 0;
  for (const auto& [name, histogram] : kStages) sum += Recent(view, histogram).Mean();
  for (const auto& [name, histogram] : kStages) LatencyRow(name, Recent(view, histogram), sum, out);
}

// "ok" only if all that is accepted is logged.
const char* LogState(const StatView& view) {
  const StatsSnapshot& s = view.now;
  if (s.gauge(Gauge::kShardState) == kShardOpening) return "OPENING behind a takeover: texts are computed meanwhile";
  if (s.gauge(Gauge::kShardState) == kShardFailed) return "NOT OPEN: every text is computed, nothing is stored";
  if (s.gauge(Gauge::kStorageFailed) != 0) return "FAILED: hits are still answered, nothing new is stored";
  if (s.gauge(Gauge::kLogFull) != 0) return "FULL: hits are still answered, new entries are lost with the engine";
  const uint64_t dropped = s.gauge(Gauge::kWalDroppedInserts);
  if (view.before != nullptr && dropped > view.before->gauge(Gauge::kWalDroppedInserts)) {
    return "BEHIND: the disk is too slow, not all new entries are logged";
  }
  return "ok";
}

void StorageLines(const StatView& view, Lines out) {
  const StatsSnapshot& s = view.now;
  fmt::format_to(out, "entries   {}, {}, evicted {} ({} of them for want of room in the log), expired {}\n",
                 s.gauge(Gauge::kCacheEntries), BytesText(static_cast<double>(s.gauge(Gauge::kCacheBytes))),
                 s.gauge(Gauge::kCacheEvictions), s.gauge(Gauge::kWalEvictions), s.gauge(Gauge::kCacheExpirations));
  if (s.gauge(Gauge::kCacheUnreadEntries) != 0) {
    fmt::format_to(out, "unread    {} of the entries are still to be read from the log; each is when it is asked for\n",
                   s.gauge(Gauge::kCacheUnreadEntries));
  }
  fmt::format_to(out,
                 "log       {} ({}), {} records, {}, {} syncs, {} segments; lag {} records, oldest unwritten {}, "
                 "oldest unsynced {}\n",
                 LogState(view), s.disk_io.empty() ? "none" : s.disk_io, s.gauge(Gauge::kWalAppends),
                 BytesText(static_cast<double>(s.gauge(Gauge::kWalBytes))), s.gauge(Gauge::kWalSyncs),
                 s.gauge(Gauge::kWalSegments), s.gauge(Gauge::kWalPendingRecords),
                 DurationText(1e3 * static_cast<double>(s.gauge(Gauge::kWalOldestUnwrittenUs))),
                 DurationText(1e3 * static_cast<double>(s.gauge(Gauge::kWalOldestUnsyncedUs))));
  fmt::format_to(out, "recovery  {} records, dropped {}, quarantined segments {}, dropped inserts {}\n",
                 s.gauge(Gauge::kRecoveredRecords), s.gauge(Gauge::kRecoveredDropped),
                 s.gauge(Gauge::kQuarantinedSegments), s.gauge(Gauge::kWalDroppedInserts));
  if (s.gauge(Gauge::kOtherIdentities) + s.gauge(Gauge::kIdentitiesRemoved) != 0) {
    fmt::format_to(
        out, "others    {} caches of other models, {}; removed {} since start\n", s.gauge(Gauge::kOtherIdentities),
        BytesText(static_cast<double>(s.gauge(Gauge::kOtherIdentitiesBytes))), s.gauge(Gauge::kIdentitiesRemoved));
  }
  if (s.gauge(Gauge::kInsertsWaiting) + s.gauge(Gauge::kInsertsDropped) == 0) return;
  fmt::format_to(out, "takeover  {} inserts wait for the cache to open, {} were dropped meanwhile\n",
                 s.gauge(Gauge::kInsertsWaiting), s.gauge(Gauge::kInsertsDropped));
}

// Breaks each line that is longer than `columns` after a blank, and indents what follows by the width of a heading.
std::string Wrapped(const std::string& text, size_t columns) {
  constexpr size_t kIndent = 10;
  if (columns <= 2 * kIndent) return text;  // 0, or too narrow for anything
  std::string out;
  for (size_t start = 0; start < text.size();) {
    const size_t end = std::min(text.find('\n', start), text.size());
    size_t room = columns;
    while (end - start > room) {
      const size_t blank = text.rfind(' ', start + room);
      const size_t cut = blank == std::string::npos || blank <= start + kIndent ? start + room : blank;
      out.append(text, start, cut - start).append("\n").append(kIndent, ' ');
      start = std::min(text.find_first_not_of(' ', cut), end);
      room = columns - kIndent;
    }
    out.append(text, start, end - start).append("\n");
    start = end + 1;
  }
  return out;
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
  TextShares shares;
  shares.hot = snapshot.counter(Counter::kHotHits);
  shares.hits = snapshot.counter(Counter::kHits);
  shares.joined = snapshot.counter(Counter::kJoined);
  shares.misses = snapshot.counter(Counter::kMisses);
  return shares;
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

std::string WatchFrame(const StatView& view, size_t columns) {
  const auto wall_s = static_cast<time_t>(view.now.taken_wall_ns / kNsPerSecond);
  tm utc{};
  gmtime_r(&wall_s, &utc);
  char when[32];
  strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &utc);
  const std::string covers = view.before == nullptr
                                 ? std::string("first view: figures since start, rates come with the next")
                                 : fmt::format("rates and percentiles of the last {:.3g} s", Seconds(view));
  return Wrapped(fmt::format("time      {}, {}\n", when, covers) + StatText(view), columns);
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
      {"hot_rate", shares.hot_rate()},
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
