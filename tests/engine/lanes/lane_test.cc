#include "engine/lanes/lane.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/kit/scripted_lane.h"

namespace sutra {
namespace {

using testing::ScriptedLane;

class LaneTest : public ::testing::Test {
 protected:
  Lane& lane() { return *scripted_.lane(); }
  EngineLine& line() { return lane().reply().engine(); }
  uint32_t state() { return line().state.load(std::memory_order_relaxed); }
  uint32_t futex_word() { return line().futex_word.load(std::memory_order_relaxed); }

  ScriptedLane scripted_;
};

TEST_F(LaneTest, ASlotIsHeldUntilItsAnswerIsPublished) {
  EXPECT_TRUE(lane().Hold(3));
  EXPECT_FALSE(lane().Hold(3));
  EXPECT_TRUE(lane().Hold(4));
  EXPECT_EQ(lane().held(), 2u);
  EXPECT_TRUE(lane().Publish(3, 1, Answer()));
  EXPECT_EQ(lane().held(), 1u);
  EXPECT_TRUE(lane().Hold(3));
}

TEST_F(LaneTest, AnAnswerIsWrittenWholeAndTheWordLast) {
  Answer answer;
  answer.source = kSourceModel;
  answer.token_count = 5;
  answer.truncated = true;
  answer.tag = 99;
  answer.stage_ns[kPublished] = 1234;
  ASSERT_TRUE(lane().Hold(2));
  ASSERT_TRUE(lane().Publish(2, 17, answer));
  EXPECT_EQ(scripted_.answered_sequence(2), 17u);
  EXPECT_EQ(scripted_.status(2), StatusCode::kOk);
  const ResultDescriptor& result = scripted_.result(2);
  EXPECT_EQ(result.source, uint32_t{kSourceModel});
  EXPECT_EQ(result.token_count, 5u);
  EXPECT_EQ(result.flags, uint32_t{kResultTruncated});
  EXPECT_EQ(result.tag, 99u);
  EXPECT_EQ(result.width, lane().geometry().width);
  EXPECT_EQ(result.stage_ns[kPublished], 1234u);
  uint32_t slot = 0;
  EXPECT_EQ(scripted_.completions().Next(&slot), CompletionReader::Read::kSlot);
  EXPECT_EQ(slot, 2u);
}

TEST_F(LaneTest, ARefusalHasNoVector) {
  Answer answer;
  answer.status = StatusCode::kOverloaded;
  ASSERT_TRUE(lane().Hold(0));
  ASSERT_TRUE(lane().Publish(0, 1, answer));
  EXPECT_EQ(scripted_.status(0), StatusCode::kOverloaded);
  EXPECT_EQ(scripted_.result(0).width, 0u);
}

TEST_F(LaneTest, AfterCloseNothingIsAnsweredAndTheReasonStands) {
  ASSERT_TRUE(lane().Hold(0));
  const uint32_t before = futex_word();
  lane().Close(StatusCode::kShuttingDown);
  EXPECT_FALSE(lane().open());
  EXPECT_EQ(state(), uint32_t{kLaneClosed});
  EXPECT_NE(futex_word(), before);  // sleeping clients see the end
  EXPECT_FALSE(lane().Publish(0, 1, Answer()));
  EXPECT_EQ(scripted_.answered_sequence(0), 0u);
  lane().Close(StatusCode::kEngineGone);  // the first reason counts
  EXPECT_EQ(line().close_reason.load(std::memory_order_relaxed), static_cast<uint32_t>(StatusCode::kShuttingDown));
}

TEST_F(LaneTest, AClosedLaneDoesNotDrain) {
  lane().SetDraining();
  EXPECT_EQ(state(), uint32_t{kLaneDraining});
  lane().Close(StatusCode::kOk);
  lane().SetDraining();
  EXPECT_EQ(state(), uint32_t{kLaneClosed});
}

TEST_F(LaneTest, OnlySleepersAreWoken) {
  const uint32_t before = futex_word();
  EXPECT_FALSE(lane().Wake());
  EXPECT_EQ(futex_word(), before);
  scripted_.client().client().sleepers.store(1, std::memory_order_relaxed);
  EXPECT_TRUE(lane().Wake());
  EXPECT_NE(futex_word(), before);
  char byte;
  EXPECT_EQ(read(scripted_.event_fd(), &byte, 1), -1);
}

TEST_F(LaneTest, AnArmedEventLoopGetsOneByte) {
  scripted_.client().client().event_armed.store(1, std::memory_order_relaxed);
  EXPECT_TRUE(lane().Wake());
  char bytes[4];
  EXPECT_EQ(read(scripted_.event_fd(), bytes, sizeof(bytes)), 1);
}

TEST_F(LaneTest, CancellingMeansThisSequenceOnly) {
  scripted_.Fill(1, "text", {.sequence = 5});
  EXPECT_FALSE(lane().Cancelled(1, 5));
  scripted_.client().request(1).cancel_sequence.store(5, std::memory_order_relaxed);
  EXPECT_TRUE(lane().Cancelled(1, 5));
  EXPECT_FALSE(lane().Cancelled(1, 6));
}

using LaneDeathTest = LaneTest;

TEST_F(LaneDeathTest, AnswersOfSlotsThatNobodyHoldsAreOurBug) {
  EXPECT_DEATH(lane().Publish(1, 1, Answer()), "slot_held_");
}

}  // namespace
}  // namespace sutra
