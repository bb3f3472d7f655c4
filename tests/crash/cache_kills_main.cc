// sutra-cache-kills: kills of processes that use a cache shard (cache_kills.h), run by tests/crash/cache_kills.
#include "tests/crash/cache_kills.h"

#include <signal.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <random>

namespace sutra::test {
namespace {

std::atomic<bool> stop_asked = false;

std::string ToJson(const CacheKillTotals& totals, const CacheKillOptions& options) {
  const nlohmann::ordered_json json = {{"kills", totals.kills},
                                       {"wrong", totals.wrong},
                                       {"returned", totals.returned},
                                       {"missing", totals.missing},
                                       {"refused", totals.refused},
                                       {"revived", totals.revived},
                                       {"mixed", totals.mixed},
                                       {"at_checkpoints", totals.at_checkpoints},
                                       {"during_starts", totals.during_starts},
                                       {"changes", totals.changes},
                                       {"removals", totals.removals},
                                       {"evictions", totals.evictions},
                                       {"log_evictions", totals.log_evictions},
                                       {"found", totals.found},
                                       {"late", totals.late},
                                       {"seconds", static_cast<double>(totals.ms) / 1000.0},
                                       {"seed", options.seed},
                                       {"failure", totals.failure}};
  return json.dump();
}

int Main(int argc, char** argv) {
  CacheKillOptions options;
  options.seed = std::random_device{}();
  options.progress_s = 5;
  bool json = false, room = false;
  CLI::App app("Kills processes that use a cache shard, and counts what their successors lack or should not have");
  app.add_option("--kills", options.kills, "SIGKILLs")->capture_default_str();
  app.add_option("--seed", options.seed, "repeats the choices of a run (default: a new one)");
  app.add_flag("--room", room, "the store has room for all keys, so that nothing is evicted");
  app.add_option("--directory", options.directory, "of the shard and the journal; kept (default: a temporary one)");
  app.add_flag("--end-at-first", options.end_at_first, "end the run at the first failure");
  app.add_flag("--json", json, "one line of JSON on standard output");
  app.add_option("--progress-s", options.progress_s, "seconds between lines of progress")->capture_default_str();
  CLI::Option_group* const canaries = app.add_option_group("canaries", "faults that the run must see");
  canaries->add_flag("--lie", options.lie, "children say that they synced, and have not: missing");
  canaries->add_flag("--revive", options.revive, "children put back what they have removed: returned");
  CLI11_PARSE(app, argc, argv);
  options.full = !room;

  struct sigaction action = {};
  action.sa_handler = [](int) { stop_asked.store(true); };
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::fprintf(stderr, "seed %llu\n", static_cast<unsigned long long>(options.seed));
  const CacheKillTotals totals = RunCacheKills(options, &stop_asked);
  if (json) std::printf("%s\n", ToJson(totals, options).c_str());
  if (!totals.good()) std::fprintf(stderr, "failed: %s\n", totals.failure.c_str());
  return totals.good() ? 0 : 1;
}

}  // namespace
}  // namespace sutra::test

int main(int argc, char** argv) { return sutra::test::Main(argc, argv); }
