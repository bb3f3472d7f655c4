#include "engine/lanes/reply_writer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "shm/stats/stats_segment.h"
#include "tests/kit/scripted_lane.h"

namespace sutra {
namespace {

using testing::ScriptedLane;

class ReplyWriterTest : public ::testing::Test {
 protected:
  Waiter WaiterOf(uint32_t slot, uint64_t sequence, uint32_t options = 0) {
    EXPECT_TRUE(scripted_.lane()->Hold(slot));
    Waiter waiter;
    waiter.lane = scripted_.lane();
    waiter.slot = slot;
    waiter.sequence = sequence;
    waiter.options = options;
    waiter.tag = 99;
    waiter.submitted_ns = 10;
    waiter.taken_ns = 20;
    return waiter;
  }
  uint32_t futex_word() const { return scripted_.lane()->reply().engine().futex_word.load(std::memory_order_relaxed); }

  ScriptedLane scripted_;
  std::unique_ptr<StatsSegment> stats_ = StatsSegment::CreatePrivate();
  ReplyWriter replies_{stats_->writer(), true};
  const std::vector<float> unit_ = {0.6f, 0.8f, 0, 0};
};

TEST_F(ReplyWriterTest, AComputedAnswerFillsVectorAndDescriptor) {
  replies_.AnswerComputed(WaiterOf(2, 7), unit_, 5, 11, true,
                          {.batched_ns = 40, .computed_ns = 50, .tokenised_ns = 30, .tokenising_ns = 5});
  EXPECT_EQ(scripted_.status(2), StatusCode::kOk);
  EXPECT_EQ(scripted_.answered_sequence(2), 7u);
  EXPECT_EQ(scripted_.vector(2), unit_);
  const ResultDescriptor& result = scripted_.result(2);
  EXPECT_EQ(result.tag, 99u);
  EXPECT_EQ(result.source, uint32_t{kSourceModel});
  EXPECT_EQ(result.flags, uint32_t{kResultTruncated});
  EXPECT_EQ(result.token_count, 11u);
  EXPECT_EQ(result.width, 4u);
  const uint64_t passed[] = {10, 20, 30, 40, 50};
  for (int stage = 0; stage < 5; ++stage) EXPECT_EQ(result.stage_ns[stage], passed[stage]);
  EXPECT_GT(result.stage_ns[kPublished], 50u);
  uint32_t slot = 0;
  EXPECT_EQ(scripted_.completions().Next(&slot), CompletionReader::Read::kSlot);
  EXPECT_EQ(slot, 2u);
  EXPECT_EQ(stats_->writer().Get(Counter::kRepliesOk), 1u);
  EXPECT_EQ(stats_->writer().Get(Counter::kTruncated), 1u);
}

TEST_F(ReplyWriterTest, RawAndUnitAnswersComeFromOneVector) {
  replies_.AnswerComputed(WaiterOf(0, 1, kOptionRaw), unit_, 5, 1, false, {});
  EXPECT_EQ(scripted_.vector(0), (std::vector<float>{3, 4, 0, 0}));
  replies_.AnswerComputed(WaiterOf(1, 2, kOptionNormalize), unit_, 5, 1, false, {});
  EXPECT_EQ(scripted_.vector(1), unit_);
  const ReplyWriter raw_model(stats_->writer(), false);
  raw_model.AnswerComputed(WaiterOf(2, 3), unit_, 5, 1, false, {});
  EXPECT_EQ(scripted_.vector(2), (std::vector<float>{3, 4, 0, 0}));
}

TEST_F(ReplyWriterTest, AHitIsScaledInPlaceAndSaysShard) {
  const Waiter waiter = WaiterOf(3, 1, kOptionRaw);
  std::copy(unit_.begin(), unit_.end(), scripted_.lane()->vector(3));
  ASSERT_TRUE(replies_.AnswerHit(waiter, 5, 6, false));
  EXPECT_EQ(scripted_.vector(3), (std::vector<float>{3, 4, 0, 0}));
  EXPECT_EQ(scripted_.result(3).source, uint32_t{kSourceShard});
  EXPECT_EQ(scripted_.result(3).token_count, 6u);
  EXPECT_EQ(scripted_.result(3).stage_ns[kComputed], 0u);
}

TEST_F(ReplyWriterTest, AJoinedWaiterIsToldSo) {
  Waiter waiter = WaiterOf(0, 1);
  waiter.joined = true;
  replies_.AnswerComputed(waiter, unit_, 1, 1, false, {});
  EXPECT_EQ(scripted_.result(0).source, uint32_t{kSourceJoined});
}

TEST_F(ReplyWriterTest, ARefusalCarriesNoVector) {
  replies_.Refuse(WaiterOf(0, 9), StatusCode::kOverloaded, 120);
  EXPECT_EQ(scripted_.result(0).retry_after_ms, 120u);
  EXPECT_EQ(scripted_.status(0), StatusCode::kOverloaded);
  EXPECT_EQ(scripted_.answered_sequence(0), 9u);
  EXPECT_EQ(scripted_.result(0).width, 0u);
  EXPECT_EQ(scripted_.result(0).source, uint32_t{kSourceNone});
  EXPECT_EQ(stats_->writer().Get(Counter::kRepliesOverloaded), 1u);
}

TEST_F(ReplyWriterTest, AClosedLaneIsAnsweredNoMore) {
  const Waiter waiter = WaiterOf(0, 1);
  scripted_.lane()->Close(StatusCode::kProtocolViolation);
  replies_.AnswerComputed(waiter, unit_, 1, 1, false, {});
  EXPECT_EQ(scripted_.answered_sequence(0), 0u);
  const EngineLine& line = scripted_.lane()->reply().engine();
  EXPECT_EQ(line.state.load(std::memory_order_relaxed), uint32_t{kLaneClosed});
  EXPECT_EQ(line.close_reason.load(std::memory_order_relaxed), static_cast<uint32_t>(StatusCode::kProtocolViolation));
  EXPECT_EQ(stats_->writer().Get(Counter::kRepliesOk), 0u);
}

TEST_F(ReplyWriterTest, WakesOnlyWhoAskedForIt) {
  replies_.Wake(scripted_.lane().get());
  EXPECT_EQ(futex_word(), 0u);
  EXPECT_EQ(stats_->writer().Get(Counter::kWakesSent), 0u);
  scripted_.client().client().sleepers.store(0xffffffff, std::memory_order_relaxed);
  replies_.Wake(scripted_.lane().get());
  EXPECT_EQ(futex_word(), 1u);
  EXPECT_EQ(stats_->writer().Get(Counter::kWakesSent), 1u);
}

TEST_F(ReplyWriterTest, AnArmedEventPipeGetsBytesAndAFullOneBlocksNobody) {
  scripted_.client().client().event_armed.store(1, std::memory_order_relaxed);
  for (int i = 0; i < 70'000; ++i) replies_.Wake(scripted_.lane().get());
  char byte = 0;
  EXPECT_EQ(read(scripted_.event_fd(), &byte, 1), 1);
}

TEST_F(ReplyWriterTest, AClientThatNeverReadsItsCompletionsIsAnsweredOn) {
  for (uint64_t sequence = 1; sequence <= 100; ++sequence) {
    replies_.Refuse(WaiterOf(static_cast<uint32_t>(sequence % 8), sequence), StatusCode::kCancelled);
  }
  EXPECT_EQ(scripted_.answered_sequence(100 % 8), 100u);
  uint32_t slot = 0;
  EXPECT_EQ(scripted_.completions().Next(&slot), CompletionReader::Read::kGap);
}

TEST_F(ReplyWriterTest, TheMappingOutlivesTheClientUntilTheLastRequestIsDone) {
  auto scripted = std::make_unique<ScriptedLane>();
  std::weak_ptr<Lane> lane = scripted->lane();
  ASSERT_TRUE(lane.lock()->Hold(0));
  Waiter waiter;
  waiter.lane = scripted->lane();
  waiter.sequence = 1;
  waiter.lane->Close(StatusCode::kEngineGone);
  scripted.reset();
  EXPECT_FALSE(lane.expired());
  replies_.AnswerComputed(waiter, unit_, 1, 1, false, {});  // writes into the vector, publishes no answer
  waiter = Waiter();
  EXPECT_TRUE(lane.expired());
}

}  // namespace
}  // namespace sutra
