// Engines that stand by for one another at one socket and one data directory.
// Thread rule: the test's main thread.
#pragma once

#include <poll.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/exit_code.h"
#include "shm/base/time.h"
#include "shm/stats/labels.h"
#include "tests/system/system_fixture.h"

namespace sutra::test {

class StandbyTest : public SystemTest {
 protected:
  static constexpr const char* kLoaded = "model fake loaded";
  static constexpr const char* kWaits = "standby: the model is loaded; waiting for";
  static constexpr const char* kTookOver = "took over:";

  // A further engine at the place of `first`.
  static std::unique_ptr<EngineProcess> Beside(const EngineProcess& first, std::vector<std::string> args,
                                               std::vector<std::string> environment = {}) {
    EngineOptions options;
    options.args = std::move(args);
    options.environment = std::move(environment);
    options.socket = first.socket();
    options.data = first.data();
    return std::make_unique<EngineProcess>(std::move(options));
  }
  // One that stands by, and waits already.
  static std::unique_ptr<EngineProcess> StandbyOf(const EngineProcess& first, std::vector<std::string> args = {},
                                                  std::vector<std::string> environment = {}) {
    args.emplace_back("--standby");
    auto standby = Beside(first, std::move(args), std::move(environment));
    standby->Launch();
    EXPECT_TRUE(WaitLog(*standby, kWaits));
    return standby;
  }

  static size_t CountInLog(const EngineProcess& engine, const std::string& text) {
    const std::string log = engine.Log();
    size_t count = 0;
    for (size_t at = log.find(text); at != std::string::npos; at = log.find(text, at + 1)) ++count;
    return count;
  }
  // What has become of the cache of an engine that took over.
  static bool WaitShard(const EngineProcess& engine, ShardState state) {
    return engine.WaitStats([state](const StatsSnapshot& s) { return s.gauge(Gauge::kShardState) == state; });
  }
  static bool WaitLog(EngineProcess& engine, const std::string& text) {
    for (const uint64_t until_ns = MonotonicNs() + kWaitMs * kNsPerMs; MonotonicNs() < until_ns;) {
      if (CountInLog(engine, text) > 0) return true;
      if (!engine.running()) break;
      poll(nullptr, 0, 1);
    }
    return CountInLog(engine, text) > 0;
  }
};

}  // namespace sutra::test
