// Attacks on the thread that serves everybody: long texts on many lanes, holes in a client's own memory, thousands of
// sleepers, large attaches. What a victim waited is told by the engine's own stage times: by how much of the attacker's
// text was taken before the victim's, and by intervals of which the engine answered nothing for more than half.
#include <poll.h>
#include <signal.h>

#include <algorithm>

#include "shm/base/numbers.h"
#include "tests/hostile/flood_fixture.h"
#include "tests/kit/tiny_model.h"

namespace sutra::test {
namespace {

constexpr size_t kLongText = 65'536;

class LoopAttackTest : public FloodTest {
 protected:
  struct Burst {
    uint64_t bytes_before = 0;  // of the attacker's texts, taken before the victim's cached text
    uint64_t beatless_ns = 0;   // the longest time between two heartbeats
    uint64_t waited_ns = 0;     // from the engine's start to the victim's text being taken
    uint64_t lanes = 0, texts = 0;
  };

  // The engine stands still while an attacker fills its lanes, so that the attacker needs no CPU while it runs; last
  // of all the victim submits. `late`: the victim submits when all is over.
  Burst OneBurst(const std::vector<std::string>& values, bool late = false, int processes = 1) {
    Burst burst;
    std::vector<std::string> all = {"start=1", "texts=4", "slots=4", "bytes=" + std::to_string(kLongText)};
    all.insert(all.end(), values.begin(), values.end());
    std::vector<std::unique_ptr<ChildProcess>> attackers;
    for (int i = 0; i < processes; ++i) {
      attackers.push_back(StartAttacker("queue-texts", all));
      burst.lanes += SaidNumber(*attackers.back(), "attached");
    }
    engine_->process().Stop();
    for (const auto& attacker : attackers) {
      attacker->Signal(SIGUSR1);
      burst.texts += SaidNumber(*attacker, "queued");
    }
    embed::Ticket ticket;
    const auto submit = [&] { EXPECT_EQ(victim_.client().Submit("victim", &ticket, Victim::Options()), SUTRA_OK); };
    if (!late) submit();
    Result<StatsReader> reader = StatsReader::OpenSocket(engine_->socket());
    EXPECT_TRUE(reader.ok());
    const uint64_t all_taken = reader->Snapshot()->counter("texts") + burst.texts;
    const uint64_t go = MonotonicNs();
    engine_->process().Continue();
    uint64_t last_beat_ns = go;
    for (bool taken = false; !taken && MonotonicNs() < go + 2 * kNsPerSecond; poll(nullptr, 0, 2)) {
      const StatsSnapshot now = reader->Snapshot().value();
      taken = now.counter("texts") >= all_taken;
      const uint64_t beat_ns = std::max(now.gauge("heartbeat_ns"), last_beat_ns);
      burst.beatless_ns = std::max(burst.beatless_ns, (taken ? MonotonicNs() : beat_ns) - last_beat_ns);
      last_beat_ns = beat_ns;
    }
    std::vector<Interval> times;
    for (const auto& attacker : attackers) {
      const std::vector<Interval> its = SaidPairs(*attacker);
      times.insert(times.end(), its.begin(), its.end());
      EXPECT_EQ(Said(*attacker, "end"), "");
    }
    if (late) submit();
    const Waited waited = victim_.Collect(&ticket, "victim");
    EXPECT_EQ(waited.wrong, "");
    for (const Interval& text : times) burst.bytes_before += text.start_ns < waited.taken_ns ? kLongText : 0;
    burst.waited_ns = waited.taken_ns - go;
    std::printf(
        "%zu lanes, %zu texts: %.1f MB taken before the victim's, which waited %.1f ms; %.0f ms between beats\n",
        burst.lanes, burst.texts, static_cast<double>(burst.bytes_before) / 1e6,
        static_cast<double>(burst.waited_ns) / 1e6, static_cast<double>(burst.beatless_ns) / 1e6);
    return burst;
  }
  // The worst of three for what a busy machine cannot lengthen, the best or the middle for what it can.
  Burst ThreeBursts(const std::vector<std::string>& values, int processes = 1) {
    EXPECT_EQ(victim_.Attach(engine_->socket(), 8), SUTRA_OK) << sutra_error_text();
    EXPECT_EQ(victim_.Ask("victim").wrong, "");  // cached from now on
    Burst all;
    all.beatless_ns = UINT64_MAX;
    std::vector<uint64_t> waits;
    for (int round = 0; round < 3; ++round) {
      const Burst burst = OneBurst(values, false, processes);
      all.bytes_before = std::max(all.bytes_before, burst.bytes_before);
      all.beatless_ns = std::min(all.beatless_ns, burst.beatless_ns);
      waits.push_back(burst.waited_ns);
      EXPECT_TRUE(engine_->WaitLanes(1));
    }
    std::sort(waits.begin(), waits.end());
    all.waited_ns = waits[1];
    return all;
  }
  static std::vector<std::string> ManyLanes() {
    return {"--lanes-max",       "256",    "--lanes-per-uid-max", "256", "--lanes-per-client-max", "256",
            "--attach-rate-max", "1000000"};
  }

