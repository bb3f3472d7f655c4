// How a request ends: once, by one word, and what its result then shows.
#include "producer/slot_end.h"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "producer/lane_death.h"
#include "tests/producer/lane_fixture.h"

namespace sutra::test {
namespace {

class SlotEndTest : public LaneTest {
 protected:
  sutra_result ResultOf(uint32_t slot) const {
    sutra_result result;
    std::memset(&result, 0xee, sizeof(result));
    client::FillResult(lane_, slot, &result);
    return result;
  }
};

TEST_F(SlotEndTest, AnAnswerIsFinal) {
  const uint32_t slot = Submit();
  EXPECT_EQ(client::SettleSlot(lane_, slot, 0), SUTRA_NOT_READY);
  engine_.Answer(slot, StatusCode::kOverloaded);
  EXPECT_EQ(client::SettleSlot(lane_, slot, UINT64_MAX), SUTRA_OVERLOADED);
  engine_.Die();
  EXPECT_FALSE(client::CheckAlive(lane_, MonotonicNs()));
  EXPECT_EQ(client::SettleSlot(lane_, slot, UINT64_MAX), SUTRA_OVERLOADED);
}

TEST_F(SlotEndTest, AnOverloadedAnswerSaysWhenToSubmitAgainAndNoOtherDoes) {
  const uint32_t refused = Submit(), served = Submit();
  for (const uint32_t slot : {refused, served}) engine_.Result(slot).retry_after_ms = 250;
  engine_.Answer(refused, StatusCode::kOverloaded);
  engine_.Answer(served);
  EXPECT_EQ(client::SettleSlot(lane_, refused, 0), SUTRA_OVERLOADED);
  EXPECT_EQ(ResultOf(refused).retry_after_ms, 250u);
  EXPECT_EQ(client::SettleSlot(lane_, served, 0), SUTRA_OK);
  EXPECT_EQ(ResultOf(served).retry_after_ms, 0u);
}

TEST_F(SlotEndTest, ATicketThatEndedAtItsDeadlineStaysEnded) {
  const uint32_t slot = Submit();
  const uint64_t deadline_ns = lane_->slots[slot].deadline_ns;
  EXPECT_EQ(client::SettleSlot(lane_, slot, deadline_ns - 1), SUTRA_NOT_READY);
  EXPECT_EQ(client::SettleSlot(lane_, slot, deadline_ns), SUTRA_DEADLINE_EXCEEDED);
  engine_.Answer(slot);
  EXPECT_EQ(client::SettleSlot(lane_, slot, 0), SUTRA_DEADLINE_EXCEEDED);
}

TEST_F(SlotEndTest, AnEngineThatAnswersNotReadyIsAModelError) {
  const uint32_t slot = Submit();
  engine_.Answer(slot, StatusCode::kNotReady);
  EXPECT_EQ(client::SettleSlot(lane_, slot, 0), SUTRA_MODEL_ERROR);
}

TEST_F(SlotEndTest, DeathEndsWhatIsNotAnswered) {
  const uint32_t answered = Submit(), lost = Submit();
  engine_.Answer(answered);
  EXPECT_TRUE(client::CheckAlive(lane_, MonotonicNs()));
  EXPECT_FALSE(client::HungUp(lane_));
  engine_.Die();
  EXPECT_TRUE(client::HungUp(lane_));
  EXPECT_FALSE(client::CheckAlive(lane_, MonotonicNs()));
  EXPECT_TRUE(client::IsGone(lane_));
  EXPECT_EQ(client::SettleSlot(lane_, answered, 0), SUTRA_OK);
  EXPECT_EQ(client::SettleSlot(lane_, lost, 0), SUTRA_ENGINE_GONE);
}

TEST_F(SlotEndTest, ResultsOfABrokenEngineAreClamped) {
  const uint32_t slot = Submit("text", {.tag = 4});
  engine_.Answer(slot);
  engine_.Result(slot).width = 1 << 20;
  engine_.Result(slot).source = 99;
  engine_.Result(slot).flags = UINT32_MAX;
  engine_.Result(slot).token_count = UINT32_MAX;
  EXPECT_EQ(client::SettleSlot(lane_, slot, 0), SUTRA_OK);
  const sutra_result result = ResultOf(slot);
  EXPECT_EQ(result.width, EngineEnd::kWidth);
  EXPECT_EQ(result.truncated, 1u);
  EXPECT_EQ(result.token_count, EngineEnd::kTokensMax);
  EXPECT_EQ(result.source, SUTRA_SOURCE_NONE);
  EXPECT_EQ(result.tag, 4u);
}

TEST_F(SlotEndTest, ARequestWithoutAnAnswerHasNoFiguresOfTheSlotsLastOne) {
  const uint32_t slot = Submit("text", {.tag = 4});
  engine_.Answer(slot);
  engine_.Result(slot).token_count = 17;
  engine_.Result(slot).stage_ns[kPublished] = 1234;
  Release(slot);
  ASSERT_EQ(Submit("next", {.tag = 5}), slot);
  for (const sutra_status status : {SUTRA_NOT_READY, SUTRA_DEADLINE_EXCEEDED}) {
    EXPECT_EQ(client::SettleSlot(lane_, slot, status == SUTRA_NOT_READY ? 0 : UINT64_MAX), status);
    const sutra_result result = ResultOf(slot);
    EXPECT_EQ(result.status, status);
    EXPECT_EQ(result.tag, 5u);
    EXPECT_EQ(result.token_count, 0u);
    EXPECT_EQ(result.source, SUTRA_SOURCE_NONE);
    EXPECT_EQ(result.stage_ns[kPublished], 0u);
    EXPECT_EQ(result.vector, nullptr);
  }
}

TEST_F(SlotEndTest, ARequestEndsOnceWhicheverComesFirst) {
  const uint32_t late = Submit();
  EXPECT_EQ(client::EndSlot(lane_, late, SUTRA_DEADLINE_EXCEEDED), SUTRA_DEADLINE_EXCEEDED);
  engine_.Answer(late);
  EXPECT_EQ(client::EndSlot(lane_, late, client::kEndedByAnswer | SUTRA_OK), SUTRA_DEADLINE_EXCEEDED);
  EXPECT_EQ(ResultOf(late).status, SUTRA_DEADLINE_EXCEEDED);
  EXPECT_EQ(ResultOf(late).vector, nullptr);
  const uint32_t answered = Submit();
  engine_.Answer(answered);
  EXPECT_EQ(client::SettleSlot(lane_, answered, UINT64_MAX), SUTRA_OK);
  EXPECT_EQ(client::EndSlot(lane_, answered, SUTRA_DEADLINE_EXCEEDED), SUTRA_OK);
  EXPECT_EQ(ResultOf(answered).status, SUTRA_OK);
  EXPECT_NE(ResultOf(answered).vector, nullptr);
}

TEST_F(SlotEndTest, AnAnswerThatAnEngineTakesBackStaysTheAnswer) {
  const uint32_t slot = Submit();
  engine_.Answer(slot);
  EXPECT_EQ(client::SettleSlot(lane_, slot, 0), SUTRA_OK);
  engine_.Result(slot).word.store(0, std::memory_order_relaxed);  // relaxed: one thread
  EXPECT_EQ(client::SettleSlot(lane_, slot, UINT64_MAX), SUTRA_OK);
}

TEST_F(SlotEndTest, AnswersAndDeadlinesOnTwoThreadsAgreeOnOneEnd) {
  for (int round = 0; round < 400; ++round) {
    const uint32_t slot = Submit();
    std::thread sweep([&] { (void)client::SettleSlot(lane_, slot, UINT64_MAX); });
    engine_.Answer(slot);
    const sutra_status seen = client::SettleSlot(lane_, slot, 0);
    const sutra_result result = ResultOf(slot);
    EXPECT_EQ(result.status, seen);
    EXPECT_EQ(result.vector != nullptr, seen == SUTRA_OK);
    sweep.join();
    EXPECT_EQ(client::SettleSlot(lane_, slot, 0), seen);
    Release(slot);
    while (engine_.Take() >= 0) continue;
  }
}

}  // namespace
}  // namespace sutra::test
