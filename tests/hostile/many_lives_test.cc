// P19: clients that attach, ask, detach and die in every way, a thousand times and more: what the engine holds
// afterwards is what it held before.
//   SUTRA_LIVES=20000 BUILD/bin/flood_test --gtest_filter='ManyLives*'
#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <fstream>

#include "tests/hostile/flood_fixture.h"
#include "tests/kit/raw_client.h"
#include "tests/kit/seed.h"

namespace sutra::test {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kMemoryIsTheSanitizers = true;
#else
constexpr bool kMemoryIsTheSanitizers = false;
#endif

constexpr uint64_t kMemoryKib = 16 << 10;  // what allocators may keep
constexpr int kWorkers = 4;

class ManyLives : public testing::Test {
 protected:
  struct Held {
    ProcessFootprint footprint;
    uint64_t resident_kib = 0, shared_kib = 0, lanes = 0;
  };
  void SetUp() override { ASSERT_TRUE(engine_.Start()); }

  Held Holds() {
    Held held = {.footprint = FootprintOf(engine_.process().pid())};
    std::ifstream status("/proc/" + std::to_string(engine_.process().pid()) + "/status");
    for (std::string line; std::getline(status, line);) {
      const auto number = [&] { return std::strtoull(line.c_str() + line.find(':') + 1, nullptr, 10); };
      if (line.rfind("VmRSS:", 0) == 0) held.resident_kib = number();
      if (line.rfind("RssShmem:", 0) == 0) held.shared_kib = number();
    }
    held.lanes = engine_.Stats().gauge("lanes");
    return held;
  }
  static std::string ToText(const Held& held) {
    return test::ToText(held.footprint) + ", " + std::to_string(held.lanes) + " lanes, " +
           std::to_string(held.resident_kib >> 10) + " MiB resident, " + std::to_string(held.shared_kib >> 10) +
           " MiB of them shared";
  }
  static bool NoMore(const Held& now, const Held& before) {
    const bool memory = now.resident_kib <= before.resident_kib + kMemoryKib || kMemoryIsTheSanitizers;
    return now.footprint.descriptors <= before.footprint.descriptors &&
           now.footprint.lane_maps <= before.footprint.lane_maps && now.footprint.threads <= before.footprint.threads &&
           now.lanes == before.lanes && memory && now.shared_kib <= before.shared_kib + 1024;
  }
  bool BecomesNoMore(const Held& before, int timeout_ms) {
    return engine_.WaitStats([&](const StatsSnapshot&) { return NoMore(Holds(), before); }, 1, timeout_ms);
  }

  // `lives` in all, by several processes at once.
  void Live(uint64_t lives, uint64_t seed) {
    std::vector<std::unique_ptr<ChildProcess>> workers;
    for (int i = 0; i < kWorkers; ++i) {
      SpawnOptions spawn;
      spawn.args = {SUTRA_FLOOD_CLIENT_PROGRAM,
                    "live-many-lives",
                    engine_.socket(),
                    "lives=" + std::to_string((lives + kWorkers - 1) / kWorkers),
                    "seed=" + std::to_string(seed + static_cast<uint64_t>(i)),
                    "seconds=1200"};
      spawn.log_path = engine_.directory() / "lives.log";
      spawn.pipe_output = true;
      workers.push_back(std::make_unique<ChildProcess>(spawn));
    }
    for (const auto& worker : workers) {
      const std::optional<ExitStatus> status = worker->Wait(1'300'000);
      ASSERT_TRUE(status.has_value() && status->exited && status->code == 0) << worker->Log();
      const std::string said = worker->ReadOutput(kWaitMs);
      EXPECT_NE(said.find("wrong 0\n"), std::string::npos) << said;
      EXPECT_NE(said.find("failed 0\n"), std::string::npos) << said;
    }
    ASSERT_TRUE(engine_.running());
  }

  static EngineOptions Options() {
    EngineOptions options;
    options.args = {"--cache-entries-max", "1000",    "--wal-segment-bytes", "262144",
                    "--wal-bytes-max",     "2097152", "--attach-rate-max",   "1000000"};
    options.environment = {"SUTRA_FAKE_TOKENS_MAX=131072"};  // the answer to a truncated text is not known
    return options;
  }
  EngineProcess engine_{Options()};
};

TEST_F(ManyLives, LeaveWhatWasThereBefore) {
  const uint64_t lives = NumberFromEnvironment("SUTRA_LIVES", 1000);
  const uint64_t seed = FreshTestSeed();
  Live(400, seed);  // what is made once, and what allocators keep of the first crowd
  ASSERT_TRUE(engine_.WaitLanes(0));
  poll(nullptr, 0, 1500);  // attaches that a kill cut short expire
  const Held before = Holds();
  const uint64_t attaches_before = engine_.Stats().counter("attaches");
  Live(lives, seed + 1000);
  EXPECT_TRUE(BecomesNoMore(before, 10'000));
  const StatsSnapshot after = engine_.Stats();
  std::printf("%zu lives, %zu attaches, %zu died, %zu refused\nbefore: %s\nafter:  %s\n", lives,
              after.counter("attaches") - attaches_before, after.counter("lanes_client_died"),
              after.counter("attaches_refused"), ToText(before).c_str(), ToText(Holds()).c_str());
  EXPECT_EQ(after.counter("lanes_protocol_violation"), 0u);
  EXPECT_GT(after.counter("lanes_client_died"), lives / 20);
}

// What is compared above sees one lane that stays, and nothing but it.
TEST_F(ManyLives, CanaryOneLaneThatStaysIsSeen) {
  Live(50, 7);
  ASSERT_TRUE(engine_.WaitLanes(0));
  poll(nullptr, 0, 1500);
  const Held before = Holds();
  EXPECT_TRUE(BecomesNoMore(before, 1000));
  const RawClient stays = RawClient::Attach(engine_.socket());
  ASSERT_TRUE(stays.lane_ready());
  ASSERT_TRUE(engine_.WaitLanes(1));
  EXPECT_FALSE(BecomesNoMore(before, 1000));
  const Held now = Holds();
  EXPECT_GT(now.footprint.descriptors, before.footprint.descriptors);
  EXPECT_GT(now.footprint.lane_maps, before.footprint.lane_maps);
}

}  // namespace
}  // namespace sutra::test
