// Long texts from the loop's hand to their answers: the test is the loop, with a real thread for long texts, a device
// worker over the fake model, and lanes of which it holds both ends.
#include "engine/serving/long_worker.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "engine/lanes/lane_reader.h"
#include "engine/serving/device_worker.h"
#include "shm/base/cpu_pause.h"
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
using testing::ScriptedRequest;

constexpr uint32_t kWidth = 4;
constexpr uint32_t kTextBytesMax = 1 << 20;
constexpr uint32_t kTokensMax = 64;

std::string Words(size_t bytes, char number) {
  std::string text(1, number);
  while (text.size() < bytes) text += " a long text";
  text.resize(bytes);
  return text;
}

class LongWorkerTest : public ::testing::Test {
 protected:
  LongWorkerTest() { Make(&backend_); }
  ~LongWorkerTest() override { StopWorkers(); }

  void Make(ModelBackend* backend) {
    model_.emplace(ServedModel::Options{.backend = backend,
                                        .cache = &cache_,
                                        .ttl_s_default = 77,
                                        .batches = {.tokens_max = 4096,
                                                    .texts_max = 4096,
                                                    .queue_texts_max = 100,
                                                    .queue_bytes_max = 8 * kTextBytesMax,
                                                    .spin_us = 0},
                                        .stats = stats_->writer()});
    path_.emplace(&*model_);
  }
  void Start() {
    worker_.emplace(&*model_, &backend_, DeviceWorker::Options{.log = {}, .device_lost = {}});
    long_worker_.emplace(&*model_);
  }
  void StopWorkers() {
    backend_.SetOpen(true);
    long_worker_.reset();
    worker_.reset();
  }
  void Send(uint32_t slot, const std::string& text, const ScriptedRequest& request = {}) {
    SendFrom(&lane_, slot, text, request);
  }
  void SendFrom(ScriptedLane* lane, uint32_t slot, const std::string& text, const ScriptedRequest& request = {}) {
    lane->Submit(slot, text, request);
    Take(lane);
  }
  void Take(ScriptedLane* lane) {
    LaneReader::Taken taken;
    const char* why = "";
    ASSERT_EQ(reader_.Take(lane->lane(), &taken, &why), LaneReader::Next::kTaken) << why;
    ASSERT_TRUE(path_->Handle(&taken));
    model_->batcher.Flush();
  }
  bool Answered(uint32_t slot) const { return lane_.answered_sequence(slot) != 0; }
  StatusCode Await(uint32_t slot) const { return AwaitOf(lane_, slot); }
  static StatusCode AwaitOf(const ScriptedLane& lane, uint32_t slot) {
    while (lane.answered_sequence(slot) == 0) std::this_thread::yield();
    return lane.status(slot);
  }
  // All that was sent has left the long texts and the model, and nothing is charged any more.
  void AwaitIdle() const {
    while (model_->long_texts.size() != 0 || model_->in_flight.size() != 0) std::this_thread::yield();
    while (model_->batcher.queued_texts() != 0) std::this_thread::yield();
    EXPECT_EQ(model_->batcher.queued_bytes(), 0u);
    EXPECT_EQ(model_->batcher.queued_cost(), 0u);
  }
  ResultSource Source(uint32_t slot) const { return static_cast<ResultSource>(lane_.result(slot).source); }
  uint64_t Count(Counter counter) { return stats_->writer().Get(counter); }

  test::Watchdog watchdog_{std::chrono::seconds(60)};
  std::unique_ptr<StatsSegment> stats_ = StatsSegment::CreatePrivate();
  GatedBackend backend_{kWidth, kTokensMax};
  MemoryCache cache_;
  ScriptedLane lane_{LaneGeometry{16, kTextBytesMax, kWidth}, 1, 42};
  ScriptedLane other_{LaneGeometry{16, kTextBytesMax, kWidth}, 2, 43};
  LaneReader reader_{kTextBytesMax};
  std::optional<ServedModel> model_;
  std::optional<RequestPath> path_;
  std::optional<DeviceWorker> worker_;
  std::optional<LongWorker> long_worker_;
};

TEST_F(LongWorkerTest, TheLoopNeitherReadsNorLooksUpALongTextAndReadsTheShortOnesItself) {
  std::vector<std::string> looked_up;
  cache_.on_lookup = [&](std::string_view text) { looked_up.emplace_back(text); };
  Send(0, Words(kLongTextBytes, 'a'));
  EXPECT_EQ(looked_up.size(), 1u) << "the longest that is short";
  Send(1, Words(kLongTextBytes + 1, 'b'));
  EXPECT_EQ(looked_up.size(), 1u);
  EXPECT_EQ(model_->long_texts.size(), 1u);
  EXPECT_EQ(lane_.lane()->client()->queued_bytes.load(std::memory_order_relaxed), 2 * kLongTextBytes + 1);
  Start();
  EXPECT_EQ(Await(1), StatusCode::kOk);
  AwaitIdle();
  EXPECT_EQ(looked_up, (std::vector<std::string>{Words(kLongTextBytes, 'a'), Words(kLongTextBytes + 1, 'b')}));
}

