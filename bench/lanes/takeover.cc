// The engine is stopped (SIGSTOP) before the client asks, so that the call is certainly under way, and asleep, when the
// engine is killed. The standby and the client share the CPUs with nobody else. Both engines have default options but
// the fake model and a cache of --cache-bytes-max 1 GiB, which is full: the kernel gives that memory back before it
// drops the dead engine's locks, and the standby recovers it behind its first answers.
#include "bench/lanes/takeover.h"

#include <signal.h>

#include <atomic>
#include <memory>
#include <thread>

#include "bench/bench_report.h"
#include "bench/lanes/engine_side.h"
#include "shm/base/time.h"

namespace sutra::bench {
namespace {

constexpr uint64_t kCacheBytes = uint64_t{1} << 30;
constexpr uint64_t kBatch = 8192;
constexpr uint64_t kEntriesMax = 600'000;  // of about 2 KiB: more than fit
constexpr int kWaitMs = 60'000;
constexpr uint64_t kAsleepUs = 50'000;  // longer than any spin

std::vector<std::string> EngineArgs(bool standby) {
  std::vector<std::string> args = {"--cache-bytes-max", std::to_string(kCacheBytes), "--fake-width",
                                   std::to_string(kWidth)};
  if (standby) args.push_back("--standby");
  return args;
}

double CacheBytes(const test::EngineProcess& engine) {
  return static_cast<double>(engine.Stats().gauge("cache_bytes"));
}

// Until the cache holds what it may. RETURNS the bytes in it.
double FillCache(const test::EngineProcess& engine, sutra_client* client) {
  std::vector<float> vectors(kBatch * kWidth);
  for (uint64_t first = 0; first < kEntriesMax && CacheBytes(engine) < 0.98 * kCacheBytes; first += kBatch) {
    std::vector<std::string> texts;
    std::vector<const char*> pointers;
    std::vector<size_t> sizes;
    for (uint64_t i = 0; i < kBatch; ++i) texts.push_back(BenchText("filler", first + i));
    for (const std::string& text : texts) {
      pointers.push_back(text.data());
      sizes.push_back(text.size());
    }
    if (sutra_embed_batch(client, pointers.data(), sizes.data(), kBatch, nullptr, nullptr, vectors.data(), nullptr,
                          0) != SUTRA_OK) {
      Fail(std::string("filling the cache: ") + sutra_error_text());
    }
  }
  return CacheBytes(engine);
}

std::unique_ptr<test::ChildProcess> StartStandby(const test::EngineProcess& engine, const std::string& log) {
  test::SpawnOptions options;
  options.args = {test::EngineProgram(), "--backend", "fake", "--socket", engine.socket(), "--data", engine.data()};
  for (std::string& arg : EngineArgs(true)) options.args.push_back(std::move(arg));
  options.log_path = log;
  auto standby = std::make_unique<test::ChildProcess>(options);
  const bool waits = engine.WaitStats([](const StatsSnapshot& stats) { return stats.gauge("standbys_ready") >= 1; });
  if (!waits) Fail("the standby does not wait: " + standby->Log());
  return standby;
}

enum class End { kKill, kHandOver };

// The milliseconds from the end of the first engine to the answer of the call that was asleep then.
double TakeOverMs(End end, std::vector<std::string>* notes) {
  test::EngineOptions options;
  options.args = EngineArgs(false);
  test::EngineProcess engine(options);
  if (!engine.Start()) Fail("the engine does not serve; its log is above");
  embed::Client client;
  if (client.Attach(engine.socket()) != SUTRA_OK) Fail(std::string("attach: ") + sutra_error_text());
  if (const double bytes = FillCache(engine, client.get()); bytes < 0.9 * kCacheBytes) {
    notes->push_back("takeover_ms: the cache held only " + std::to_string(static_cast<uint64_t>(bytes) >> 20) + " MiB");
  }
  if (!engine.WaitWritten()) Fail("the cache's log is not written");
  const auto standby = StartStandby(engine, engine.directory().path() + "/standby.log");
  if (end == End::kKill) engine.process().Stop();

  std::atomic<uint64_t> answered_ns = 0;
  std::thread caller([&client, &answered_ns] {
    float vector[kWidth];
    const std::string text = BenchText("asleep", 1);
    const sutra_status status = sutra_embed(client.get(), text.data(), text.size(), nullptr, vector, nullptr);
    answered_ns = status == SUTRA_OK ? MonotonicNs() : 1;
  });
  SleepUs(kAsleepUs);
  double ms = 0;
  if (end == End::kKill) {
    const uint64_t start_ns = MonotonicNs();
    kill(engine.process().pid(), SIGKILL);
    caller.join();
    if (answered_ns == 1) Fail("the call that was under way failed");
    ms = static_cast<double>(answered_ns - start_ns) / 1e6;
  } else {
    caller.join();
    const uint64_t start_ns = MonotonicNs();
    kill(engine.process().pid(), SIGTERM);
    // What is asked from here on is the next engine's: the draining one takes nothing more.
    float vector[kWidth];
    for (uint32_t pid = client.info().engine_pid; pid == client.info().engine_pid;) {
      const std::string text = BenchText("handed over", MonotonicNs());
      if (sutra_embed(client.get(), text.data(), text.size(), nullptr, vector, nullptr) != SUTRA_OK) {
        Fail(std::string("a call during the hand-over: ") + sutra_error_text());
      }
      sutra_info info = embed::Info();
      sutra_get_info(client.get(), &info);
      pid = info.engine_pid;
    }
    ms = static_cast<double>(MonotonicNs() - start_ns) / 1e6;
  }
  client.Detach();
  standby->Kill();
  return ms;
}

}  // namespace

void MeasureTakeover(const Extent& extent, Values* values, std::vector<std::string>* notes) {
  UseBothCpus();
  std::vector<double> kills, hand_overs;
  for (int i = 0; i < extent.takeovers; ++i) {
    kills.push_back(TakeOverMs(End::kKill, notes));
    hand_overs.push_back(TakeOverMs(End::kHandOver, notes));
  }
  (*values)["takeover_ms"].push_back(Median(kills));
  (*values)["hand_over_ms"].push_back(Median(hand_overs));
  Pin(ClientCpu());
}

}  // namespace sutra::bench
