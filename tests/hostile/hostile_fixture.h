// What every attack starts and ends with: a real engine, a neighbour whose stream is compared throughout, and three
// questions at the end: is the engine alive, was the attack counted, did the neighbour get correct answers.
// Thread rule: the test's main thread.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "tests/hostile/neighbour.h"
#include "tests/kit/engine_process.h"
#include "tests/kit/raw_client.h"
#include "tests/kit/watchdog.h"

namespace sutra::test {

class HostileTest : public testing::Test {
 protected:
  static constexpr uint64_t kAnswersAfterwards = 50;

  void SetUp() override {
    if (!StartsEngine()) return;
    StartEngine({});
  }
  void TearDown() override { EndAttack(); }
  virtual bool StartsEngine() const { return true; }

  void StartEngine(EngineOptions options) {
    engine_ = std::make_unique<EngineProcess>(std::move(options));
    // An assertion would only end this function, and the test would wait for what cannot come.
    if (!engine_->Start()) throw std::runtime_error("the engine does not serve");
    neighbour_ = std::make_unique<Neighbour>(engine_->socket());
    ASSERT_TRUE(neighbour_->WaitAnswers(10)) << "no stream before the attack";
    ASSERT_TRUE(engine_->WaitLanes(1));
    before_ = engine_->Stats();
  }

  // Called by every test at the latest in TearDown.
  void EndAttack() {
    if (engine_ == nullptr || neighbour_ == nullptr) return;
    EXPECT_TRUE(neighbour_->WaitAnswers(kAnswersAfterwards)) << "the neighbour starves";
    EXPECT_TRUE(engine_->running()) << "the engine died";
    neighbour_->Stop();
    EXPECT_EQ(neighbour_->wrong(), 0U) << neighbour_->first_wrong();
    neighbour_ = nullptr;
    if (!engine_->running()) return;
    const ExitStatus status = engine_->Terminate();
    EXPECT_TRUE(status.exited && status.code == 0) << ToText(status);  // sanitizers report here at the latest
  }

  // The lane was closed for breaking the protocol, and that was counted.
  void ExpectViolation(const RawClient& client) {
    EXPECT_TRUE(client.WaitClosed(kWaitMs)) << "the lane is still open";
    EXPECT_EQ(client.close_reason(), StatusCode::kProtocolViolation);
    EXPECT_TRUE(client.HungUp(kWaitMs));
    EXPECT_TRUE(engine_->WaitStats([&](const StatsSnapshot& now) {
      return now.counter("lanes_protocol_violation") > before_.counter("lanes_protocol_violation");
    }));
  }
  // Back to the neighbour's one lane: nothing of the attacker is left.
  void ExpectOnlyNeighbourLeft() { EXPECT_TRUE(engine_->WaitLanes(1)); }

  // No lane of the attacker is still mapped and no descriptor of it is open. (Threads and a few descriptors of the
  // engine come and go: io_uring's workers, a log file.)
  void ExpectNothingLeft(const ProcessFootprint& before) {
    const auto now = [&] { return FootprintOf(engine_->process().pid()); };
    EXPECT_TRUE(engine_->WaitStats([&](const StatsSnapshot&) {
      return now().lane_maps == before.lane_maps && now().descriptors <= before.descriptors + 2;
    })) << ToText(now())
        << " after " << ToText(before);
  }

  std::unique_ptr<ChildProcess> StartHostile(const std::string& duty, std::optional<uid_t> uid = {}) {
    SpawnOptions spawn;
    spawn.args = {SUTRA_HOSTILE_CLIENT_PROGRAM, duty, engine_->socket()};
    spawn.log_path = engine_->directory() / "hostile.log";
    spawn.pipe_output = true;
    spawn.uid = uid;
    return std::make_unique<ChildProcess>(spawn);
  }
  RawClient Attach() {
    RawClient client = RawClient::Attach(engine_->socket());
    EXPECT_TRUE(client.lane_ready());
    return client;
  }

  std::unique_ptr<EngineProcess> engine_;
  std::unique_ptr<Neighbour> neighbour_;
  StatsSnapshot before_;

 private:
  Watchdog watchdog_{std::chrono::seconds(110)};
};

}  // namespace sutra::test
