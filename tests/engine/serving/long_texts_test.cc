// The queue of the long texts, with the test as the loop and as the worker.
#include "engine/serving/long_texts.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/serving/text_cost.h"
#include "tests/kit/scripted_lane.h"
#include "tests/kit/watchdog.h"

namespace sutra {
namespace {

using testing::ScriptedLane;

class LongTextsTest : public ::testing::Test {
 protected:
  void Add(uint64_t client, uint32_t bytes, PriorityClass priority = kClassNormal) {
    ClientPtr& owner = clients_[client];
    if (owner == nullptr) owner = std::make_shared<Client>(client, 1000, 1, "test");
    auto request = std::make_shared<LongRequest>();
    request->client = owner;
    request->first.priority = priority;
    request->first.deadline_ns = UINT64_MAX;
    request->unread = {.offset = 0, .bytes = bytes};
    request->cost_estimate = EstimatedTextCost(bytes, 512);
    texts_.Add(std::move(request));
  }
  // The client and the bytes of the next request.
  std::pair<uint64_t, uint32_t> Next() {
    const LongRequestPtr next = texts_.Next();
    texts_.Done();
    return {next->client->id, next->unread.bytes};
  }

  test::Watchdog watchdog_{std::chrono::seconds(60)};
  std::map<uint64_t, ClientPtr> clients_;
  LongTexts texts_;
};

TEST_F(LongTextsTest, ATextCountsUntilItIsDone) {
  EXPECT_EQ(texts_.size(), 0u);
  Add(1, 100'000);
  Add(1, 200'000);
  EXPECT_EQ(texts_.size(), 2u);
  const LongRequestPtr next = texts_.Next();
  EXPECT_EQ(next->unread.bytes, 100'000u);
  EXPECT_FALSE(next->taken) << "it may wait again, for the model";
  EXPECT_EQ(texts_.size(), 2u) << "it is neither answered nor in flight yet";
  texts_.Done();
  EXPECT_EQ(texts_.size(), 1u);
}

// A client's huge texts are behind each other; another's wait for one of them at most.
TEST_F(LongTextsTest, ClientsTakeTurnsByBytesAndNotByTexts) {
  for (int i = 0; i < 4; ++i) Add(1, 16 << 20);
  EXPECT_EQ(Next(), std::pair(uint64_t{1}, uint32_t{16 << 20}));
  for (int i = 0; i < 100; ++i) Add(2, 100'000);
  for (int i = 0; i < 100; ++i) ASSERT_EQ(Next().first, 2u) << i;
  EXPECT_EQ(Next().first, 1u);
}

TEST_F(LongTextsTest, WithinAClientQueriesComeFirst) {
  Add(1, 100'000, kClassBulk);
  Add(1, 200'000, kClassQuery);
  EXPECT_EQ(Next().second, 200'000u);
  EXPECT_EQ(Next().second, 100'000u);
}

TEST_F(LongTextsTest, TheWorkerSleepsUntilATextComesAndUntilStop) {
  std::thread worker([&] {
    while (texts_.Next() != nullptr) texts_.Done();
  });
  for (int i = 0; i < 2000; ++i) {
    Add(1 + static_cast<uint64_t>(i % 3), 100'000);
    if (i % 64 == 0) {
      while (texts_.size() != 0) std::this_thread::yield();
    }
  }
  while (texts_.size() != 0) std::this_thread::yield();
  texts_.Stop();
  worker.join();
}

TEST_F(LongTextsTest, WhatIsLeftAtTheEndIsDroppedAndItsLaneLetGo) {
  const ScriptedLane scripted;
  auto request = std::make_shared<LongRequest>();
  request->client = scripted.lane()->client();
  request->first.lane = scripted.lane();
  request->unread = {.offset = 0, .bytes = 100'000};
  texts_.Add(std::move(request));
  texts_.Stop();
  EXPECT_EQ(texts_.Next(), nullptr);
  EXPECT_EQ(scripted.lane().use_count(), 2);
  texts_.DropAll();
  EXPECT_EQ(scripted.lane().use_count(), 1);
  EXPECT_EQ(texts_.size(), 0u);
}

TEST_F(LongTextsTest, AnUnreadableLaneIsHandedToTheLoopOnce) {
  const ScriptedLane scripted;
  EXPECT_TRUE(texts_.Unreadable().empty());
  texts_.ReportUnreadable(scripted.lane());
  EXPECT_EQ(texts_.Unreadable(), std::vector<std::shared_ptr<Lane>>{scripted.lane()});
  EXPECT_TRUE(texts_.Unreadable().empty());
}

}  // namespace
}  // namespace sutra
