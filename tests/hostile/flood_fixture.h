// What the tests of floods share: an engine, attackers as processes, and the reading of what they say.
// Thread rule: the test's main thread.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/hostile/victim.h"
#include "tests/kit/engine_process.h"
#include "tests/kit/watchdog.h"

namespace sutra::test {

class FloodTest : public testing::Test {
 protected:
  // Without the hot table: what a victim asks for has to reach the engine, whose stage times tell how long it waited.
  void StartEngine(std::vector<std::string> args = {}, std::vector<std::string> environment = {},
                   std::vector<std::pair<int, uint64_t>> limits = {}) {
    EngineOptions options;
    options.args = std::move(args);
    options.args.insert(options.args.end(), {"--hot-bytes-max", "0"});
    options.environment = std::move(environment);
    options.limits = std::move(limits);
    engine_ = std::make_unique<EngineProcess>(std::move(options));
    // An assertion would only end this function, and the test would wait for what cannot come.
    if (!engine_->Start() || !engine_->WaitLanes(0)) throw std::runtime_error("the engine does not serve");
  }
  void TearDown() override {
    if (engine_ == nullptr) return;
    EXPECT_TRUE(engine_->running()) << "the engine died";
    if (!engine_->running()) return;
    const ExitStatus status = engine_->Terminate();
    EXPECT_TRUE(status.exited && (status.code == 0 || status.code == 6)) << ToText(status);
  }

  std::unique_ptr<ChildProcess> StartAttacker(const std::string& duty, const std::vector<std::string>& values = {},
                                              std::optional<uid_t> uid = {}) {
    SpawnOptions spawn;
    spawn.args = {SUTRA_FLOOD_CLIENT_PROGRAM, duty, engine_->socket()};
    spawn.args.insert(spawn.args.end(), values.begin(), values.end());
    spawn.log_path = engine_->directory() / "attackers.log";
    spawn.pipe_output = true;
    spawn.uid = uid;
    return std::make_unique<ChildProcess>(spawn);
  }
  // The rest of its line that begins with `name`; fails the test when it says something else.
  static std::string Said(ChildProcess& attacker, const std::string& name) {
    const std::string line = attacker.ReadLine(kWaitMs).value_or("(nothing)");
    EXPECT_EQ(line.substr(0, name.size()), name) << line.substr(0, 200) << attacker.Log();
    return line.size() > name.size() ? line.substr(name.size() + 1) : std::string();
  }
  static uint64_t SaidNumber(ChildProcess& attacker, const std::string& name) {
    return std::strtoull(Said(attacker, name).c_str(), nullptr, 10);
  }
  // A line of pairs of numbers: times.
  static std::vector<Interval> SaidPairs(ChildProcess& attacker) {
    std::istringstream line(attacker.ReadLine(kWaitMs).value_or(""));
    std::vector<Interval> pairs;
    for (Interval pair; line >> pair.start_ns >> pair.end_ns;) pairs.push_back(pair);
    return pairs;
  }

  std::unique_ptr<EngineProcess> engine_;

 private:
  Watchdog watchdog_{std::chrono::seconds(110)};
};

}  // namespace sutra::test
