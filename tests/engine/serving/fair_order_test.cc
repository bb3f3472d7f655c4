#include "engine/serving/fair_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/kit/queued_text.h"
#include "tests/kit/seed.h"

namespace sutra {
namespace {

using Names = std::vector<std::string>;
using testing::At;
using testing::QueuedText;

void Add(FairOrder* order, const std::string& name, uint32_t cost, const QueuePlace& place) {
  ComputationPtr text = QueuedText(name, cost, place.client);
  order->Add(place, &text);
}

std::string Next(FairOrder* order) {
  TakenText taken;
  return order->Take(1, &taken) ? taken.computation->text : "";
}

Names NextOf(FairOrder* order, int count) {
  Names names;
  for (int i = 0; i < count; ++i) names.push_back(Next(order));
  return names;
}

TEST(FairOrder, AClientWithManyTextsDoesNotDelayOneWithFew) {
  FairOrder order;
  for (int i = 0; i < 6; ++i) Add(&order, "many" + std::to_string(i), 10, At(1));
  for (int i = 0; i < 2; ++i) Add(&order, "few" + std::to_string(i), 10, At(2));
  EXPECT_EQ(NextOf(&order, 7), Names({"many0", "few0", "many1", "few1", "many2", "many3", "many4"}));
}

TEST(FairOrder, FairMeansCostNotTexts) {
  FairOrder order;
  for (int i = 0; i < 3; ++i) Add(&order, "long" + std::to_string(i), 30, At(1));
  for (int i = 0; i < 4; ++i) Add(&order, "short" + std::to_string(i), 10, At(2));
  EXPECT_EQ(NextOf(&order, 5), Names({"long0", "short0", "short1", "short2", "long1"}));
}

// With tags that advance when texts arrive, one query of a client, served at once because of its class, lifts the
// virtual time beyond all that this client has queued, so that everybody else's texts wait behind its backlog.
TEST(FairOrder, AQueryOfAClientWithABacklogDoesNotPutOthersBehindIt) {
  FairOrder order;
  for (int i = 0; i < 2000; ++i) Add(&order, "bulk", 64, At(1, kClassBulk));
  Add(&order, "normal", 64, At(1, kClassNormal));
  Add(&order, "query", 64, At(1, kClassQuery));
  EXPECT_EQ(NextOf(&order, 3), Names({"query", "normal", "bulk"}));
  Add(&order, "other", 64, At(2, kClassBulk));
  const Names next = NextOf(&order, 2);
  EXPECT_NE(std::find(next.begin(), next.end(), "other"), next.end());
}

TEST(FairOrder, AClientGainsNothingOverOthersByMarkingEverythingQuery) {
  FairOrder order;
  for (int i = 0; i < 20; ++i) Add(&order, "urgent", 10, At(1, kClassQuery));
  for (int i = 0; i < 20; ++i) Add(&order, "bulk", 10, At(2, kClassBulk));
  const Names served = NextOf(&order, 20);
  EXPECT_EQ(std::count(served.begin(), served.end(), "bulk"), 10);
}

TEST(FairOrder, AClientThatHasPausedIsNeitherPunishedNorAheadByMoreThanATurn) {
  FairOrder order;
  for (int i = 0; i < 50; ++i) Add(&order, "busy", 10, At(1));
  EXPECT_EQ(Next(&order), "busy");
  for (int i = 0; i < 30; ++i) Next(&order);
  for (int i = 0; i < 5; ++i) Add(&order, "back", 10, At(2));
  const Names served = NextOf(&order, 10);
  EXPECT_EQ(std::count(served.begin(), served.end(), "back"), 5);
  EXPECT_EQ(served[0] == "back" || served[1] == "back", true);
}

TEST(FairOrder, APauseForgivesNoDebt) {
  FairOrder order;
  Add(&order, "large", 1000, At(1));
  for (int i = 0; i < 100; ++i) Add(&order, "small", 10, At(2));
  EXPECT_EQ(Next(&order), "large");
  Add(&order, "again", 10, At(1));  // its queue was empty in between
  const Names served = NextOf(&order, 99);
  EXPECT_EQ(std::count(served.begin(), served.end(), "small"), 99);
}

TEST(FairOrder, WhatATextTurnsOutToCostIsCharged) {
  FairOrder order;
  for (int i = 0; i < 20; ++i) Add(&order, "dear", 1, At(1));     // estimated far too low
  for (int i = 0; i < 20; ++i) Add(&order, "cheap", 100, At(2));  // and far too high
  std::map<std::string, int> served;
  for (int i = 0; i < 11; ++i) {
    TakenText taken;
    ASSERT_TRUE(order.Take(1, &taken));
    order.Correct(taken, taken.client == 1 ? 100 : 10);
    ++served[taken.computation->text];
  }
  EXPECT_EQ(served["dear"], 1);
  EXPECT_EQ(served["cheap"], 10);
}

TEST(FairOrder, AJoinedTextIsServedAtTheJoinersTurnAndCharged) {
  FairOrder order;
  for (int i = 0; i < 100; ++i) Add(&order, "bulk", 10, At(1, kClassBulk));
  ComputationPtr text = QueuedText("joined", 500, 1), again = text;
  order.Add(At(1, kClassBulk), &text);
  order.Add(At(2, kClassQuery), &again);
  for (int i = 0; i < 60; ++i) Add(&order, "own", 10, At(2));
  const Names first = NextOf(&order, 2);
  EXPECT_NE(std::find(first.begin(), first.end(), "joined"), first.end());
  const Names next = NextOf(&order, 50);  // 500 tokens of the joiner's share are spent: as much as 50 bulk texts
  EXPECT_LE(std::count(next.begin(), next.end(), "own"), 1);
  const Names rest = NextOf(&order, 200);
  EXPECT_EQ(std::count(rest.begin(), rest.end(), "joined"), 0);  // handed out once
}

TEST(FairOrder, AnEntryWhoseTextWasServedElsewhereCostsNothing) {
  FairOrder order;
  for (int i = 0; i < 10; ++i) {
    ComputationPtr text = QueuedText("shared", 10, 1), again = text;
    order.Add(At(1, kClassQuery), &text);
    order.Add(At(2, kClassBulk), &again);
  }
  Add(&order, "mine", 10, At(2, kClassBulk, 2000));  // behind all that it joined
  Add(&order, "other", 10, At(1, kClassBulk));
  const Names served = NextOf(&order, 12);
  EXPECT_EQ(std::count(served.begin(), served.end(), "shared"), 10);
  EXPECT_EQ(std::count(served.begin(), served.end(), "mine"), 1);
  EXPECT_EQ(Next(&order), "");
}

TEST(FairOrder, NewcomersAreClientsThatBeganToWaitAndQueriesThatArrived) {
  FairOrder order;
  for (int i = 0; i < 10; ++i) Add(&order, "bulk", 10, At(1, kClassBulk));
  Next(&order);
  uint64_t mark = order.arrivals();
  EXPECT_FALSE(order.HeadArrivedSince(mark, 1));
  Add(&order, "more bulk", 10, At(1, kClassBulk));
  EXPECT_FALSE(order.HeadArrivedSince(mark, 1));
  Add(&order, "query", 10, At(1, kClassQuery));
  EXPECT_TRUE(order.HeadArrivedSince(mark, 1));
  mark = order.arrivals();
  EXPECT_FALSE(order.HeadArrivedSince(mark, 1));
  EXPECT_EQ(Next(&order), "query");
  Add(&order, "other", 10, At(2, kClassBulk));
  EXPECT_TRUE(order.HeadArrivedSince(mark, 1));
}

TEST(FairOrder, ClientsWithoutTextsAndDebtAreForgotten) {
  FairOrder order;
  for (uint64_t client = 1; client <= 100'000; ++client) {
    Add(&order, "once", 10, At(client));
    Next(&order);
    ASSERT_LE(order.clients(), 66u);
  }
}

// Random loads, estimates and corrections: at any moment two clients that have both waited since an earlier moment
// were served alike, but for one text of each.
TEST(FairOrder, LongRunSharesAreEqualByCostWithinATextOfEach) {
  constexpr uint64_t kClients = 5;
  constexpr uint32_t kCostMax = 512;
  const uint64_t seed = test::TestSeed();
  std::mt19937_64 random(seed);
  for (int run = 0; run < 20; ++run) {
    FairOrder order;
    std::map<uint64_t, uint64_t> served;
    std::map<uint64_t, int> waiting;
    for (int step = 0; step < 3000; ++step) {
      for (uint64_t client = 1; client <= kClients; ++client) {
        while (waiting[client] < 1 + static_cast<int>(random() % 20)) {  // it always has something waiting
          const auto cost = static_cast<uint32_t>(1 + random() % (client * kCostMax / kClients));
          Add(&order, "text", cost, At(client, static_cast<PriorityClass>(random() % kClassCount), random() % 100));
          ++waiting[client];
        }
      }
      TakenText taken;
      ASSERT_TRUE(order.Take(1, &taken));
      const auto cost = static_cast<uint32_t>(1 + random() % kCostMax);
      order.Correct(taken, cost);
      served[taken.client] += cost;
      --waiting[taken.client];
      uint64_t least = UINT64_MAX, most = 0;
      for (uint64_t client = 1; client <= kClients; ++client) {
        least = std::min(least, served[client]);
        most = std::max(most, served[client]);
      }
      ASSERT_LE(most - least, kCostMax) << "seed " << seed << ", run " << run << ", step " << step;
    }
  }
}

}  // namespace
}  // namespace sutra
