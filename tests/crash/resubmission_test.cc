// P7 and P8 in the middle of a move to the next engine: the client is killed, or the next engine is, at every step of
// producer/resubmission.h. Nobody else is harmed; of a client that lives every call ends right.
#include <string>
#include <vector>

#include "tests/system/system_fixture.h"

namespace sutra::test {
namespace {

constexpr size_t kTexts = 24;

struct Step {
  const char* name;
  int nth;  // hit of the checkpoint: some steps are taken for each request
};
constexpr Step kSteps[] = {{"move.evidence", 1},  {"move.gone", 1},       {"move.woken", 1},  {"move.attached", 2},
                           {"move.settled", 2},   {"move.copied", 2},     {"move.home", 1},   {"move.home", 7},
                           {"move.published", 1}, {"move.published", 7},  {"move.opened", 2}, {"move.bumped", 2},
                           {"move.rung", 2},      {"release.unpinned", 1}};

class ResubmissionAtEveryStep : public SystemTest {
 protected:
  void SetUp() override {
    engine_.options().environment = {"SUTRA_FAKE_DELAY_US=10000"};  // most texts are under way when the engine dies
    engine_.options().args = {"--batch-tokens-max", "64"};
    ASSERT_TRUE(engine_.Start());
    neighbour_ = StartClient(engine_, "stream", {{"batch", "4"}});
    ExpectLine(*neighbour_, "attached");
  }

  std::unique_ptr<ChildProcess> StartMoving(const std::string& checkpoint, uint32_t flags = 0) {
    SpawnOptions spawn;
    spawn.args = {SUTRA_MOVING_CLIENT_PROGRAM, engine_.socket(), std::to_string(kTexts), std::to_string(flags)};
    if (!checkpoint.empty()) spawn.environment = {"SUTRA_CHECKPOINT=" + checkpoint};
    spawn.log_path = engine_.directory() / "clients.log";
    spawn.pipe_output = true;
    auto client = std::make_unique<ChildProcess>(spawn);
    ExpectLine(*client, "submitted");
    return client;
  }
  static std::string At(const Step& step, const char* action) {
    return std::string(step.name) + ":" + action + ":" + std::to_string(step.nth);
  }

  void ExpectUnharmed(const std::string& at) {
    ASSERT_TRUE(engine_.WaitLanes(1)) << at << ": the neighbour's is not the only lane";
    ASSERT_TRUE(neighbour_->Running()) << at << "\n" << neighbour_->Log();
    const std::string text = "a new client after " + at;
    ExpectVector(Attached(engine_).Embed(text), text);
    EXPECT_EQ(engine_.Stats().counter("lanes_protocol_violation"), 0u) << at;
  }
  static void ExpectAllRight(ChildProcess& client, const std::string& at) {
    const std::optional<ExitStatus> status = client.Wait(kWaitMs);
    ASSERT_TRUE(status.has_value()) << at << ": a call does not end";
    EXPECT_TRUE(status->exited && status->code == 0) << at << ": " << ToText(*status) << "\n" << client.Log();
  }

  EngineProcess engine_;
  std::unique_ptr<ChildProcess> neighbour_;
};

TEST_F(ResubmissionAtEveryStep, AKilledClientHarmsNobody) {
  if (!kCheckpoints) GTEST_SKIP() << kNoCheckpoints;
  for (const Step& step : kSteps) {
    const auto client = StartMoving(At(step, "kill"));
    engine_.Kill();
    ASSERT_TRUE(engine_.Start()) << step.name;
    const std::optional<ExitStatus> status = client->Wait(kWaitMs);
    ASSERT_TRUE(status.has_value()) << step.name << ": the client hangs";
    EXPECT_EQ(status->signal, SIGKILL) << step.name << " is not reached: " << ToText(*status) << "\n" << client->Log();
    ExpectUnharmed(At(step, "kill"));
    if (HasFailure()) return;
  }
  ExpectRight(*neighbour_);
}

TEST_F(ResubmissionAtEveryStep, AKilledEngineCostsNoCallItsAnswer) {
  if (!kCheckpoints) GTEST_SKIP() << kNoCheckpoints;
  bool go_on_first = false;
  for (const Step& step : kSteps) {
    const std::string at = At(step, "stop");
    const auto client = StartMoving(at);
    engine_.Kill();
    ASSERT_TRUE(engine_.Start()) << at;
    ASSERT_TRUE(client->WaitStopped(kWaitMs)) << at << " is not reached\n" << client->Log();
    engine_.Kill();
    // The client may go on before the next engine is there, or find it.
    go_on_first = !go_on_first;
    if (go_on_first) client->Continue();
    ASSERT_TRUE(engine_.Start()) << at;
    if (!go_on_first) client->Continue();
    ExpectAllRight(*client, at);
    ExpectUnharmed(at);
    if (HasFailure()) return;
  }
  ExpectRight(*neighbour_);
}

TEST_F(ResubmissionAtEveryStep, ManyEnginesKilledInARowCostNoCallItsAnswer) {
  const auto client = StartMoving("");
  for (int kill = 0; kill < 5; ++kill) {
    engine_.Kill();
    ASSERT_TRUE(engine_.Start());
  }
  ExpectAllRight(*client, "five kills");
  ExpectUnharmed("five kills");
  ExpectRight(*neighbour_);
}

// Requests that do not move end with their engine: what is checked above notices it.
TEST_F(ResubmissionAtEveryStep, CanaryALostCallIsNoticed) {
  const auto client = StartMoving("", SUTRA_FAIL_FAST);
  engine_.Kill();
  ASSERT_TRUE(engine_.Start());
  const std::optional<ExitStatus> status = client->Wait(kWaitMs);
  ASSERT_TRUE(status.has_value());
  EXPECT_TRUE(status->exited && status->code == 4) << ToText(*status) << "\n" << client->Log();
}

}  // namespace
}  // namespace sutra::test
