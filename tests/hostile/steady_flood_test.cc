// Floods that go on, each beside a victim that asks a cached text every millisecond. A flood may cost the victim CPU
// time of the machine, never silence: in most tenths of a second (under sanitizers: halves) the engine answers it all
// the time.
#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <fstream>

#include "tests/hostile/flood_fixture.h"

namespace sutra::test {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kIntervalMs = 500, kIntervals = 5;
#else
constexpr int kIntervalMs = 100, kIntervals = 8;
#endif

struct Flood {
  const char* name;
  const char* duty;
  const char* ready;  // what the attacker says when it is at work
  std::vector<std::string> values;
  int processes = 1;
};

const Flood kFloods[] = {
    {"Bulk", "flood-texts", "full", {"lanes=8", "slots=1024", "text_bytes_max=256"}},
    {"Queries", "flood-texts", "full", {"lanes=8", "slots=1024", "text_bytes_max=256", "priority=1"}},
    // Thousands of requests wait for one computation, and are answered together.
    {"OneTextThousandsOfTimes", "flood-texts", "full", {"lanes=16", "slots=4096", "text_bytes_max=256", "kind=same"}},
    {"InvalidTexts", "flood-texts", "full", {"lanes=32", "slots=64", "kind=invalid", "bytes=60000"}},
    {"LongTexts", "flood-texts", "full", {"lanes=32", "slots=16", "kind=accents", "bytes=60000"}},
    {"HugeTexts", "flood-texts", "full", {"lanes=4", "slots=4", "kind=words", "bytes=16777216"}},
    {"HugeCachedTexts", "flood-texts", "full", {"lanes=4", "slots=4", "kind=same", "bytes=16777000", "store=1"}},
    {"HugeTextsThatAreInvalid", "flood-texts", "full", {"lanes=4", "slots=4", "kind=invalid-end", "bytes=16777216"}},
    {"HugeTextsOfSpaces", "flood-texts", "full", {"lanes=4", "slots=4", "kind=spaces", "bytes=16777216"}},
    {"TextsThatAreLateAtOnce", "flood-texts", "full", {"lanes=8", "slots=1024", "text_bytes_max=256", "timeout_ms=1"}},
    {"AttachesOfOneProcess", "storm-attaches", "storming", {"slots=256"}},
    {"AttachesOfManyProcesses", "storm-attaches", "storming", {"slots=1024"}, 6},
    {"ConnectionsThatVanish", "connect-silently", "silent", {"connections=64", "vanish=1"}, 2},
    {"ConnectionsThatNeverTakeTheirLanes", "connect-silently", "silent", {"connections=64", "hello=1"}, 2},
};

class SteadyFlood : public FloodTest, public testing::WithParamInterface<Flood> {};

TEST_P(SteadyFlood, SilencesNobodyElse) {
  const Flood& flood = GetParam();
  StartEngine({"--batch-tokens-max", "1024"}, {"SUTRA_FAKE_DELAY_US=2000"});
  VictimStream victim(engine_->socket());
  ASSERT_TRUE(victim.WaitAnswers(10)) << victim.wrong();
  std::vector<std::unique_ptr<ChildProcess>> attackers;
  for (int i = 0; i < flood.processes; ++i) {
    attackers.push_back(StartAttacker(flood.duty, flood.values));
    for (std::string said; said != flood.ready;) {
      const std::optional<std::string> line = attackers.back()->ReadLine(kWaitMs);
      ASSERT_TRUE(line.has_value()) << "the attacker ended: " << attackers.back()->Log();
      said = *line;
    }
  }
  std::vector<Interval> intervals;
  for (int i = 0; i < kIntervals; ++i) {
    const uint64_t start = MonotonicNs();
    poll(nullptr, 0, kIntervalMs);
    intervals.push_back({start, start + kIntervalMs * kNsPerMs});
  }
  victim.Stop();
  EXPECT_EQ(victim.wrong(), "");
  std::printf("%zu intervals silent; %zu answers, longest wait %.1f ms\n", victim.Silent(intervals), victim.answers(),
              static_cast<double>(victim.LongestWaitNs()) / 1e6);
  EXPECT_LE(victim.Silent(intervals), intervals.size() / 2);
}

INSTANTIATE_TEST_SUITE_P(Of, SteadyFlood, testing::ValuesIn(kFloods),
                         [](const auto& flood) { return std::string(flood.param.name); });

// Texts that wait are copies in the engine's own memory.
TEST_F(FloodTest, LongTextsThatWaitTakeABoundedPartOfTheEnginesMemory) {
  StartEngine({"--queue-bytes-max", "16777216"}, {"SUTRA_FAKE_DELAY_US=20000"});
  const auto resident_kib = [&] {
    std::ifstream status("/proc/" + std::to_string(engine_->process().pid()) + "/status");
    for (std::string line; std::getline(status, line);) {
      if (line.rfind("RssAnon:", 0) == 0) return std::strtoull(line.c_str() + 8, nullptr, 10);
    }
    return 0ull;
  };
  const unsigned long long before = resident_kib();
  const auto attacker = StartAttacker("flood-texts", {"lanes=4", "slots=1024", "bytes=60000"});
  EXPECT_EQ(Said(*attacker, "attached"), "4");
  Said(*attacker, "full");
  poll(nullptr, 0, 300);
  std::printf("%llu MiB before, %llu after\n", before >> 10, resident_kib() >> 10);
  EXPECT_LE(resident_kib(), before + (96 << 10));
}

}  // namespace
}  // namespace sutra::test
