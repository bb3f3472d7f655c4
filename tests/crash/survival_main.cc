// sutra-chaos: chaos over real processes (survival.h), run by tests/crash/chaos.
#include <signal.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <random>

#include "tests/crash/survival.h"

namespace sutra::test {
namespace {

std::atomic<bool> stop_asked = false;

int Main(int argc, char** argv) {
  SurvivalOptions options;
  options.seed = std::random_device{}();
  bool json = false;
  CLI::App app("Kills engines and clients until --kills, and counts what is lost, wrong, wedged or leaked");
  app.add_option("--kills", options.kills, "SIGKILLs of engines and clients")->capture_default_str();
  app.add_option("--seed", options.seed, "repeats the choices of a run (default: a new one)");
  app.add_option("--deadline-ms", options.deadline_ms, "of each call")->capture_default_str();
  app.add_option("--wedged-ms", options.wedged_ms, "without an answer until a client counts as wedged")
      ->capture_default_str();
  app.add_flag("--end-at-first", options.end_at_first, "end the run at the first failure");
  app.add_option("--rust-client", options.rust_client, "the program of producer/rust/examples/chaos_client.rs");
  app.add_option("--keep", options.keep, "directory for the logs of a run that fails");
  app.add_flag("--json", json, "one line of JSON on standard output");
  app.add_option("--progress-s", options.progress_s, "seconds between lines of progress")->capture_default_str();
  CLI::Option_group* const canaries = app.add_option_group("canaries", "faults that the run must see");
  canaries->add_option("--corrupt", options.corrupt_every, "a client damages every N-th vector: wrong");
  canaries->add_flag("--fail-fast", options.fail_fast, "requests end with their engine: lost");
  canaries->add_flag("--never-restart", options.never_restart, "no engine comes back: lost");
  canaries->add_flag("--engine-forgets", options.engine_forgets, "engines write no log: lost");
  canaries->add_option("--deaf-after", options.deaf_after, "an event loop misses all wake-ups after N answers: wedged");
  canaries->add_option("--client-leak", options.client_leak, "a client keeps a descriptor per N batches: leaked");
  canaries->add_flag("--lane-leak", options.lane_leak, "a lane stays attached: leaked");
  CLI11_PARSE(app, argc, argv);

  struct sigaction action = {};
  action.sa_handler = [](int) { stop_asked.store(true); };
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::fprintf(stderr, "seed %llu\n", static_cast<unsigned long long>(options.seed));
  const SurvivalTotals totals = Survival(options, &stop_asked).Run();
  if (json) std::printf("%s\n", ToJson(totals, options).c_str());
  return totals.good() ? 0 : 1;
}

}  // namespace
}  // namespace sutra::test

int main(int argc, char** argv) { return sutra::test::Main(argc, argv); }
