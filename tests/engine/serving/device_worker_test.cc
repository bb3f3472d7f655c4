// The engine without its sockets: lane reader, request path, batcher, worker, cache and replies over scripted lanes.
#include "engine/serving/device_worker.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "engine/lanes/lane_reader.h"
#include "engine/serving/request_path.h"
#include "shm/stats/stats_segment.h"
#include "tests/kit/gated_backend.h"
#include "tests/kit/memory_cache.h"
#include "tests/kit/scripted_lane.h"

namespace sutra {
namespace {

using testing::GatedBackend;
using testing::MemoryCache;
using testing::ScriptedLane;
using testing::ScriptedRequest;

constexpr uint32_t kWidth = 4;

class DeviceWorkerTest : public ::testing::Test {
 protected:
  void Start(uint32_t tokens_max = 4096, uint32_t queue_texts_max = 1024) {
    const RequestBatcher::Limits limits = {.tokens_max = tokens_max,
                                           .texts_max = 1024,
                                           .queue_texts_max = queue_texts_max,
                                           .queue_bytes_max = 256 << 20,
                                           .spin_us = 0};
    model_.emplace(ServedModel::Options{
        .backend = &backend_, .cache = &cache_, .ttl_s_default = 86'400, .batches = limits, .stats = stats_->writer()});
    path_.emplace(&*model_);
    worker_.emplace(&*model_, &backend_, DeviceWorker::Options{.log = {}, .device_lost = [this](const Status&) {
                                                                 lost_.store(true, std::memory_order_release);
                                                               }});
  }
  void TearDown() override {
    backend_.SetOpen(true);
    worker_.reset();
  }

  // One turn of the loop over a lane.
  void Poll(ScriptedLane* scripted) {
    LaneReader::Taken taken;
    const char* why = "";
    while (reader_.Take(scripted->lane(), &taken, &why) == LaneReader::Next::kTaken) {
      while (!path_->Handle(&taken)) std::this_thread::yield();  // the worker has a lock
    }
    model_->batcher.Flush();
  }
  // Waits until the slot answers this sequence. The test's timeout is the watchdog.
  StatusCode Await(const ScriptedLane& scripted, uint32_t slot, uint64_t sequence = 1) {
    while (scripted.answered_sequence(slot) != sequence) std::this_thread::yield();
    return scripted.status(slot);
  }
  static std::vector<float> Expected(const std::string& text, bool unit = true) {
    std::vector<float> vector = FakeVector(text, "fake", kWidth);
    double sum = 0;
    for (const float value : vector) sum += static_cast<double>(value) * static_cast<double>(value);
    const auto norm = static_cast<float>(std::sqrt(sum));
    if (unit) {
      for (float& value : vector) value /= norm;
    }
    return vector;
  }
  static void ExpectNear(const std::vector<float>& seen, const std::vector<float>& expected) {
    ASSERT_EQ(seen.size(), expected.size());
    for (size_t i = 0; i < seen.size(); ++i) EXPECT_NEAR(seen[i], expected[i], 1e-6f) << i;
  }

  std::unique_ptr<StatsSegment> stats_ = StatsSegment::CreatePrivate();
  GatedBackend backend_{kWidth};
  MemoryCache cache_;
  LaneReader reader_{4096};
  ScriptedLane lane_{LaneGeometry{8, 4096, kWidth}, 1, 1};
  ScriptedLane other_{LaneGeometry{8, 4096, kWidth}, 2, 2};
  std::optional<ServedModel> model_;
  std::optional<RequestPath> path_;
  std::optional<DeviceWorker> worker_;
  std::atomic<bool> lost_{false};
};

TEST_F(DeviceWorkerTest, AMissIsComputedStoredAndTheNextIsAHit) {
  Start();
  lane_.Submit(0, "apple");
  Poll(&lane_);
  ASSERT_EQ(Await(lane_, 0), StatusCode::kOk);
  ExpectNear(lane_.vector(0), Expected("apple"));
  EXPECT_EQ(lane_.result(0).source, uint32_t{kSourceModel});
  EXPECT_EQ(lane_.result(0).token_count, 5u);
  for (uint32_t stage = 1; stage < kStageCount; ++stage) {
    EXPECT_GE(lane_.result(0).stage_ns[stage], lane_.result(0).stage_ns[stage - 1]) << stage;
  }
  EXPECT_EQ(cache_.Get("apple").ttl_s, 86'400u);

  other_.Submit(3, "apple");
  Poll(&other_);
  EXPECT_EQ(other_.status(3), StatusCode::kOk);  // answered within the turn, without the worker
  EXPECT_EQ(other_.result(3).source, uint32_t{kSourceShard});
  EXPECT_EQ(other_.vector(3), lane_.vector(0));
  EXPECT_EQ(backend_.texts(), 1);
}

TEST_F(DeviceWorkerTest, ABatchThatTheModelComputedAgainIsServedStoredAndCounted) {
  Start();
  lane_.Submit(0, "~apple");
  Poll(&lane_);
  ASSERT_EQ(Await(lane_, 0), StatusCode::kOk);
  ExpectNear(lane_.vector(0), Expected("~apple"));
  EXPECT_EQ(cache_.Get("~apple").ttl_s, 86'400u);
  lane_.Submit(1, "pear");
  Poll(&lane_);
  ASSERT_EQ(Await(lane_, 1), StatusCode::kOk);
  EXPECT_EQ(stats_->writer().Get(Counter::kBatchesRetried), 1u);
}

// A removal that is confirmed while the model computes fences off what comes of it: the cache is told since when.
TEST_F(DeviceWorkerTest, AResultIsStoredWithTheRemovalsThatWereSeenBeforeItBegan) {
  cache_.removals = 7;
  cache_.after_lookup = [&](std::string_view) { cache_.removals = 8; };
  cache_.on_insert = [&] { cache_.removals = 9; };
  Start();
  lane_.Submit(0, "apple");
  Poll(&lane_);
  EXPECT_EQ(Await(lane_, 0), StatusCode::kOk);
  EXPECT_EQ(cache_.Get("apple").removals_seen, 7u);
}

// It joins after the worker has asked how long to store, and before the computation ends.
TEST_F(DeviceWorkerTest, ALongerLifetimeThatJoinsWhileTheResultIsStoredIsKept) {
  int stored = 0;
  cache_.on_insert = [&] {
    if (++stored > 1) return;
    ComputationPtr joined;
    Waiter waiter;
    waiter.lane = other_.lane();
    waiter.lane->Hold(0);
    waiter.deadline_ns = UINT64_MAX;
    waiter.ttl_s = 500'000;
    EXPECT_EQ(model_->in_flight.Join("apple", 0, 0, waiter, &joined), InFlight::JoinResult::kJoined);
  };
  Start();
  ScriptedRequest brief;
  brief.ttl_s = 5;
  lane_.Submit(0, "apple", brief);
  Poll(&lane_);
  EXPECT_EQ(Await(lane_, 0), StatusCode::kOk);
  EXPECT_EQ(cache_.Get("apple").ttl_s, 500'000u);
}

TEST_F(DeviceWorkerTest, RawIsUnitTimesNormWhetherComputedOrCached) {
  Start();
  ScriptedRequest raw;
  raw.options = kOptionRaw;
  lane_.Submit(0, "pear", raw);
  Poll(&lane_);
  ASSERT_EQ(Await(lane_, 0), StatusCode::kOk);
  ExpectNear(lane_.vector(0), Expected("pear", false));
  lane_.Submit(1, "pear", raw);
  lane_.Submit(2, "pear");
  Poll(&lane_);
  ExpectNear(lane_.vector(1), Expected("pear", false));
  ExpectNear(lane_.vector(2), Expected("pear"));
}

TEST_F(DeviceWorkerTest, AMixOfHitsMissesAndDuplicatesKeepsEachSlotsOwnVector) {
  Start();
  lane_.Submit(0, "hit");
  Poll(&lane_);
  Await(lane_, 0);
  backend_.SetOpen(false);
  const char* texts[] = {"hit", "miss", "hit", "miss", "other", "hit", "other", "last"};
  for (uint32_t slot = 0; slot < 8; ++slot) other_.Submit(slot, texts[slot]);
  Poll(&other_);
  backend_.SetOpen(true);
  for (uint32_t slot = 0; slot < 8; ++slot) {
    ASSERT_EQ(Await(other_, slot), StatusCode::kOk);
    ExpectNear(other_.vector(slot), Expected(texts[slot]));
  }
  EXPECT_EQ(other_.result(3).source, uint32_t{kSourceJoined});
  EXPECT_EQ(other_.result(6).source, uint32_t{kSourceJoined});
  EXPECT_EQ(backend_.texts(), 4);  // hit, miss, other, last: each computed once
}

TEST_F(DeviceWorkerTest, ClientsThatAskTheSameAtTheSameTimeAreComputedOnce) {
  Start();
  backend_.SetOpen(false);
  lane_.Submit(0, "same");
  Poll(&lane_);
  backend_.WaitForCalls(1);
  other_.Submit(0, "same");  // the model is computing it already
  Poll(&other_);
  backend_.SetOpen(true);
  EXPECT_EQ(Await(lane_, 0), StatusCode::kOk);
  EXPECT_EQ(Await(other_, 0), StatusCode::kOk);
  EXPECT_EQ(other_.result(0).source, uint32_t{kSourceJoined});
  EXPECT_EQ(backend_.texts(), 1);
  EXPECT_EQ(stats_->writer().Get(Counter::kJoined), 1u);
}

TEST_F(DeviceWorkerTest, CacheOptionsAreObeyed) {
  Start();
  ScriptedRequest no_store;
  no_store.options = kOptionCacheSkipStore;
  lane_.Submit(0, "a", no_store);
  Poll(&lane_);
  Await(lane_, 0);
  EXPECT_EQ(cache_.inserts(), 0);
  lane_.Submit(1, "a");
  Poll(&lane_);
  Await(lane_, 1);
  EXPECT_EQ(cache_.inserts(), 1);
  ScriptedRequest no_lookup;
  no_lookup.options = kOptionCacheSkipLookup;
  no_lookup.ttl_s = UINT32_MAX;
  lane_.Submit(2, "a", no_lookup);
  Poll(&lane_);
  Await(lane_, 2);
  EXPECT_EQ(lane_.result(2).source, uint32_t{kSourceModel});
  EXPECT_EQ(backend_.texts(), 3);
  EXPECT_EQ(cache_.Get("a").ttl_s, 10ull * 365 * 86'400);  // ten years is the longest
}

TEST_F(DeviceWorkerTest, OneBadTextFailsAlone) {
  Start();
  backend_.SetOpen(false);
  lane_.Submit(0, "first");  // occupies the worker while the rest queues up
  Poll(&lane_);
  backend_.WaitForCalls(1);
  const char* texts[] = {"good", "!bad", "fine", "?nan", "well"};
  for (uint32_t slot = 0; slot < 5; ++slot) other_.Submit(slot, texts[slot]);
  Poll(&other_);
  backend_.SetOpen(true);
  for (const uint32_t slot : {0u, 2u, 4u}) {
    ASSERT_EQ(Await(other_, slot), StatusCode::kOk);
    ExpectNear(other_.vector(slot), Expected(texts[slot]));
  }
  EXPECT_EQ(Await(other_, 1), StatusCode::kModelError);
  EXPECT_EQ(Await(other_, 3), StatusCode::kModelError);
  EXPECT_TRUE(cache_.Get("?nan").vector.empty());
  lane_.Submit(1, "after");
  Poll(&lane_);
  EXPECT_EQ(Await(lane_, 1), StatusCode::kOk);
}

TEST_F(DeviceWorkerTest, AZeroVectorStaysZero) {
  Start();
  lane_.Submit(0, "0");
  Poll(&lane_);
  ASSERT_EQ(Await(lane_, 0), StatusCode::kOk);
  EXPECT_EQ(lane_.vector(0), std::vector<float>(kWidth, 0.0f));
  EXPECT_EQ(cache_.Get("0").value.norm, 0.0f);
}

TEST_F(DeviceWorkerTest, CancelledLateAndDeadWaitersNeverReachTheModel) {
  Start();
  backend_.SetOpen(false);
  lane_.Submit(0, "first");
  Poll(&lane_);
  backend_.WaitForCalls(1);
  lane_.Submit(1, "cancelled");
  lane_.client().request(1).cancel_sequence.store(0, std::memory_order_relaxed);
  ScriptedRequest late;
  late.deadline_ns = MonotonicNs() + kNsPerMs;
  lane_.Submit(2, "late", late);
  lane_.Submit(3, "wanted");
  other_.Submit(0, "dead");
  other_.Submit(1, "wanted");
  Poll(&lane_);
  Poll(&other_);
  lane_.client().request(1).cancel_sequence.store(1, std::memory_order_relaxed);
  other_.lane()->Close(StatusCode::kEngineGone);
  while (MonotonicNs() <= late.deadline_ns) std::this_thread::yield();
  backend_.SetOpen(true);
  EXPECT_EQ(Await(lane_, 1), StatusCode::kCancelled);
  EXPECT_EQ(Await(lane_, 2), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Await(lane_, 3), StatusCode::kOk);
  worker_.reset();
  EXPECT_EQ(backend_.texts(), 2);  // first and wanted
  EXPECT_EQ(other_.answered_sequence(0), 0u);
  EXPECT_EQ(other_.answered_sequence(1), 0u);
  EXPECT_EQ(model_->in_flight.size(), 0u);
}

// The budget of a batch goes to texts that still have waiters: four cancelled ones in between do not make the batches
// of the other four smaller.
TEST_F(DeviceWorkerTest, UnwantedTextsTakeNoRoomInTheBatch) {
  Start(16);
  backend_.SetOpen(false);
  lane_.Submit(0, "first");
  Poll(&lane_);
  backend_.WaitForCalls(1);
  for (uint32_t slot = 0; slot < 8; ++slot) other_.Submit(slot, "text" + std::string(1, static_cast<char>('0' + slot)));
  Poll(&other_);
  for (const uint32_t slot : {1u, 3u, 5u, 7u}) {
    other_.client().request(slot).cancel_sequence.store(1, std::memory_order_relaxed);
  }
  backend_.SetOpen(true);
  for (uint32_t slot = 0; slot < 8; ++slot) {
    EXPECT_EQ(Await(other_, slot), slot % 2 != 0 ? StatusCode::kCancelled : StatusCode::kOk) << slot;
  }
  worker_.reset();
  EXPECT_EQ(backend_.texts(), 5);
  // 16 tokens are three texts of five: one batch for "first", two for the others, and three if batches were not filled
  // up.
  EXPECT_EQ(stats_->writer().Get(Counter::kBatches), 3u);
  EXPECT_EQ(model_->in_flight.size(), 0u);
}

TEST_F(DeviceWorkerTest, TruncationIsSaidOrRefusedAsAsked) {
  Start();
  const std::string long_text(65, 'x');  // the model's limit is 64 tokens
  ScriptedRequest reject;
  reject.options = kOptionReject;
  lane_.Submit(0, long_text, reject);
  Poll(&lane_);
  EXPECT_EQ(Await(lane_, 0), StatusCode::kTextTooLong);
  EXPECT_EQ(backend_.texts(), 0);
  lane_.Submit(1, long_text);
  Poll(&lane_);
  ASSERT_EQ(Await(lane_, 1), StatusCode::kOk);
  EXPECT_EQ(lane_.result(1).flags, uint32_t{kResultTruncated});
  EXPECT_EQ(lane_.result(1).token_count, 64u);
  lane_.Submit(2, long_text, reject);  // cached, and still too long
  Poll(&lane_);
  EXPECT_EQ(lane_.status(2), StatusCode::kTextTooLong);
  lane_.Submit(3, long_text);
  Poll(&lane_);
  EXPECT_EQ(lane_.result(3).flags, uint32_t{kResultTruncated});
  lane_.Submit(4, std::string(64, 'x'), reject);
  Poll(&lane_);
  EXPECT_EQ(Await(lane_, 4), StatusCode::kOk);
}

TEST_F(DeviceWorkerTest, BeyondTheQueueBoundTextsAreRefusedAndHitsGoOn) {
  Start(4096, 4);
  lane_.Submit(0, "hit");
  Poll(&lane_);
  Await(lane_, 0);
  backend_.SetOpen(false);
  lane_.Submit(1, "running");
  Poll(&lane_);
  backend_.WaitForCalls(2);
  for (uint32_t slot = 2; slot < 5; ++slot) lane_.Submit(slot, "queued" + std::to_string(slot));
  lane_.Submit(5, "hit");
  Poll(&lane_);
  EXPECT_EQ(lane_.status(4), StatusCode::kOverloaded);
  EXPECT_EQ(lane_.status(5), StatusCode::kOk);
  backend_.SetOpen(true);
  EXPECT_EQ(Await(lane_, 2), StatusCode::kOk);
  EXPECT_EQ(Await(lane_, 3), StatusCode::kOk);
}

// The next engine gets them: their clients move what has no answer when the lane is closed.
TEST_F(DeviceWorkerTest, ALostDeviceIsReportedAndItsTextsStayUnanswered) {
  Start();
  backend_.LoseDevice();
  lane_.Submit(0, "a");
  Poll(&lane_);
  while (!lost_.load(std::memory_order_acquire)) std::this_thread::yield();
  lane_.Submit(1, "b");
  Poll(&lane_);
  while (model_->in_flight.size() > 0) std::this_thread::yield();
  worker_.reset();
  EXPECT_EQ(lane_.answered_sequence(0), 0u);
  EXPECT_EQ(lane_.answered_sequence(1), 0u);
  EXPECT_EQ(stats_->writer().Get(Counter::kTextsLaneEnded), 2u);
}

}  // namespace
}  // namespace sutra
