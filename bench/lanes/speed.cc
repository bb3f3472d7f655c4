// Ours and the comparators take turns in short rounds: the host moves its CPUs and runs other work, so only figures of
// the same seconds may be divided by each other. While a comparator uses the engine's CPU, the engine is stopped.
#include "bench/lanes/speed.h"

#include <memory>

#include "bench/bench_report.h"
#include "bench/lanes/comparators.h"
#include "bench/lanes/engine_side.h"
#include "bench/lanes/redis_peer.h"
#include "shm/base/time.h"

namespace sutra::bench {
namespace {

constexpr int kRounds = 5;
constexpr int kWindowRequests = 8192;
constexpr int kRedisGets = 100;
constexpr int kRedisBurst = 1024;
constexpr int kMissTrips = 100;
constexpr uint64_t kPauseUs = 200;  // longer than any spin: both sides sleep
constexpr uint64_t kAttachPaceUs = 20'000;
constexpr int kAttachesLimitedMax = 500;

double MillionsASecond(double ns) { return 1e3 / ns; }

// The medians of a run's rounds, by name.
class Rounds {
 public:
  void Add(const std::string& key, double value) { values_[key].push_back(value); }
  // Adds the median of every name to `values`.
  void Close(Values* values) const {
    for (const auto& [key, rounds] : values_) (*values)[key].push_back(Median(rounds));
  }
  // The median over rounds of a ratio taken within each.
  double Ratio(const std::string& above, const std::string& below) const {
    const auto &a = values_.at(above), &b = values_.at(below);
    std::vector<double> ratios;
    for (size_t i = 0; i < a.size() && i < b.size(); ++i) ratios.push_back(a[i] / b[i]);
    return Median(ratios);
  }