// Any removal counts: the requests that come after it start anew, and what they compute is stored.
TEST_F(LongWorkerTest, AfterARemovalALongTextUnderWayIsNotJoinedButComputedAnew) {
  backend_.SetOpen(false);
  Start();
  const std::string text = Words(kLongTextBytes + 1, 'a');
  Send(0, text);
  while (Count(Counter::kMisses) < 1) std::this_thread::yield();
  cache_.removals = 1;
  Send(1, text);
  while (Count(Counter::kMisses) < 2) std::this_thread::yield();
  Send(2, text);
  while (Count(Counter::kJoined) < 1) std::this_thread::yield();
  backend_.SetOpen(true);
  for (uint32_t slot : {0, 1, 2}) EXPECT_EQ(Await(slot), StatusCode::kOk);
  AwaitIdle();
  EXPECT_EQ(cache_.Get(text).removals_seen, 1u);
}

// The model reads the first tokens; the fake one has one a byte.
TEST_F(LongWorkerTest, AMissGetsTheVectorOfAShortTextWithTheSameTokensAndIsStoredUnderTheWholeText) {
  Start();
  const std::string text = Words(kTextBytesMax, 'a');
  Send(0, text, {.ttl_s = 5});
  Send(1, text.substr(0, kTokensMax));
  ASSERT_EQ(Await(0), StatusCode::kOk);
  ASSERT_EQ(Await(1), StatusCode::kOk);
  EXPECT_EQ(lane_.vector(0), lane_.vector(1));
  EXPECT_EQ(Source(0), kSourceModel);
  EXPECT_EQ(lane_.result(0).flags, uint32_t{kResultTruncated});
  EXPECT_EQ(lane_.result(0).token_count, kTokensMax);
  EXPECT_GE(lane_.result(0).stage_ns[kTokenised], lane_.result(0).stage_ns[kTaken]);
  AwaitIdle();
  EXPECT_EQ(cache_.Get(text).ttl_s, 5u);
  Send(2, text);
  ASSERT_EQ(Await(2), StatusCode::kOk);
  EXPECT_EQ(Source(2), kSourceShard);
  EXPECT_EQ(lane_.vector(2), lane_.vector(0));
  std::string almost = text;
  almost.back() ^= 1;
  Send(3, almost);
  ASSERT_EQ(Await(3), StatusCode::kOk);
  EXPECT_EQ(Source(3), kSourceModel);
  AwaitIdle();
  EXPECT_EQ(Count(Counter::kTexts), 4u);
  EXPECT_EQ(Count(Counter::kMisses), 3u);
  EXPECT_EQ(Count(Counter::kHits), 1u);
}

