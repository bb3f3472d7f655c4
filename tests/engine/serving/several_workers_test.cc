// A model that several workers compute: each text once, and what happens to one of them is no matter to the others.
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <optional>
#include <string>
#include <thread>

#include "engine/lanes/lane_reader.h"
#include "engine/serving/device_worker.h"
#include "engine/serving/request_path.h"
#include "shm/stats/stats_segment.h"
#include "tests/kit/gated_backend.h"
#include "tests/kit/memory_cache.h"
#include "tests/kit/scripted_lane.h"
#include "tests/kit/watchdog.h"

namespace sutra {
namespace {

using testing::GatedBackend;
using testing::MemoryCache;
using testing::ScriptedLane;

constexpr uint32_t kWidth = 4;
constexpr size_t kRoundTokens = 5;  // so that a text of five bytes is a batch

class SeveralWorkersTest : public ::testing::Test {
 protected:
  SeveralWorkersTest() {
    for (GatedBackend& backend : backends_) {
      backend.SetRoundTokens(kRoundTokens);
      backend.SetOpen(false);
      workers_.emplace_back(&model_, &backend, DeviceWorker::Options{.log = {}, .device_lost = [this](const Status&) {
                                                                       lost_.store(true, std::memory_order_release);
                                                                     }});
    }
  }
  ~SeveralWorkersTest() override {
    for (GatedBackend& backend : backends_) backend.SetOpen(true);
    workers_.clear();
  }

  // Submits texts and shows them to the workers in one step.
  void Send(ScriptedLane* scripted, uint32_t slot, std::initializer_list<std::string> texts) {
    for (const std::string& text : texts) scripted->Submit(slot++, text);
    LaneReader::Taken taken;
    const char* why = "";
    while (reader_.Take(scripted->lane(), &taken, &why) == LaneReader::Next::kTaken) {
      while (!path_.Handle(&taken)) std::this_thread::yield();  // a worker has a lock
    }
    model_.batcher.Flush();
  }
  StatusCode Await(const ScriptedLane& scripted, uint32_t slot) {
    while (scripted.answered_sequence(slot) == 0) std::this_thread::yield();
    return scripted.status(slot);
  }
  int TextsBegun() { return backends_[0].texts() + backends_[1].texts(); }
  // Sends one text and returns which of the two has begun to compute it.
  size_t SendToOne(uint32_t slot, const std::string& text) {
    const int before[] = {backends_[0].texts(), backends_[1].texts()};
    Send(&lane_, slot, {text});
    for (;;) {
      for (size_t i = 0; i < 2; ++i) {
        if (backends_[i].texts() != before[i]) return i;
      }
      std::this_thread::yield();
    }
  }

