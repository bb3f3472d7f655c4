// What sutra-stat prints, from snapshots made by hand.
#include "tools/lib/stat_report.h"

#include <gtest/gtest.h>

#include <iterator>
#include <sstream>
#include <vector>

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

// The rates of what the engine answered are the same whatever clients report.
TEST(StatText, WhatClientsReportOfTheHotTableIsShownApart) {
  StatView view = Example();
  const std::string none = StatText(view);
  EXPECT_EQ(none.find("hot  "), std::string::npos) << none;
  view.now.counters["hot_hits"] = 30;
  view.now.gauges["hot_slots"] = 41'000;
  view.now.gauges["hot_used"] = 12;
  view.now.gauges["hot_published"] = 15;
  view.now.gauges["hot_evicted"] = 2;
  view.now.gauges["hot_removed"] = 1;
  const std::string text = StatText(view);
  EXPECT_NE(text.find("hot       clients report 30 = 75.0 % of 40 lookups; table 12 of 41000 slots, published 15, "
                      "evicted 2, removed 1\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("hits 5 = 50.0 %, joined 1 = 10.0 %, misses 4 = 40.0 %"), std::string::npos) << text;
  const nlohmann::json json = StatJson(view);
  EXPECT_EQ(json["lookups"], 40);
  EXPECT_EQ(json["hot_rate"], 0.75);
  EXPECT_EQ(json["hit_rate"], 0.5);
  EXPECT_EQ(json["joined_rate"], 0.1);
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

TEST(StatText, TheLogIsOkOnlyWhileItLogsWhatIsAccepted) {
  const auto log_line = [](const StatView& view) {
    std::istringstream lines(StatText(view));
    std::string line;
    while (std::getline(lines, line) && line.rfind("log ", 0) != 0) {
    }
    return line;
  };
  StatView view = Example();
  EXPECT_NE(log_line(view).find(" ok ("), std::string::npos) << log_line(view);
  StatsSnapshot before = view.now;
  view.before = &before;
  view.now.gauges["wal_dropped_inserts"] = 7;
  EXPECT_NE(log_line(view).find(" BEHIND: "), std::string::npos) << log_line(view);
  before.gauges["wal_dropped_inserts"] = 7;
  EXPECT_NE(log_line(view).find(" ok ("), std::string::npos) << "it has caught up: " << log_line(view);
  view.now.gauges["log_full"] = 1;
  EXPECT_NE(log_line(view).find(" FULL: "), std::string::npos) << log_line(view);
  view.now.gauges["storage_failed"] = 1;
  EXPECT_NE(log_line(view).find(" FAILED: "), std::string::npos) << log_line(view);
  view.now.gauges["shard_state"] = kShardFailed;
  EXPECT_NE(log_line(view).find(" NOT OPEN: "), std::string::npos) << log_line(view);
  view.now.gauges["shard_state"] = kShardOpening;
  EXPECT_NE(log_line(view).find(" OPENING "), std::string::npos) << log_line(view);
}

TEST(StatText, CachesOfOtherModelsAreShownWhereThereAreOrWereSome) {
  StatView view = Example();
  EXPECT_EQ(StatText(view).find("others"), std::string::npos);
  view.now.gauges["other_identities"] = 2;
  view.now.gauges["other_identities_bytes"] = 129 << 20;
  view.now.gauges["identities_removed"] = 1;
  EXPECT_NE(StatText(view).find("others    2 caches of other models, 129.0 MiB; removed 1 since start"),
            std::string::npos)
      << StatText(view);
}

TEST(StatText, EntriesThatAreStillToBeReadAreShownWhileThereAreSome) {
  StatView view = Example();
  EXPECT_EQ(StatText(view).find("unread"), std::string::npos);
  view.now.gauges["cache_unread_entries"] = 12;
  EXPECT_NE(StatText(view).find("unread    12 of the entries are still to be read from the log"), std::string::npos)
      << StatText(view);
}

TEST(StatText, ATakeoverShowsWhatWaitsForTheCacheToOpen) {
  StatView view = Example();
  EXPECT_EQ(StatText(view).find("takeover"), std::string::npos);
  view.now.gauges["inserts_waiting"] = 12;
  view.now.gauges["inserts_dropped"] = 3;
  EXPECT_NE(StatText(view).find("takeover  12 inserts wait for the cache to open, 3 were dropped"), std::string::npos)
      << StatText(view);
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

TEST(WatchFrame, SaysWhenItWasTakenAndWhatItsRatesCover) {
  StatView view = Example();
  view.now.taken_wall_ns = 1'700'000'000'123'456'789;
  const std::string first = WatchFrame(view, 0);
  EXPECT_EQ(first.rfind("time      2023-11-14T22:13:20Z, first view", 0), 0u) << first;
  EXPECT_EQ(first.substr(first.find('\n') + 1), StatText(view));
  StatsSnapshot before = view.now;
  before.taken_monotonic_ns -= 500'000'000;
  view.before = &before;
  EXPECT_NE(WatchFrame(view, 0).find("of the last 0.5 s"), std::string::npos) << WatchFrame(view, 0);
}

TEST(WatchFrame, LosesNoWordOnANarrowTerminalAndFitsIt) {
  const StatView view = Example();
  const auto words = [](const std::string& text) {
    std::istringstream stream(text);
    return std::vector<std::string>(std::istream_iterator<std::string>(stream), {});
  };
  for (const size_t columns : {40, 60, 80, 200}) {
    const std::string frame = WatchFrame(view, columns);
    EXPECT_EQ(words(frame), words(WatchFrame(view, 0)));
    std::istringstream lines(frame);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), columns) << line;
  }
}

}  // namespace
}  // namespace sutra