TEST_F(LongWorkerTest, EqualTextsOfTwoClientsAreComputedOnce) {
  Start();
  backend_.SetOpen(false);
  const std::string text = Words(200'000, 'a');
  Send(0, text);
  backend_.WaitForCalls(1);
  SendFrom(&other_, 0, text);
  while (model_->long_texts.size() != 0) std::this_thread::yield();
  backend_.SetOpen(true);
  ASSERT_EQ(Await(0), StatusCode::kOk);
  ASSERT_EQ(AwaitOf(other_, 0), StatusCode::kOk);
  EXPECT_EQ(other_.result(0).source, kSourceJoined);
  EXPECT_EQ(other_.vector(0), lane_.vector(0));
  AwaitIdle();
  EXPECT_EQ(backend_.texts(), 1);
  EXPECT_EQ(cache_.inserts(), 1);
}

TEST_F(LongWorkerTest, WhatCannotBeComputedIsAnsweredWithTheReason) {
  Start();
  std::string invalid = Words(kTextBytesMax, 'a');
  invalid.back() = '\xc3';
  Send(0, invalid);
  EXPECT_EQ(Await(0), StatusCode::kInvalidUtf8);
  Send(1, Words(200'000, 'b'), {.options = kOptionReject});
  EXPECT_EQ(Await(1), StatusCode::kTextTooLong);
  Send(2, Words(200'000, 'c'));
  EXPECT_EQ(Await(2), StatusCode::kOk);
  Send(3, Words(200'000, 'c'), {.options = kOptionReject});
  EXPECT_EQ(Await(3), StatusCode::kTextTooLong) << "cached, and known to be truncated";
  Send(4, "!" + Words(200'000, 'd'));
  EXPECT_EQ(Await(4), StatusCode::kModelError);
  AwaitIdle();
}

// A text under way that is known to be truncated is not joined by a request that refuses truncation.
TEST_F(LongWorkerTest, AJoinThatRefusesTruncationIsAnsweredAtOnce) {
  Start();
  backend_.SetOpen(false);
  const std::string text = Words(200'000, 'a');
  Send(0, text);
  backend_.WaitForCalls(1);
  Send(1, text, {.options = kOptionReject});
  EXPECT_EQ(Await(1), StatusCode::kTextTooLong);
  EXPECT_FALSE(Answered(0));
  backend_.SetOpen(true);
  EXPECT_EQ(Await(0), StatusCode::kOk);
}

TEST_F(LongWorkerTest, WhoCancelsOrIsLateWhileATextWaitsIsToldSoAndADeadLaneIsLeftAlone) {
  Send(0, Words(200'000, 'a'), {.deadline_ns = MonotonicNs() + 1'000'000});
  Send(1, Words(200'000, 'b'));
  lane_.client().request(1).cancel_sequence.store(1, std::memory_order_relaxed);
  SendFrom(&other_, 0, Words(200'000, 'c'));
  other_.lane()->Close(StatusCode::kProtocolViolation);
  while (MonotonicNs() < lane_.client().request(0).deadline_ns.load(std::memory_order_relaxed)) CpuPause();
  Start();
  EXPECT_EQ(Await(0), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Await(1), StatusCode::kCancelled);
  AwaitIdle();
  EXPECT_EQ(other_.answered_sequence(0), 0u);
  EXPECT_EQ(Count(Counter::kTextsLaneEnded), 1u);
  EXPECT_EQ(backend_.texts(), 0);
}

// A client holds at most half of the queue's bytes with texts that are not read yet, whether or not they are cached.
TEST_F(LongWorkerTest, LongTextsThatWaitAreBoundedAsTextsThatWaitForTheModel) {
  for (uint32_t slot = 0; slot < 5; ++slot) Send(slot, Words(kTextBytesMax, static_cast<char>('a' + slot)));
  EXPECT_EQ(Await(4), StatusCode::kOverloaded);
  EXPECT_FALSE(Answered(3));
  SendFrom(&other_, 0, Words(kTextBytesMax, 'x'));
  Start();
  for (uint32_t slot = 0; slot < 4; ++slot) EXPECT_EQ(Await(slot), StatusCode::kOk) << slot;
  EXPECT_EQ(AwaitOf(other_, 0), StatusCode::kOk);
  AwaitIdle();
}

// A shard's lock that another thread holds: the worker tries until it has it.
TEST_F(LongWorkerTest, ABusyShardIsWaitedFor) {
  const std::string text = Words(200'000, 'a');
  cache_.SetBusy(text);
  Start();
  Send(0, text);
  Send(1, "short");
  EXPECT_EQ(Await(1), StatusCode::kOk) << "it holds up no other thread";
  EXPECT_FALSE(Answered(0));
  cache_.SetBusy("");
  EXPECT_EQ(Await(0), StatusCode::kOk);
}

TEST_F(LongWorkerTest, ALaneWhoseTextCannotBeReadIsReportedAndNothingIsAnswered) {
  auto request = std::make_shared<LongRequest>();
  request->first.lane = lane_.lane();
  request->first.deadline_ns = UINT64_MAX;
  request->first.sequence = 1;
  request->client = lane_.lane()->client();
  request->unread = {.offset = uint64_t{1} << 40, .bytes = 100'000};  // behind the end of the file
  model_->batcher.Charge(request->client.get(), request->unread.bytes, request->cost_estimate);
  model_->long_texts.Add(std::move(request));
  Start();
  AwaitIdle();
  EXPECT_EQ(model_->long_texts.Unreadable(), std::vector<std::shared_ptr<Lane>>{lane_.lane()});
  EXPECT_FALSE(Answered(0));
}

TEST_F(LongWorkerTest, StopEndsItAfterTheTextUnderWayAndDropsTheRest) {
  for (uint32_t slot = 0; slot < 4; ++slot) Send(slot, Words(200'000, static_cast<char>('a' + slot)));
  model_->long_texts.Stop();
  Start();
  long_worker_->Stop();
  EXPECT_EQ(model_->long_texts.size(), 0u);
  EXPECT_FALSE(Answered(0));
}

}  // namespace
}  // namespace sutra
