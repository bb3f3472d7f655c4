#include "bench/lanes/rust_peer.h"

#include <algorithm>
#include <sstream>
#include <vector>

#include "bench/bench_report.h"
#include "bench/lanes/engine_side.h"
#include "tests/kit/child_process.h"

namespace sutra::bench {
namespace {

constexpr int kRounds = 5;
constexpr int kCallsARound = 20'000;
constexpr int kTimeoutMs = 120'000;
constexpr char kText[] = "AAPL stock price";  // of producer/rust/examples/cached.rs

// On the client's CPU, as this process is. RETURNS the median of the rounds that the program prints.
double RustNs(const std::string& program, const std::string& socket, int rounds) {
  const test::Finished finished =
      test::RunToEnd({.args = {program, socket, std::to_string(kCallsARound), std::to_string(rounds)}}, kTimeoutMs);
  std::vector<double> rounds_ns;
  std::istringstream lines(finished.output);
  for (double ns = 0; lines >> ns;) rounds_ns.push_back(ns);
  if (finished.status.code != 0 || rounds_ns.empty()) Fail("the Rust example failed: " + finished.errors);
  return Median(rounds_ns);
}

double CNs(sutra_client* client, int windows) {
  float vector[kWidth];
  return WindowsNs(windows, kCallsARound, [&](int count) {
    for (int i = 0; i < count; ++i) {
      if (sutra_embed(client, kText, sizeof(kText) - 1, nullptr, vector, nullptr) != SUTRA_OK) {
        Fail(std::string("embed: ") + sutra_error_text());
      }
    }
  });
}

}  // namespace

void MeasureRust(const Extent& extent, const std::string& program, Values* values) {
  if (program.empty()) return;
  BenchEngine engine({"--spin-us", std::to_string(kSpinForEverUs)});
  embed::Client client;
  if (client.Attach(engine.socket()) != SUTRA_OK) Fail(std::string("attach: ") + sutra_error_text());
  const int windows = std::max(1, extent.windows / kRounds);
  std::vector<double> ratios, rust, c;
  for (int round = 0; round < kRounds; ++round) {
    c.push_back(CNs(client.get(), windows));
    rust.push_back(RustNs(program, engine.socket(), windows));
    ratios.push_back(rust.back() / c.back());
  }
  (*values)["c_embed_hit_ns"].push_back(Median(c));
  (*values)["rust_embed_hit_ns"].push_back(Median(rust));
  (*values)["rust_over_c"].push_back(Median(ratios));
}

}  // namespace sutra::bench
