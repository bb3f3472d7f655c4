// Lanes: 200 bytes of text in, 384 floats (1,536 bytes) out, through the public client header and a real sutra-engine
// in a process of its own; beside it, in the same run and on the same CPUs, what else could carry these bytes; and what
// other clients cost this one. bench/README.md explains every key.
//
// Client and engine are pinned to two CPUs. Every figure of a run is the median of short windows, so that a preempted
// window does not spoil it; the table shows the spread over runs.
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <thread>
#include <vector>

#include "bench/bench_report.h"
#include "bench/lanes/attackers.h"
#include "bench/lanes/company.h"
#include "bench/lanes/many_lanes.h"
#include "bench/lanes/measure.h"
#include "bench/lanes/rust_peer.h"
#include "bench/lanes/speed.h"
#include "bench/lanes/takeover.h"
#include "tests/kit/left_over.h"

namespace sutra::bench {
namespace {

struct RowText {
  std::string key, title;
};

// The keys of the contract, in the order of bench/README.md.
const RowText kContract[] = {
    {"round_trip_over_bounce", "hit, both spinning, over a bounced line (<= 9)"},
    {"windowed_over_bare", "hits, 64 in flight, over bare slots (>= 0.33)"},
    {"asleep_over_futex", "hit, both asleep, over a futex ping-pong (<= 1.3)"},
    {"redis_over_hit_latency", "Redis GET takes n times as long as a hit (>= 30)"},
    {"hit_over_redis_pipelined", "hits over Redis GETs, 64 in flight (>= 8)"},
    {"flood_p99_us", "us, hit beside the worst flood, p99 (<= 200)"},
    {"mixed_p99_ratio", "miss beside an ingest, p99 over its share (<= 1.5)"},
    {"idle_lanes_ratio", "hit beside 999 idle lanes over alone (<= 1.5)"},
    {"idle_cpu_percent", "% of a core, engine with 999 idle lanes (< 1)"},
    {"attach_ms", "ms, attach to first answer (<= 2)"},
    {"takeover_ms", "ms, kill to the standby's first answer (<= 100)"},
    {"eight_lanes_over_one", "hits of eight threads and lanes over one (>= 0.8)"},
    {"batch_over_windowed", "hits in a batch over hits, 64 in flight, both copied out (>= 1)"},
    {"rust_over_c", "time of a hit through the crate over C (<= 1.1)"},
};
const RowText kRaw[] = {
    {"round_trip_over_bounce_near", "hit over a bounced line, CPUs of one core"},
    {"round_trip_over_bounce_far", "hit over a bounced line, different cores"},
    {"windowed_over_bare_near", "hits over bare slots, CPUs of one core"},
    {"windowed_over_bare_far", "hits over bare slots, different cores"},
    {"redis_over_hit_latency_near", "Redis GET over a hit, CPUs of one core"},
    {"redis_over_hit_latency_far", "Redis GET over a hit, different cores"},
    {"hit_over_redis_pipelined_near", "hits over Redis GETs, CPUs of one core"},
    {"hit_over_redis_pipelined_far", "hits over Redis GETs, different cores"},
    {"bounce_ns", "ns, bounced cache line, round trip"},
    {"round_trip_hit_ns", "ns, hit, both spinning, read in place"},
    {"round_trip_miss_ns", "ns, miss (fake model), both spinning"},
    {"embed_hit_ns", "ns, hit through sutra_embed, copied out"},
    {"batch_over_windowed_near", "batch over 64 in flight, CPUs of one core"},
    {"batch_over_windowed_far", "batch over 64 in flight, different cores"},
    {"batch_over_in_place", "hits in a batch over hits, 64 in flight, read in place"},
    {"rust_embed_hit_ns", "ns, short hit through the crate, copied out"},
    {"c_embed_hit_ns", "ns, the same through sutra_embed"},
    {"bare_round_trip_ns", "ns, bare slots, round trip"},
    {"hit_window64_m_per_s", "M/s, hits, 64 in flight, read in place"},
    {"hit_window64_copied_m_per_s", "M/s, hits, 64 in flight, copied out"},
    {"hit_batch_m_per_s", "M/s, hits, sutra_embed_batch of 8192, copied out"},
    {"bare_window64_m_per_s", "M/s, bare slots, 64 in flight"},
    {"real_model_hit_ns", "ns, hit, vectors of the real model"},
    {"real_model_window64_m_per_s", "M/s, the same, 64 in flight"},
    {"redis_get_ns", "ns, Redis GET of 1,536 B, client blocks"},
    {"redis_get_spin_ns", "ns, the same, client polls its socket"},
    {"redis_pipelined_m_per_s", "M/s, Redis GETs, 64 pipelined"},
    {"one_lane_m_per_s", "M/s, hits, one thread, its spin 30 us"},
    {"eight_lanes_m_per_s", "M/s, hits, eight threads with a lane each"},
    {"hand_over_ms", "ms, SIGTERM to the standby's first answer"},
    {"asleep_hit_ns", "ns, hit, both asleep"},
    {"futex_ns", "ns, futex ping-pong, both asleep"},
    {"mixed_p99_us", "us, miss beside an ingest, p99"},
    {"mixed_p50_us", "us, the same, p50"},
    {"mixed_batch_us", "us, one full batch of the ingest"},
    {"mixed_alone_us", "us, the miss alone, p50"},
    {"mixed_misses", "misses measured"},
    {"mixed_failed", "of them failed (counted as 2 s)"},
    {"hit_alone_ns", "ns, hit without idle lanes"},
    {"hit_beside_idle_lanes_ns", "ns, hit beside the idle lanes"},
    {"idle_lanes", "idle lanes that the engine granted"},
    {"flood_none_p99_us", "us, hit beside nobody, p99"},
};

void AddRows(Report* report, Values* values) {
  for (const RowText& row : kContract) report->Add(row.key, row.title, (*values)[row.key]);
  for (const RowText& row : kRaw) report->Add(row.key, row.title, (*values)[row.key]);
  for (const Flood& flood : kFloods) {
    const std::string key = std::string("flood_") + flood.name, title = flood.name;
    report->Add(key + "_p99_us", "us, hit beside " + title + ", p99", (*values)[key + "_p99_us"]);
    report->Add(key + "_max_us", "us, hit beside " + title + ", longest", (*values)[key + "_max_us"]);
    report->Add(key + "_victims", "hits beside " + title, (*values)[key + "_victims"]);
    report->Add(key + "_failed", "of them failed (counted as 2 s)", (*values)[key + "_failed"]);
    report->Add(key + "_refused", title + " refused altogether", (*values)[key + "_refused"]);
  }
}

// Interrupted, it leaves nothing behind: no directories, no raised session; its children end with it. The signals stay
// blocked in every thread but this one.
void EndOrderlyWhenInterrupted(RaisedPriority* priority) {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, number);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([signals, priority] {
    int number = 0;
    sigwait(&signals, &number);
    priority->Restore();
    test::LeftOvers::Get().RemoveAll();
    _exit(128 + number);
  }).detach();
}

int Main(int argc, char** argv) {
  int runs = 3;
  bool json = false, quick = false, self_test = false;
  std::string model, rust;
  std::vector<std::string> only;
  CLI::App app("Lane benchmark: one client of a real engine beside known alternatives, and beside other clients");
  app.add_option("--runs", runs, "runs behind every median")->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--model", model, "folder of the real model, for cached texts with its vectors");
  app.add_option("--rust", rust, "the Rust crate's example `cached`, for rust_over_c");
  app.add_flag("--quick", quick, "one short run: figures for a look, not for a table");
  app.add_flag("--self-test", self_test, "show that the figures of floods can be bad, measure nothing");
  app.add_option("--only", only, "measure these parts only; the other figures are null")
      ->delimiter(',')
      ->check(
          CLI::IsMember({"awake", "real", "asleep", "attach", "floods", "mixed", "idle", "many", "takeover", "rust"}));
  app.add_flag("--json", json, "one JSON object as the last line");
  CLI11_PARSE(app, argc, argv);
  if (!ChooseCpus()) Fail("needs two CPUs, but this process may use only one");
  RaisedPriority priority;
  EndOrderlyWhenInterrupted(&priority);
  Pin(ClientCpu());
  if (self_test) return SelfTest() ? 0 : 1;

  Extent extent;
  if (quick) {
    runs = 1;
    extent = {.windows = 10,
              .round_trips = 1000,
              .asleep_trips = 50,
              .flood_s = 0.4,
              .idle_s = 2,
              .mixed_misses = 60,
              .attaches = 10,
              .takeovers = 1};
  }
  const auto wanted = [&only](const char* part) {
    return only.empty() || std::find(only.begin(), only.end(), part) != only.end();
  };
  Values values;
  std::vector<std::string> notes;
  std::string no_redis;
  const bool with_model = !model.empty() && access((model + "/config.json").c_str(), R_OK) == 0;
  for (int run = 0; run < runs; ++run) {
    if (wanted("awake")) MeasureAwake(extent, &values, &no_redis);
    if (wanted("real") && with_model) MeasureRealModel(extent, model, &values);
    if (wanted("asleep")) MeasureAsleep(extent, &values);
    if (wanted("attach")) MeasureAttach(extent, &values);
    if (wanted("floods")) MeasureFloods(extent, &values, &notes);
    if (wanted("mixed")) MeasureMixed(extent, &values, &notes);
    if (wanted("many")) MeasureManyLanes(extent, &values);
    if (wanted("rust")) MeasureRust(extent, rust, &values);
    if (wanted("takeover")) MeasureTakeover(extent, &values, &notes);
    if (wanted("idle")) MeasureIdleLanes(extent, &values, &notes);
  }

  Report report("lanes");
  const bool far = Median(values["bounce_ns"]) >= kNearNs;
  AddRows(&report, &values);
  report.Note("client on CPU " + std::to_string(ClientCpu()) + ", engine on CPU " + std::to_string(EngineCpu()) +
              (far ? ", far: different cores; " : ", near: two threads of one core; ") +
              (priority.raised() ? "nice -20" : "normal priority: other work shows"));
  for (const std::string& note : notes) report.Note(note);
  if (!no_redis.empty()) report.Note("redis_over_hit_latency, hit_over_redis_pipelined: " + no_redis);
  if (!only.empty()) report.Note("measured in part only (--only): the other figures are null");
  if (!with_model) report.Note("real_model_*: no model folder; run tools/setup/fetch_deps --model and pass --model");
  if (rust.empty()) report.Note("rust_over_c: no program; install cargo, or build producer/rust and pass --rust");
  report.AddValue("runs", runs);
  report.AddValue("far", far ? 1 : 0);
  report.Print(json);
  return 0;
}

}  // namespace
}  // namespace sutra::bench

int main(int argc, char** argv) {
  try {
    if (argc == 5 && std::string(argv[1]) == "--attack") {
      return sutra::bench::AttackMain(argv[2], argv[3], std::atoi(argv[4]));
    }
    return sutra::bench::Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "lane_bench: %s\n", error.what());
    return 1;
  }
}
