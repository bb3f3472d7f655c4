#include "engine/serving/client_queue.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/kit/queued_text.h"

namespace sutra {
namespace {

using Names = std::vector<std::string>;
using testing::QueuedText;

class ClientQueueTest : public ::testing::Test {
 protected:
  ComputationPtr Add(const std::string& name, PriorityClass priority, uint64_t deadline_ns = 1000,
                     uint64_t queued_ns = kNow) {
    ComputationPtr text = QueuedText(name, 1, 1, queued_ns);
    ComputationPtr moved = text;
    queue_.Add(priority, deadline_ns, arrival_++, &moved);
    return text;
  }
  Names PopAll() {
    Names names;
    while (queue_.DropTaken()) {
      const ClientQueue::Head next = queue_.Next(kNow);
      const ComputationPtr text = queue_.Pop(kNow);
      EXPECT_FALSE(text->taken);
      text->taken = true;
      names.push_back(text->text);
      static_cast<void>(next);
    }
    EXPECT_TRUE(queue_.empty());
    return names;
  }

  static constexpr uint64_t kNow = 10 * ClientQueue::kAgingNs;
  static constexpr uint64_t kLongAgo = kNow - ClientQueue::kAgingNs - 1;
  ClientQueue queue_;
  uint64_t arrival_ = 0;
};

TEST_F(ClientQueueTest, TheOrderIsClassThenDeadlineThenArrival) {
  Add("bulk, soon", kClassBulk, 1);
  Add("normal, late", kClassNormal, 9);
  Add("normal, soon", kClassNormal, 5);
  Add("normal, soon, second", kClassNormal, 5);
  Add("query, late", kClassQuery, 9);
  EXPECT_EQ(PopAll(), Names({"query, late", "normal, soon", "normal, soon, second", "normal, late", "bulk, soon"}));
}

TEST_F(ClientQueueTest, AnAgedTextGetsEveryFourthTurnAndTheOldestFirst) {
  for (int i = 0; i < 8; ++i) Add("q" + std::to_string(i), kClassQuery);
  Add("bulk", kClassBulk, 1000, kLongAgo);
  Add("normal", kClassNormal, 1000, kLongAgo - 1);
  EXPECT_EQ(PopAll(), Names({"q0", "q1", "q2", "normal", "q3", "q4", "q5", "bulk", "q6", "q7"}));
}

TEST_F(ClientQueueTest, ATextThatHasNotWaitedLongGetsNoTurnBeforeAHigherClass) {
  for (int i = 0; i < 8; ++i) Add("q" + std::to_string(i), kClassQuery);
  Add("bulk", kClassBulk, 1000, kLongAgo + 2);
  EXPECT_EQ(PopAll().back(), "bulk");
}

TEST_F(ClientQueueTest, WhatWasTakenElsewhereIsSkipped) {
  const ComputationPtr first = Add("first", kClassNormal), last = Add("last", kClassBulk);
  Add("second", kClassNormal);
  first->taken = true;
  last->taken = true;
  EXPECT_EQ(PopAll(), Names({"second"}));
}

TEST_F(ClientQueueTest, TakenTextsDoNotMakeItGrow) {
  const ComputationPtr waits = Add("waits", kClassNormal);
  for (int i = 0; i < 10'000; ++i) {
    Add(std::to_string(i), kClassNormal)->taken = true;
    ASSERT_LE(queue_.entries(), 32u);
  }
  EXPECT_EQ(PopAll(), Names({"waits"}));
}

}  // namespace
}  // namespace sutra
