// What sutra-stat prints, from snapshots made by hand.
#include "tools/lib/stat_report.h"

#include <gtest/gtest.h>

#include "shm/layout.h"

namespace sutra {
namespace {

StatView Example() {
  StatView view;
  view.now.model = "tiny";
  view.now.counters = {{"texts", 10}, {"hits", 5},       {"joined", 1},
                       {"misses", 4}, {"replies_ok", 9}, {"replies_empty_text", 1}};
  view.now.gauges = {{"state", kEngineServing}, {"heartbeat_ns", 1'000'000'000}, {"queue_texts", 3}};
  view.now.taken_monotonic_ns = 1'034'000'000;
  view.life = EngineLife::kAlive;
  return view;
}

TEST(StatText, SaysTheHeartbeatFirst) {
  const std::string text = StatText(Example());
  EXPECT_EQ(text.rfind("engine    alive, last heartbeat 34 ms ago", 0), 0u) << text;
}

TEST(StatText, CountsHitsJoinedAndMissesApart) {
  const std::string text = StatText(Example());
  EXPECT_NE(text.find("hits 5 = 50.0 %, joined 1 = 10.0 %, misses 4 = 40.0 %"), std::string::npos) << text;
}

TEST(StatText, ShowsFailedRepliesByTheirStatus) {
  const std::string text = StatText(Example());
  EXPECT_NE(text.find("ok 9, empty text 1"), std::string::npos) << text;
}

TEST(StatText, EverySegmentThatCanBeReadGivesAReportEvenAnEmptyOne) {
  StatView view;
  view.life = EngineLife::kCrashed;
  EXPECT_NE(StatText(view).find("crashed"), std::string::npos);
  EXPECT_EQ(StatJson(view)["hit_rate"], 0.0);
}

TEST(StatText, LiveViewShowsRatesOfTheInterval) {
  StatView view = Example();
  StatsSnapshot before = view.now;
  before.counters["texts"] = 0;
  before.taken_monotonic_ns = 534'000'000;
  view.before = &before;
  EXPECT_NE(StatText(view).find("texts     10 (20/s)"), std::string::npos) << StatText(view);
}

TEST(StatJson, HoldsLifeAgeAndEveryCounter) {
  const nlohmann::json json = StatJson(Example());
  EXPECT_EQ(json["life"], "alive");
  EXPECT_EQ(json["heartbeat_age_ms"], 34.0);
  EXPECT_EQ(json["lookups"], 10);
  EXPECT_EQ(json["hit_rate"], 0.5);
  EXPECT_EQ(json["joined_rate"], 0.1);
  EXPECT_EQ(json["counters"]["texts"], 10);
}

TEST(StatExitCode, TellsTheLivesApart) {
  EXPECT_EQ(StatExitCode(EngineLife::kAlive), 0);
  EXPECT_EQ(StatExitCode(EngineLife::kStopped), 2);
  EXPECT_EQ(StatExitCode(EngineLife::kCrashed), 3);
  EXPECT_EQ(StatExitCode(EngineLife::kStale), 4);
}

TEST(DurationText, KeepsTwoUsefulDigits) {
  EXPECT_EQ(DurationText(0), "0 ns");
  EXPECT_EQ(DurationText(3'240), "3.2 us");
  EXPECT_EQ(DurationText(41'000'000), "41 ms");
  EXPECT_EQ(DurationText(7.5e12), "2 h 5 m");
}

}  // namespace
}  // namespace sutra
