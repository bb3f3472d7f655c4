// sutra-power-cuts: power cuts of a shard on the simulated disk (power_cuts.h), run by tests/sim/power_cuts.
#include "tests/sim/power_cuts.h"

#include <signal.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "tests/sim/lying_disks.h"

namespace sutra::sim {
namespace {

std::atomic<bool> stop_asked = false;

std::string ToJson(const PowerCutTotals& totals, const PowerCutOptions& options) {
  const nlohmann::ordered_json json = {{"schedules", totals.schedules},
                                       {"cuts", totals.cuts},
                                       {"lost", totals.lost},
                                       {"wrong", totals.wrong},
                                       {"refused", totals.refused},
                                       {"second_cuts", totals.second_cuts},
                                       {"kills", totals.kills},
                                       {"removals", totals.removals},
                                       {"evictions", totals.evictions},
                                       {"revived", totals.revived},
                                       {"indexed", totals.indexed},
                                       {"unread", totals.unread},
                                       {"dropped", totals.dropped},
                                       {"given_back", totals.given_back},
                                       {"written_over", totals.written_over},
                                       {"seed", options.seed},
                                       {"every", options.every},
                                       {"seconds", static_cast<double>(totals.ms) / 1000.0},
                                       {"failed_seed", totals.failed_seed},
                                       {"failure", totals.failure}};
  return json.dump();
}

int Main(int argc, char** argv) {
  PowerCutOptions options;
  options.progress_s = 5;
  bool json = false, no_sync = false, no_directory_sync = false;
  CLI::App app("Cuts the power of a simulated disk under a shard, and counts what is lost, wrong or refused");
  app.add_option("--schedules", options.schedules, "random schedules, each with several starts")->capture_default_str();
  app.add_option("--seed", options.seed, "of the first schedule; the next ones follow")->capture_default_str();
  app.add_option("--every", options.every, "operations of the disk between two cuts; 1: at every one, 0: few")
      ->capture_default_str();
  app.add_option("--full-percent", options.full_percent, "schedules with more texts than entries")
      ->capture_default_str();
  app.add_option("--jobs", options.jobs, "threads")->capture_default_str();
  app.add_flag("--json", json, "one line of JSON on standard output");
  app.add_flag("--end-at-first", options.end_at_first, "end the run at the first failure");
  app.add_flag("--verbose", options.verbose, "print what the shard logs");
  app.add_option("--progress-s", options.progress_s, "seconds between lines of progress")->capture_default_str();
  CLI::Option_group* const canaries = app.add_option_group("canaries", "faults that the run must see");
  canaries->add_flag("--no-sync", no_sync, "the disk syncs nothing: lost");
  canaries->add_flag("--no-directory-sync", no_directory_sync, "the disk syncs no directory: lost or refused");
  CLI11_PARSE(app, argc, argv);
  if (no_sync) options.make_disk = [](uint64_t seed) { return std::make_unique<LyingDisk>(seed); };
  if (no_directory_sync)
    options.make_disk = [](uint64_t seed) { return std::make_unique<ForgetfulDirectoryDisk>(seed); };

  struct sigaction action = {};
  action.sa_handler = [](int) { stop_asked.store(true); };
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  const PowerCutTotals totals = RunPowerCuts(options, &stop_asked);
  if (json) std::printf("%s\n", ToJson(totals, options).c_str());
  if (!totals.good()) {
    std::fprintf(stderr, "failed: %s; repeat with --schedules 1 --seed %llu --every %llu\n", totals.failure.c_str(),
                 static_cast<unsigned long long>(totals.failed_seed), static_cast<unsigned long long>(options.every));
  }
  return totals.good() ? 0 : 1;
}

}  // namespace
}  // namespace sutra::sim

int main(int argc, char** argv) { return sutra::sim::Main(argc, argv); }
