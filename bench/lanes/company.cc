// The victim is this process: one cached text at a steady pace, its wait taken from the published stage times (taken
// minus submitted), so that only what the engine does to it counts. Every flood gets a new engine.
#include "bench/lanes/company.h"

#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <thread>

#include "bench/bench_report.h"
#include "bench/lanes/attackers.h"
#include "bench/lanes/engine_side.h"
#include "shm/base/time.h"

namespace sutra::bench {
namespace {

constexpr uint64_t kPaceUs = 500;
constexpr uint32_t kVictimTimeoutMs = 2000;
constexpr double kFailedWaitUs = kVictimTimeoutMs * 1e3;  // what a refused or late hit counts as
constexpr uint64_t kSettleUs = 300'000;                   // of a flood before the victim is looked at
constexpr uint64_t kParkUs = 1'500'000;                   // of silence, after which a lane may be parked
constexpr uint64_t kBatchUs = 2000;                       // of the fake model in MeasureMixed
constexpr uint32_t kCompanySpinUs = 30;                   // the library's default

// Room for every flood: how many lanes one client process gets is the engine's own default.
std::vector<std::string> RoomForLanes(int lanes) {
  return {"--lanes-max", std::to_string(lanes), "--lanes-per-uid-max", std::to_string(lanes)};
}

std::vector<std::string> With(std::vector<std::string> args, const std::vector<std::string>& more) {
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

struct Waits {
  std::vector<double> us;
  int asked = 0, failed = 0;
  double p99_us() const { return Percentile(us, 0.99); }
};

// Asks for `text` at a steady pace for `seconds`.
Waits WatchVictim(const LaneClient& victim, const std::string& text, double seconds) {
  sutra_options options = embed::RequestOptions();
  options.timeout_ms = kVictimTimeoutMs;
  Waits waits;
  for (const uint64_t end_ns = MonotonicNs() + static_cast<uint64_t>(seconds * 1e9); MonotonicNs() < end_ns;) {
    SleepUs(kPaceUs);
    const sutra_result result = victim.Ask(text, options);
    const bool answered = result.status == SUTRA_OK && result.stage_ns[1] >= result.stage_ns[0];
    waits.failed += !answered;
    ++waits.asked;
    double us = answered ? static_cast<double>(result.stage_ns[1] - result.stage_ns[0]) / 1e3 : kFailedWaitUs;
    // What would have been asked meanwhile counts too: else one long standstill is one wait among many short ones.
    for (; us > kPaceUs; us -= kPaceUs) waits.us.push_back(us);
    waits.us.push_back(us);
  }
  return waits;
}

// An engine whose loop spins alone on its CPU: no wake-up of a CPU is measured, only waiting for the loop.
struct FloodScene {
  explicit FloodScene(const std::vector<std::string>& more)
      : engine(With({"--spin-us", std::to_string(kSpinForEverUs)}, more)), victim(engine.socket(), kCompanySpinUs) {
    victim.FillCache();
    engine.GiveTheLoopACpu();
  }
  BenchEngine engine;
  LaneClient victim;
  const std::string text = BenchText("cached", 0);
};

double TotalUs(const sutra_result& result) {
  return static_cast<double>(result.stage_ns[5] - result.stage_ns[0]) / 1e3;
}

// Misses of one client, paced. RETURNS their total times; a failed one counts as its timeout.
std::vector<double> MissTotals(const LaneClient& client, int count, uint64_t* number, int* failed) {
  sutra_options options = embed::RequestOptions();
  options.timeout_ms = kVictimTimeoutMs;
  std::vector<double> totals;
  const uint64_t end_ns = MonotonicNs() + 5 * kNsPerSecond;  // bounded where every miss waits long
  for (int i = 0; i < count && MonotonicNs() < end_ns; ++i) {
    SleepUs(1000);
    const sutra_result result = client.Ask(BenchText("mixed", (*number)++), options);
    *failed += result.status != SUTRA_OK;
    totals.push_back(result.status == SUTRA_OK ? TotalUs(result) : kFailedWaitUs);
  }
  return totals;
}

// The time of a full batch in the engine: computed minus batched of texts that arrive together.
double FullBatchUs(const LaneClient& client) {
  constexpr uint64_t kTexts = 192;
  std::vector<double> batches;
  for (uint64_t round = 0; round < 5; ++round) {
    std::vector<std::string> texts;
    for (uint64_t i = 0; i < kTexts; ++i) texts.push_back(BenchText("batch", round * kTexts + i));
    std::vector<const char*> pointers;
    std::vector<size_t> sizes;
    for (const std::string& text : texts) {
      pointers.push_back(text.data());
      sizes.push_back(text.size());
    }
    std::vector<float> vectors(kTexts * kWidth);
    std::vector<sutra_result> results(kTexts, embed::Result());
    if (sutra_embed_batch(client.get(), pointers.data(), sizes.data(), kTexts, nullptr, nullptr, vectors.data(),
                          results.data(), sizeof(sutra_result)) != SUTRA_OK) {
      Fail(std::string("embed_batch: ") + sutra_error_text());
    }
    for (const sutra_result& result : results) {
      batches.push_back(static_cast<double>(result.stage_ns[4] - result.stage_ns[3]) / 1e3);
    }
  }
  return Percentile(batches, 0.5);
}

void Remember(std::vector<std::string>* notes, const std::string& note) {
  if (std::find(notes->begin(), notes->end(), note) == notes->end()) notes->push_back(note);
}

}  // namespace

void MeasureFloods(const Extent& extent, Values* values, std::vector<std::string>* notes) {
  double worst = -1;
  {
    const FloodScene scene(RoomForLanes(512));
    (*values)["flood_none_p99_us"].push_back(WatchVictim(scene.victim, scene.text, extent.flood_s).p99_us());
  }
  for (const Flood& flood : kFloods) {
    const std::string key = std::string("flood_") + flood.name;
    const FloodScene scene(RoomForLanes(512));
    const Attackers attackers(flood, scene.engine.socket());
    Remember(notes, std::string("flood ") + flood.name + ": " + attackers.said());
    (*values)[key + "_refused"].push_back(attackers.under_way() ? 0 : 1);
    if (!attackers.under_way()) continue;
    SleepUs(kSettleUs);
    const Waits waits = WatchVictim(scene.victim, scene.text, extent.flood_s);
    (*values)[key + "_p99_us"].push_back(waits.p99_us());
    (*values)[key + "_max_us"].push_back(Percentile(waits.us, 1));
    (*values)[key + "_victims"].push_back(waits.asked);
    (*values)[key + "_failed"].push_back(waits.failed);
    worst = std::max(worst, waits.p99_us());
  }
  if (worst >= 0) (*values)["flood_p99_us"].push_back(worst);
}

void MeasureMixed(const Extent& extent, Values* values, std::vector<std::string>* notes) {
  BenchEngine engine({}, {"SUTRA_FAKE_DELAY_US=" + std::to_string(kBatchUs)});
  const LaneClient client(engine.socket(), kCompanySpinUs);
  engine.GiveTheLoopACpu();
  uint64_t number = 0;
  int failed = 0;
  const double batch_us = FullBatchUs(client);
  const double alone_us = Percentile(MissTotals(client, extent.mixed_misses, &number, &failed), 0.5);
  const Attackers ingest(kIngest, engine.socket());
  if (!ingest.under_way()) {
    Remember(notes, "mixed: " + ingest.said());
    return;
  }
  SleepUs(kSettleUs);
  failed = 0;
  const std::vector<double> beside = MissTotals(client, extent.mixed_misses, &number, &failed);
  const double p99_us = Percentile(beside, 0.99);
  (*values)["mixed_p99_us"].push_back(p99_us);
  (*values)["mixed_p50_us"].push_back(Percentile(beside, 0.5));
  (*values)["mixed_batch_us"].push_back(batch_us);
  (*values)["mixed_alone_us"].push_back(alone_us);
  (*values)["mixed_misses"].push_back(static_cast<double>(beside.size()));
  (*values)["mixed_failed"].push_back(failed);
  (*values)["mixed_p99_ratio"].push_back(p99_us / (batch_us + alone_us));
}

void MeasureIdleLanes(const Extent& extent, Values* values, std::vector<std::string>* notes) {
  BenchEngine engine(RoomForLanes(1100));
  LaneClient client(engine.socket(), kSpinForEverUs);
  client.FillCache();
  const auto hit_ns = [&] {
    return WindowsNs(extent.windows, extent.round_trips / 4, [&](int count) { client.Hits(count); });
  };
  const double before_ns = hit_ns();
  double beside_ns = 0;
  {
    const Attackers idle(kIdleLanes, engine.socket());
    Remember(notes, "idle lanes: " + idle.said());
    if (!idle.under_way()) return;
    SleepUs(kParkUs);
    (*values)["idle_lanes"].push_back(engine.Lanes() - 1.0);
    const uint64_t start_ns = MonotonicNs(), start_cpu_ns = engine.CpuNs();
    SleepUs(static_cast<uint64_t>(extent.idle_s * 1e6));
    (*values)["idle_cpu_percent"].push_back(100 * static_cast<double>(engine.CpuNs() - start_cpu_ns) /
                                            static_cast<double>(MonotonicNs() - start_ns));
    beside_ns = hit_ns();
  }
  SleepUs(kParkUs);
  const double alone_ns = (before_ns + hit_ns()) / 2;
  (*values)["hit_alone_ns"].push_back(alone_ns);
  (*values)["hit_beside_idle_lanes_ns"].push_back(beside_ns);
  (*values)["idle_lanes_ratio"].push_back(beside_ns / alone_ns);
}

bool SelfTest() {
  constexpr uint64_t kStandStillUs = 5000, kRunUs = 45'000;
  constexpr double kSeconds = 1;
  bool passed = true;
  const auto check = [&passed](bool holds, const std::string& what) {
    std::printf("%s: %s\n", holds ? "ok" : "FAILED", what.c_str());
    passed = passed && holds;
  };
  {
    FloodScene scene({});
    const Waits quiet = WatchVictim(scene.victim, scene.text, kSeconds);
    std::atomic<bool> over{false};
    std::thread pulses([&, pid = scene.engine.pid()] {
      while (!over.load(std::memory_order_relaxed)) {  // relaxed: nothing else is handed over
        kill(pid, SIGSTOP);
        SleepUs(kStandStillUs);
        kill(pid, SIGCONT);
        SleepUs(kRunUs);
      }
    });
    const Waits stalled = WatchVictim(scene.victim, scene.text, kSeconds);
    over.store(true, std::memory_order_relaxed);
    pulses.join();
    check(stalled.p99_us() > kStandStillUs / 2 && stalled.p99_us() > 4 * quiet.p99_us(),
          "an engine that stands still for 5 ms in 50 moves the victim's p99: from " + std::to_string(quiet.p99_us()) +
              " to " + std::to_string(stalled.p99_us()) + " us");
  }
  {
    FloodScene scene({"--lanes-max", "1"});
    const Attackers attackers(kFloods[0], scene.engine.socket());
    check(!attackers.under_way(), "a flood that gets no lane counts as refused: " + attackers.said());
  }
  return passed;
}

}  // namespace sutra::bench