  test::Watchdog watchdog_{std::chrono::seconds(60)};
  std::unique_ptr<StatsSegment> stats_ = StatsSegment::CreatePrivate();
  GatedBackend backends_[2] = {GatedBackend(kWidth), GatedBackend(kWidth)};
  MemoryCache cache_;
  LaneReader reader_{4096};
  ScriptedLane lane_{LaneGeometry{8, 4096, kWidth}, 1, 1};
  ScriptedLane other_{LaneGeometry{8, 4096, kWidth}, 2, 2};
  ServedModel model_{ServedModel::Options{
      .backend = &backends_[0],
      .cache = &cache_,
      .ttl_s_default = 86'400,
      .batches =
          {.tokens_max = 4096, .texts_max = 1024, .queue_texts_max = 1024, .queue_bytes_max = 1 << 20, .workers = 2},
      .stats = stats_->writer()}};
  RequestPath path_{&model_};
  std::atomic<bool> lost_{false};
  std::deque<DeviceWorker> workers_;
};

// One worker is woken, takes what it computes at once, and wakes the other for the rest.
TEST_F(SeveralWorkersTest, TextsOfOneTurnAreComputedByAllAndEachOnce) {
  Send(&lane_, 0, {"apple", "berry", "cocoa"});
  backends_[0].WaitForCalls(1);
  backends_[1].WaitForCalls(1);
  Send(&other_, 0, {"apple", "berry", "cocoa"});
  EXPECT_EQ(TextsBegun(), 2);
  for (GatedBackend& backend : backends_) backend.SetOpen(true);
  for (uint32_t slot = 0; slot < 3; ++slot) {
    EXPECT_EQ(Await(lane_, slot), StatusCode::kOk);
    EXPECT_EQ(Await(other_, slot), StatusCode::kOk);
    EXPECT_EQ(other_.result(slot).source, uint32_t{kSourceJoined});
    EXPECT_EQ(other_.vector(slot), lane_.vector(slot));
  }
  EXPECT_EQ(TextsBegun(), 3);
  EXPECT_EQ(cache_.inserts(), 3);
}

TEST_F(SeveralWorkersTest, AWorkerThatIsBusyOrFailsDoesNotHoldUpTheOther) {
  const size_t busy = SendToOne(0, "!bad!");
  const size_t idle = SendToOne(1, "apple");
  ASSERT_NE(busy, idle);
  backends_[idle].SetOpen(true);
  EXPECT_EQ(Await(lane_, 1), StatusCode::kOk);
  Send(&lane_, 2, {"berry"});
  EXPECT_EQ(Await(lane_, 2), StatusCode::kOk);
  EXPECT_EQ(lane_.answered_sequence(0), 0u);
  backends_[busy].SetOpen(true);
  EXPECT_EQ(Await(lane_, 0), StatusCode::kModelError);
  backends_[idle].SetOpen(false);
  EXPECT_EQ(SendToOne(3, "cocoa") == idle ? SendToOne(4, "dates") : busy, busy) << "the one that failed goes on";
  backends_[idle].SetOpen(true);
  EXPECT_EQ(Await(lane_, 3), StatusCode::kOk);
  EXPECT_FALSE(lost_.load(std::memory_order_acquire));
}

TEST_F(SeveralWorkersTest, WhatOneLosesStaysUnansweredAndTheOtherAnswers) {
  const size_t lost = SendToOne(0, "apple");
  const size_t other = SendToOne(1, "berry");
  ASSERT_NE(lost, other);
  backends_[lost].LoseDevice();
  backends_[lost].SetOpen(true);
  while (!lost_.load(std::memory_order_acquire)) std::this_thread::yield();
  backends_[other].SetOpen(true);
  EXPECT_EQ(Await(lane_, 1), StatusCode::kOk);
  EXPECT_EQ(lane_.answered_sequence(0), 0u);
}

// As at the end of a drain that timed out: what is under way ends, nothing else begins.
TEST_F(SeveralWorkersTest, StopEndsAllWorkersAfterTheirBatch) {
  Send(&lane_, 0, {"apple", "berry", "cocoa"});
  backends_[0].WaitForCalls(1);
  backends_[1].WaitForCalls(1);
  std::thread stop([&] {
    for (DeviceWorker& worker : workers_) worker.Stop();
  });
  while (model_.batcher.WaitForText()) std::this_thread::yield();  // until it is stopped
  for (GatedBackend& backend : backends_) backend.SetOpen(true);
  stop.join();
  EXPECT_EQ(Await(lane_, 0), StatusCode::kOk);
  EXPECT_EQ(Await(lane_, 1), StatusCode::kOk);
  EXPECT_EQ(lane_.answered_sequence(2), 0u);
  EXPECT_EQ(model_.in_flight.size(), 1u);
}

// Both answer into the same lanes, and texts that do not fit go from one to the other.
TEST_F(SeveralWorkersTest, ManyTextsOfTwoClientsAreAllAnswered) {
  for (GatedBackend& backend : backends_) backend.SetOpen(true);
  for (uint64_t round = 1; round <= 200; ++round) {
    for (ScriptedLane* lane : {&lane_, &other_}) {
      for (uint32_t slot = 0; slot < 8; ++slot) {
        const uint32_t length = 1 + (slot * 7 + static_cast<uint32_t>(round)) % 9;
        lane->Submit(slot, std::to_string(round) + std::string(length, static_cast<char>('a' + slot)),
                     {.sequence = round});
      }
      Send(lane, 0, {});
    }
    for (ScriptedLane* lane : {&lane_, &other_}) {
      for (uint32_t slot = 0; slot < 8; ++slot) {
        while (lane->answered_sequence(slot) != round) std::this_thread::yield();
        ASSERT_EQ(lane->status(slot), StatusCode::kOk);
      }
    }
  }
  EXPECT_EQ(TextsBegun(), 200 * 8) << "both clients sent the same";
  EXPECT_EQ(model_.batcher.queued_texts(), 0u);
  EXPECT_EQ(model_.batcher.queued_cost(), 0u);
}

}  // namespace
}  // namespace sutra
