// One and eight take turns, as in speed.cc. The threads of the eight share one CPU, so a perfect figure is 1: what the
// lanes cost the engine, and what switching threads costs the client, shows as less.
#include "bench/lanes/many_lanes.h"

#include <algorithm>
#include <barrier>
#include <memory>
#include <thread>
#include <vector>

#include "bench/bench_report.h"
#include "bench/lanes/engine_side.h"
#include "shm/base/time.h"

namespace sutra::bench {
namespace {

constexpr int kLanes = 8;
constexpr int kRounds = 5;
constexpr int kTextsATurn = 8192;
constexpr uint32_t kSpinUs =
    30;  // the library's default: eight threads that spin for ever would only wait for each other

// Hits per second of all clients together, from the first thread that begins to the last that ends: they share a CPU,
// so the thread that started them all may see neither.
double HitsPerSecond(const std::vector<std::unique_ptr<LaneClient>>& clients, int texts_each) {
  std::barrier start(static_cast<std::ptrdiff_t>(clients.size()));
  std::vector<uint64_t> began_ns(clients.size()), ended_ns(clients.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < clients.size(); ++i) {
    threads.emplace_back([&, i] {
      clients[i]->HitWindow(256);  // warm
      start.arrive_and_wait();
      began_ns[i] = MonotonicNs();
      clients[i]->HitWindow(texts_each);
      ended_ns[i] = MonotonicNs();
    });
  }
  for (std::thread& thread : threads) thread.join();
  const uint64_t ns =
      *std::max_element(ended_ns.begin(), ended_ns.end()) - *std::min_element(began_ns.begin(), began_ns.end());
  return static_cast<double>(texts_each) * static_cast<double>(clients.size()) * 1e9 / static_cast<double>(ns);
}

std::vector<std::unique_ptr<LaneClient>> Clients(const std::string& socket, int count) {
  std::vector<std::unique_ptr<LaneClient>> clients;
  for (int i = 0; i < count; ++i) {
    clients.push_back(std::make_unique<LaneClient>(socket, kSpinUs));
    clients.back()->FillCache();
  }
  return clients;
}

}  // namespace

void MeasureManyLanes(const Extent& extent, Values* values) {
  BenchEngine engine({"--spin-us", std::to_string(kSpinForEverUs)});
  const auto one = Clients(engine.socket(), 1), eight = Clients(engine.socket(), kLanes);
  const int windows = std::max(1, extent.windows / kRounds);
  std::vector<double> ratios, rates_one, rates_eight;
  for (int round = 0; round < kRounds; ++round) {
    std::vector<double> of_one, of_eight;
    for (int window = 0; window < windows; ++window) {
      of_one.push_back(HitsPerSecond(one, kTextsATurn * kLanes / 2));
      of_eight.push_back(HitsPerSecond(eight, kTextsATurn / 2));
    }
    rates_one.push_back(Median(of_one) / 1e6);
    rates_eight.push_back(Median(of_eight) / 1e6);
    ratios.push_back(rates_eight.back() / rates_one.back());
  }
  (*values)["one_lane_m_per_s"].push_back(Median(rates_one));
  (*values)["eight_lanes_m_per_s"].push_back(Median(rates_eight));
  (*values)["eight_lanes_over_one"].push_back(Median(ratios));
}

}  // namespace sutra::bench