 private:
  Values values_;
};

void MeasureRedis(RedisPeer* redis, int windows, Rounds* rounds) {
  redis->process().Continue();
  rounds->Add("redis_get_ns", WindowsNs(windows, kRedisGets, [&](int count) { redis->Gets(count, false); }));
  rounds->Add("redis_get_spin_ns", WindowsNs(windows, kRedisGets, [&](int count) { redis->Gets(count, true); }));
  rounds->Add("redis_pipelined_m_per_s",
              MillionsASecond(WindowsNs(windows, kRedisBurst, [&](int count) { redis->Pipelined(count); })));
  redis->process().Stop();
}

}  // namespace

void MeasureAwake(const Extent& extent, Values* values, std::string* no_redis) {
  const std::unique_ptr<RedisPeer> redis = RedisPeer::Start(no_redis);
  if (redis != nullptr) redis->process().Stop();
  BenchEngine engine({"--spin-us", std::to_string(kSpinForEverUs)});
  LaneClient client(engine.socket(), kSpinForEverUs);
  client.FillCache();
  client.PrepareBatch(kWindowRequests);
  const int windows = extent.windows / kRounds + 1;
  Rounds rounds;
  for (int round = 0; round < kRounds; ++round) {
    engine.HoldStill();
    rounds.Add("bounce_ns", BouncedLineNs(windows, extent.round_trips));
    rounds.Add("bare_round_trip_ns", BareSlotsNs(1, windows, extent.round_trips));
    rounds.Add("bare_window64_m_per_s", MillionsASecond(BareSlotsNs(kWindow, windows, kWindowRequests)));
    if (redis != nullptr) MeasureRedis(redis.get(), windows, &rounds);
    engine.GoOn();
    rounds.Add("round_trip_hit_ns", WindowsNs(windows, extent.round_trips, [&](int n) { client.Hits(n); }));
    rounds.Add("embed_hit_ns", WindowsNs(windows, extent.round_trips, [&](int n) { client.Embeds(n); }));
    rounds.Add("hit_window64_m_per_s",
               MillionsASecond(WindowsNs(windows, kWindowRequests, [&](int n) { client.HitWindow(n); })));
    rounds.Add("hit_batch_m_per_s",
               MillionsASecond(WindowsNs(windows, kWindowRequests, [&](int) { client.HitBatch(); })));
    rounds.Add("hit_window64_copied_m_per_s",
               MillionsASecond(WindowsNs(windows, kWindowRequests, [&](int n) { client.HitWindow(n, true); })));
    rounds.Add("round_trip_miss_ns", WindowsNs(windows, kMissTrips, [&](int n) { client.Misses(n); }));
  }
  rounds.Close(values);
  const std::string placement = values->at("bounce_ns").back() < kNearNs ? "_near" : "_far";
  const auto add_ratio = [&](const std::string& key, const std::string& above, const std::string& below) {
    const double ratio = rounds.Ratio(above, below);
    (*values)[key].push_back(ratio);
    (*values)[key + placement].push_back(ratio);
  };
  add_ratio("round_trip_over_bounce", "round_trip_hit_ns", "bounce_ns");
  add_ratio("windowed_over_bare", "hit_window64_m_per_s", "bare_window64_m_per_s");
  add_ratio("batch_over_windowed", "hit_batch_m_per_s", "hit_window64_copied_m_per_s");
  add_ratio("batch_over_in_place", "hit_batch_m_per_s", "hit_window64_m_per_s");
  if (redis == nullptr) return;
  add_ratio("redis_over_hit_latency", "redis_get_ns", "round_trip_hit_ns");
  add_ratio("hit_over_redis_pipelined", "hit_window64_m_per_s", "redis_pipelined_m_per_s");
}

void MeasureRealModel(const Extent& extent, const std::string& folder, Values* values) {
  BenchEngine engine({"--backend", "torch", "--model", folder, "--spin-us", std::to_string(kSpinForEverUs)});
  LaneClient client(engine.socket(), kSpinForEverUs);
  client.FillCache();
  (*values)["real_model_hit_ns"].push_back(
      WindowsNs(extent.windows, extent.round_trips, [&](int n) { client.Hits(n); }));
  (*values)["real_model_window64_m_per_s"].push_back(
      MillionsASecond(WindowsNs(extent.windows, kWindowRequests, [&](int n) { client.HitWindow(n); })));
}

void MeasureAsleep(const Extent& extent, Values* values) {
  BenchEngine engine({"--spin-us", "0"});
  LaneClient client(engine.socket(), 1);
  client.FillCache();
  Rounds rounds;
  for (int round = 0; round < kRounds; ++round) {
    rounds.Add("futex_ns", FutexPingPongNs(extent.asleep_trips, kPauseUs));
    rounds.Add("asleep_hit_ns", client.PausedHitNs(extent.asleep_trips, kPauseUs));
  }
  rounds.Close(values);
  (*values)["asleep_over_futex"].push_back(rounds.Ratio("asleep_hit_ns", "futex_ns"));
}

void MeasureAttach(const Extent& extent, Values* values) {
  BenchEngine engine;
  LaneClient(engine.socket(), 30).FillCache();
  const std::string text = BenchText("cached", 0);
  std::vector<double> times;
  int limited = 0;
  while (static_cast<int>(times.size()) < extent.attaches) {
    SleepUs(kAttachPaceUs);  // attaches are limited in their rate: this measures one, not the limit
    float vector[kWidth];
    embed::Client client;
    const uint64_t start_ns = MonotonicNs();
    const sutra_status status = client.Attach(engine.socket());
    if (status == SUTRA_OVERLOADED && ++limited < kAttachesLimitedMax) continue;
    if (status != SUTRA_OK) Fail(std::string("attach: ") + sutra_error_text());
    if (sutra_embed(client.get(), text.data(), text.size(), nullptr, vector, nullptr) != SUTRA_OK) {
      Fail(std::string("embed after an attach: ") + sutra_error_text());
    }
    times.push_back(static_cast<double>(MonotonicNs() - start_ns) / 1e6);
  }
  (*values)["attach_ms"].push_back(Median(times));
}

}  // namespace sutra::bench
