// How a request ends: once, by one word, and what its result then shows.
#include "producer/slot_end.h"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>

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
  Die();
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

TEST_F(SlotEndTest, DeathEndsWithFailFastWhatIsNotAnsweredAndNothingElse) {
  const uint32_t answered = Submit("a", {.fail_fast = true}), lost = Submit("b", {.fail_fast = true}), moves = Submit();
  engine_.Answer(answered);
  EXPECT_TRUE(Alive());
  Die();
  EXPECT_EQ(client::SettleSlot(lane_, answered, 0), SUTRA_OK);
  EXPECT_EQ(client::SettleSlot(lane_, lost, 0), SUTRA_ENGINE_GONE);
  EXPECT_EQ(ResultOf(lost).reason, SUTRA_REASON_DIED);
  EXPECT_TRUE(client::EndedWithEngine(lane_, lost));
  EXPECT_FALSE(client::EndedWithEngine(lane_, answered));
  EXPECT_EQ(client::SettleSlot(lane_, moves, 0), SUTRA_NOT_READY);
  EXPECT_EQ(client::SettleSlot(lane_, moves, lane_->slots[moves].deadline_ns), SUTRA_DEADLINE_EXCEEDED);
  EXPECT_EQ(ResultOf(moves).reason, SUTRA_REASON_NONE);
}

TEST_F(SlotEndTest, ACancelWithoutAnEngineEndsTheRequestAtOnceAndWithOneTellsIt) {
  const uint32_t slot = Submit(), answered = Submit();
  engine_.Answer(answered);
  const auto cancel = [&](uint32_t index) {
    const MutexLock lock(lane_->mutex);
    client::CancelLocked(lane_, index);
  };
  cancel(slot);
  EXPECT_EQ(engine_.Request(slot).cancel_sequence.load(std::memory_order_relaxed), Sequence(slot));  // relaxed: ours
  EXPECT_EQ(client::SettleSlot(lane_, slot, 0), SUTRA_NOT_READY);
  const uint32_t later = Submit();
  Die();
  EXPECT_EQ(client::SettleSlot(lane_, slot, 0), SUTRA_CANCELLED) << "it was asked for before the death";
  EXPECT_EQ(client::SettleSlot(lane_, later, 0), SUTRA_NOT_READY);
  cancel(later);
  EXPECT_EQ(client::SettleSlot(lane_, later, 0), SUTRA_CANCELLED);
  cancel(answered);
  EXPECT_EQ(client::SettleSlot(lane_, answered, 0), SUTRA_OK);
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