  Victim victim_;
};

// What one client may make the loop copy before it looks at another's lane.
constexpr uint64_t kBytesBefore = 4 << 20;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kSlower = 10;
constexpr int kFewer = 4;  // still several times the bytes that may go before the victim
#else
constexpr uint64_t kSlower = 1;
constexpr int kFewer = 1;
#endif
constexpr uint64_t kBeatlessNs = kSlower * 300 * kNsPerMs;
constexpr uint64_t kWaitedNs = kSlower * 150 * kNsPerMs;

std::string Lanes(int lanes) { return "lanes=" + std::to_string(lanes / kFewer); }

TEST_F(LoopAttackTest, LongTextsOnManyLanesOfOneClientDoNotHoldUpAnother) {
  StartEngine(ManyLanes());
  const Burst burst = ThreeBursts({Lanes(250), "kind=words"});
  EXPECT_LE(burst.bytes_before, kBytesBefore);
  EXPECT_LE(burst.beatless_ns, kBeatlessNs);
}

// A tokenizer that looks for accents takes longest for them.
TEST_F(LoopAttackTest, LongTextsOfAccentsOnManyLanesDoNotHoldUpAnother) {
  TinyModel model;
  model.Save();
  std::vector<std::string> args = ManyLanes();
  args.insert(args.end(), {"--backend", "torch", "--executor", "cpu", "--model", model.path()});
  StartEngine(args);
  victim_.ExpectAnyVector();
  const Burst burst = ThreeBursts({Lanes(240), "kind=accents"});
  EXPECT_LE(burst.bytes_before, kBytesBefore);
  EXPECT_LE(burst.beatless_ns, kBeatlessNs);
  EXPECT_LE(burst.waited_ns, kWaitedNs);
}

// Each process is a client and has its turn: the victim waits for one turn of each, at most.
TEST_F(LoopAttackTest, LongTextsOfManyProcessesHoldUpAnotherForATurnOfEach) {
  StartEngine(ManyLanes());
  const Burst burst = ThreeBursts({Lanes(20), "kind=words"}, 12);
  EXPECT_LE(burst.bytes_before, 12 * (kBytesBefore / 4));
  EXPECT_LE(burst.beatless_ns, kBeatlessNs);
}

// Texts of 12 MB, each of a client of its own: all of them are taken while the first few are read. A loop that read
// them would take the last after all others were read, and the first ones computed.
TEST_F(LoopAttackTest, TheLoopTakesHugeTextsWithoutReadingThem) {
  constexpr size_t kProcesses = 8;
  StartEngine(ManyLanes());
  for (const char* kind : {"words", "spaces", "same"}) {
    std::vector<std::unique_ptr<ChildProcess>> attackers;
    for (size_t i = 0; i < kProcesses; ++i) {
      attackers.push_back(StartAttacker("queue-texts", {"start=1", "bytes=12000000", std::string("kind=") + kind}));
      EXPECT_EQ(SaidNumber(*attackers.back(), "attached"), 1u);
    }
    engine_->process().Stop();
    for (const auto& attacker : attackers) {
      attacker->Signal(SIGUSR1);
      EXPECT_EQ(SaidNumber(*attacker, "queued"), 1u);
    }
    engine_->process().Continue();
    uint64_t last_taken_ns = 0;
    std::vector<uint64_t> batched_ns;
    for (const auto& attacker : attackers) {
      for (const Interval& text : SaidPairs(*attacker)) {
        last_taken_ns = std::max(last_taken_ns, text.start_ns);
        batched_ns.push_back(text.end_ns);
      }
      EXPECT_EQ(Said(*attacker, "end"), "");
    }
    ASSERT_EQ(batched_ns.size(), kProcesses);
    const auto before = [=](uint64_t batched) { return batched != 0 && batched < last_taken_ns; };
    EXPECT_LT(std::count_if(batched_ns.begin(), batched_ns.end(), before), kProcesses / 2) << kind;
    EXPECT_TRUE(engine_->WaitLanes(0));
  }
}

TEST_F(LoopAttackTest, CanaryATextBehindAllOthersIsSeen) {
  StartEngine(ManyLanes());
  ASSERT_EQ(victim_.Attach(engine_->socket(), 8), SUTRA_OK) << sutra_error_text();
  const Burst burst = OneBurst({"lanes=40", "kind=words"}, true);
  EXPECT_GT(burst.bytes_before, 2 * kBytesBefore);
}

class SilenceTest : public FloodTest {
 protected:
  static std::vector<Interval> LongerThan(uint64_t milliseconds, std::vector<Interval> intervals) {
    std::erase_if(intervals, [=](const Interval& i) { return i.length() < milliseconds * kNsPerMs; });
    return intervals;
  }
  // The victim went on being answered during most of `intervals`.
  static void ExpectAnswersDuring(VictimStream& victim, const std::vector<Interval>& intervals) {
    victim.Stop();
    EXPECT_EQ(victim.wrong(), "");
    uint64_t longest = 0;
    for (const Interval& interval : intervals) longest = std::max(longest, interval.length());
    std::printf("%zu intervals, longest %.1f ms, silent %zu; %zu answers, longest wait %.1f ms\n", intervals.size(),
                static_cast<double>(longest) / 1e6, victim.Silent(intervals), victim.answers(),
                static_cast<double>(victim.LongestWaitNs()) / 1e6);
    EXPECT_LE(victim.Silent(intervals), intervals.size() / 2);
  }
};

TEST_F(SilenceTest, HolesThatAClientPunchesIntoItsOwnMemoryHoldUpNobodyElse) {
  StartEngine();
  VictimStream victim(engine_->socket());
  ASSERT_TRUE(victim.WaitAnswers(10)) << victim.wrong();
  const auto attacker = StartAttacker("punch-holes", {"slots=4096", "rounds=5"});
  EXPECT_EQ(Said(*attacker, "attached"), "");
  EXPECT_EQ(Said(*attacker, "punched"), "");
  const std::vector<Interval> punches = LongerThan(10, SaidPairs(*attacker));
  if (punches.size() < 3) GTEST_SKIP() << "SKIPPED: no punch takes 10 ms here, so none could hold up anybody";
  ExpectAnswersDuring(victim, punches);
}

// The largest lanes that there are: 4,096 slots, 8,192 numbers a vector.
TEST_F(SilenceTest, LargeAttachesAndTheirEndsHoldUpNobodyElse) {
  StartEngine({"--fake-width", "8192", "--text-bytes-max", "4096"});
  VictimStream victim(engine_->socket());
  ASSERT_TRUE(victim.WaitAnswers(10)) << victim.wrong();
  const auto attacker = StartAttacker("storm-attaches", {"slots=4096", "rounds=8", "calm_ms=20"});
  EXPECT_EQ(Said(*attacker, "storming"), "");
  const std::vector<Interval> attaches = LongerThan(10, SaidPairs(*attacker));
  const std::vector<Interval> after_detaches = SaidPairs(*attacker);
  if (attaches.size() < 4) GTEST_SKIP() << "SKIPPED: no attach takes 10 ms here, so none could hold up anybody";
  ExpectAnswersDuring(victim, attaches);
  ExpectAnswersDuring(victim, after_detaches);
}

// What the two tests above count sees an engine that stands still.
TEST_F(SilenceTest, CanaryAnEngineThatIsStoppedIsSeen) {
  StartEngine();
  VictimStream victim(engine_->socket());
  ASSERT_TRUE(victim.WaitAnswers(10)) << victim.wrong();
  std::vector<Interval> stops;
  for (int i = 0; i < 6; ++i) {
    engine_->process().Stop();
    const uint64_t start = MonotonicNs();
    poll(nullptr, 0, 30);
    stops.push_back({start, MonotonicNs()});
    engine_->process().Continue();
    poll(nullptr, 0, 30);
  }
  victim.Stop();
  EXPECT_EQ(victim.Silent(stops), stops.size());
  EXPECT_GE(victim.LongestWaitNs(), 20 * kNsPerMs);
  EXPECT_EQ(victim.wrong(), "");
}

class WakeStormTest : public FloodTest {
 protected:
  static constexpr uint64_t kWakesMax = 64;
  uint64_t WokenByOneAnswer(const std::vector<std::string>& values) {
    const auto attacker = StartAttacker("park-threads", values);
    const uint64_t parked = SaidNumber(*attacker, "parked");
    EXPECT_GT(parked, 10 * kWakesMax) << "not enough threads allowed here";
    return SaidNumber(*attacker, "woken");
  }
};

TEST_F(WakeStormTest, AnAnswerWakesAFewOfThousandsOfThreads) {
  StartEngine();
  VictimStream victim(engine_->socket());
  ASSERT_TRUE(victim.WaitAnswers(10)) << victim.wrong();
  const uint64_t woken = WokenByOneAnswer({"threads=3000"});
  EXPECT_GT(woken, 0u);
  EXPECT_LE(woken, 2 * kWakesMax);  // taken and answered may be two wakes
  victim.Stop();
  EXPECT_EQ(victim.wrong(), "");
}

TEST_F(WakeStormTest, CanaryAWakeOfAllIsCounted) {
  StartEngine();
  EXPECT_GT(WokenByOneAnswer({"threads=3000", "self=1"}), 10 * kWakesMax);
}

}  // namespace
}  // namespace sutra::test
