// A lane of the client: the life of its slots, what ends a ticket, and what stays after the engine's death.
#include "producer/client_lane.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <thread>
#include <vector>

#include "producer/slot_end.h"
#include "tests/kit/wake_calls.h"
#include "tests/producer/lane_fixture.h"

namespace sutra::test {
namespace {

using client::Attachment;
using client::ClientLane;
using client::Request;
using client::SlotPhase;

class ClientLaneTest : public LaneTest {
 protected:
  SlotPhase Phase(uint32_t slot) const { return lane_->slots[slot].phase; }
  sutra_status Usable(bool* stalled = nullptr) {
    bool ignored = false;
    const MutexLock lock(lane_->mutex);
    return client::UsableLocked(lane_, MonotonicNs(), stalled != nullptr ? stalled : &ignored);
  }
};

TEST_F(ClientLaneTest, SubmitWritesTheWholeRequestBeforeItIsPublished) {
  const Request request = {
      .tag = 9, .timeout_ns = 5000, .flags = SUTRA_RAW, .width = 8, .ttl_s = 60, .priority = SUTRA_PRIORITY_BULK};
  const uint32_t slot = Submit("a text", request);
  ASSERT_EQ(engine_.Take(), static_cast<int>(slot));
  EXPECT_EQ(engine_.Take(), -1);
  const RequestDescriptor& descriptor = engine_.Request(slot);
  // relaxed: one thread
  EXPECT_EQ(descriptor.sequence.load(std::memory_order_relaxed), Sequence(slot));
  EXPECT_EQ(descriptor.tag.load(std::memory_order_relaxed), 9u);
  EXPECT_EQ(descriptor.bytes_and_options.load(std::memory_order_relaxed), uint64_t{SUTRA_RAW} << 32 | 6);
  EXPECT_EQ(descriptor.width_and_ttl.load(std::memory_order_relaxed), uint64_t{60} << 32 | 8);
  EXPECT_EQ(descriptor.priority_and_tail.load(std::memory_order_relaxed), uint64_t{SUTRA_PRIORITY_BULK});
  EXPECT_EQ(
      descriptor.deadline_ns.load(std::memory_order_relaxed) - descriptor.submitted_ns.load(std::memory_order_relaxed),
      5000u);
  EXPECT_EQ(std::memcmp(engine_.memory().request().text_head(slot), "a text", 6), 0);
}

TEST_F(ClientLaneTest, ATextThatDoesNotFitIntoTheHeadLiesWholeInTheTailFile) {
  Submit("the first slot's");
  const std::string text = std::string(kTextHeadBytes, 'h') + "!";
  const Request request = {.timeout_ns = 5000, .priority = SUTRA_PRIORITY_QUERY};
  const uint32_t slot = Submit(text, request);
  const uint64_t word = engine_.Request(slot).priority_and_tail.load(std::memory_order_relaxed);  // relaxed: one thread
  EXPECT_EQ(PriorityOf(word), uint32_t{SUTRA_PRIORITY_QUERY});
  const LaneGeometry& geometry = engine_.memory().request().geometry;
  ASSERT_TRUE(geometry.InTailFile(TailOffsetOf(word), text.size()));
  std::string found(text.size(), '?');
  ASSERT_EQ(pread(engine_.memory().tail_fd(), found.data(), found.size(), static_cast<off_t>(TailOffsetOf(word))),
            static_cast<ssize_t>(text.size()));
  EXPECT_EQ(found, text);
}

TEST_F(ClientLaneTest, LongTextsOfTwoSlotsDoNotOverlap) {
  const uint32_t first = Submit(std::string(8192, 'a')), second = Submit(std::string(8192, 'b'));
  for (const auto& [slot, letter] : {std::pair(first, 'a'), std::pair(second, 'b')}) {
    const uint64_t offset =
        TailOffsetOf(engine_.Request(slot).priority_and_tail.load(std::memory_order_relaxed));  // relaxed: one thread
    std::string found(8192, '?');
    ASSERT_EQ(pread(engine_.memory().tail_fd(), found.data(), found.size(), static_cast<off_t>(offset)), 8192);
    EXPECT_EQ(found, std::string(8192, letter));
  }
}

// A limit that a process set for the size of its own files: a write beyond it would end the process with SIGXFSZ.
TEST_F(ClientLaneTest, ALongTextFitsUnderAFileSizeLimitOfTheCaller) {
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit limit = {1, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  const uint32_t slot = Submit(std::string(8000, 't'));
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(engine_.Take(), static_cast<int>(slot));
}

TEST_F(ClientLaneTest, AnAnsweredSlotIsFreeAfterItsReleaseAndUsedAgainFirst) {
  const uint32_t slot = Submit();
  EXPECT_EQ(Phase(slot), SlotPhase::kTicket);
  EXPECT_EQ(FreeSlots(), 3u);
  engine_.Answer(slot);
  EXPECT_EQ(Phase(slot), SlotPhase::kTicket) << "the ticket holds it";
  Release(slot);
  EXPECT_EQ(Phase(slot), SlotPhase::kFree);
  EXPECT_EQ(FreeSlots(), 4u);
  EXPECT_EQ(Submit(), slot);
}

TEST_F(ClientLaneTest, ASlotReleasedBeforeItsAnswerIsAbandonedUntilTheAnswer) {
  const uint32_t slot = Submit();
  Release(slot);
  EXPECT_EQ(Phase(slot), SlotPhase::kAbandoned);
  EXPECT_EQ(engine_.Request(slot).cancel_sequence.load(std::memory_order_relaxed), Sequence(slot));  // relaxed: ours
  const MutexLock lock(lane_->mutex);
  EXPECT_EQ(client::ReapLocked(lane_), 3u);
  engine_.Answer(slot, StatusCode::kCancelled);
  EXPECT_EQ(client::ReapLocked(lane_), 4u);
  EXPECT_EQ(Phase(slot), SlotPhase::kFree);
}

TEST_F(ClientLaneTest, AClosedLaneEndsWithTheReasonsThatACallerCanActOn) {
  const struct {
    StatusCode said;
    sutra_status gone;
  } cases[] = {{StatusCode::kShuttingDown, SUTRA_SHUTTING_DOWN},
               {StatusCode::kProtocolViolation, SUTRA_PROTOCOL_VIOLATION},
               {StatusCode::kOk, SUTRA_ENGINE_GONE},
               {StatusCode::kBadArgument, SUTRA_ENGINE_GONE}};
  for (const auto& item : cases) {
    EngineEnd next;
    next.SetState(kLaneClosed, item.said);
    Die();
    Open(&next);
    EXPECT_EQ(Usable(), item.gone);
    EXPECT_FALSE(Alive());
    client::TellDeath(lane_);
  }
}

TEST_F(ClientLaneTest, ADrainingLaneTakesNothingAndAnOldHeartbeatIsNotDeath) {
  bool stalled = false;
  EXPECT_EQ(Usable(&stalled), SUTRA_OK);
  EXPECT_FALSE(stalled);
  engine_.page()->heartbeat_ns.store(MonotonicNs() - 2 * client::kHeartbeatOldNs, std::memory_order_relaxed);
  EXPECT_EQ(Usable(&stalled), SUTRA_OK);
  EXPECT_TRUE(stalled);
  engine_.SetState(kLaneDraining);
  EXPECT_EQ(Usable(), SUTRA_SHUTTING_DOWN);
}

TEST_F(ClientLaneTest, ADeadLaneKeepsItsVectorsUntilTheLastLiveTicketIsReleased) {
  const uint32_t kept = Submit(), abandoned = Submit();
  engine_.Vector(kept)[0] = 1.5f;
  engine_.Answer(kept);
  Release(abandoned);
  Die();
  EXPECT_EQ(FreeSlots(), 3u) << "nobody owes the answer to the abandoned one";
  EXPECT_EQ(client::SettleSlot(lane_, kept, 0), SUTRA_OK);
  sutra_result result;
  client::FillResult(lane_, kept, &result);
  ASSERT_NE(result.vector, nullptr);
  EXPECT_EQ(result.vector[0], 1.5f);
  Release(kept);
  EXPECT_EQ(Current(), nullptr);
}

TEST_F(ClientLaneTest, SequencesGoOnWhenTheLaneIsOpenedForAnotherEngine) {
  const uint32_t slot = Submit();
  const uint64_t before = Sequence(slot);
  engine_.Answer(slot);
  Release(slot);
  Die();
  EngineEnd next;
  EXPECT_EQ(Open(&next), 0u);
  EXPECT_EQ(FreeSlots(), 4u);
  const uint32_t again = Submit();
  EXPECT_GT(Sequence(again), before);
  EXPECT_EQ(next.Take(), static_cast<int>(again));
}

// As a poll does it that reads the engine's entries, whatever their order; the others are still found afterwards.
TEST_F(ClientLaneTest, AnAbandonedSlotIsReapedAloneWhereverItIsAmongTheOthers) {
  const uint32_t slots[] = {Submit(), Submit(), Submit(), Submit()};
  for (const uint32_t slot : slots) Release(slot);
  const MutexLock lock(lane_->mutex);
  client::ReapSlotLocked(lane_, slots[2]);
  EXPECT_EQ(lane_->free_count, 0u) << "not answered";
  for (const int i : {2, 0, 3}) {
    engine_.Answer(slots[i]);
    client::ReapSlotLocked(lane_, slots[i]);
    EXPECT_EQ(Phase(slots[i]), SlotPhase::kFree);
  }
  EXPECT_EQ(lane_->abandoned_count, 1u);
  EXPECT_EQ(client::ReapLocked(lane_), 3u);
  engine_.Answer(slots[1]);
  EXPECT_EQ(client::ReapLocked(lane_), 4u);
}

// Each look takes a line from the engine; a submit that finds a lane of 4,096 slots full must not look at all of them.
TEST(ClientLaneReap, LooksAtABoundedNumberOfSlotsInTheOrderOfTheirRelease) {
  EngineEnd engine(256);
  sutra_client client;
  ClientLane* lane = client::MakeClientLane(&client.signals, 0, 256);
  std::atomic<uint64_t> moved = 0;
  ASSERT_EQ(client::MoveLane(lane, engine.Connect(), MonotonicNs(), &moved), SUTRA_OK);
  lane->mutex.Lock();
  std::vector<uint32_t> slots(256);
  for (uint32_t& slot : slots) {
    ASSERT_EQ(client::SubmitLocked(lane, "text", 4, {}, MonotonicNs(), SlotPhase::kTicket, &slot), SUTRA_OK);
  }
  for (const uint32_t slot : slots) client::ReleaseLocked(lane, slot);
  EXPECT_EQ(client::ReapLocked(lane), 0u);
  for (const uint32_t slot : slots) engine.Answer(slot);
  for (uint32_t free = client::kReapLooksMax; free <= 256; free += client::kReapLooksMax) {
    EXPECT_EQ(client::ReapLocked(lane), free);
  }
  EXPECT_EQ(lane->abandoned_count, 0u);
  EXPECT_EQ(client::ReapLocked(lane), 256u);
  lane->mutex.Unlock();
  client::DestroyClientLane(lane, false);
}

// What another thread decided between a thread's look and its result: the result obeys the deciding word.
// The tickets may be released, and the engine may die, before the thread that submitted them rings.
TEST_F(ClientLaneTest, ALaneStaysOpenUntilTheDoorbellUnderWayIsRung) {
  AnnounceEngineAsleep(engine_.page());
  const uint32_t slot = Submit();
  Attachment* ring;
  {
    const MutexLock lock(lane_->mutex);
    ring = client::PinForRingLocked(lane_);
    ASSERT_NE(ring, nullptr);
  }
  engine_.Answer(slot);
  Die();
  Release(slot);
  EXPECT_EQ(Current(), ring);
  EXPECT_GE(ring->connection.socket, 0);
  client::RingPinned(lane_, ring);
  EXPECT_EQ(Current(), nullptr);
}

TEST_F(ClientLaneTest, SequencesBeginAtRandomAndNeverLookLikeNoTicket) {
  ClientLane* other = client::MakeClientLane(&client_.signals, 3, 4);
  {
    const MutexLock lock(lane_->mutex);
    const MutexLock other_lock(other->mutex);
    EXPECT_NE(lane_->sequence_next, other->sequence_next);
    EXPECT_NE(other->sequence_next & client::kTicketSequenceMask, 0u);
    lane_->sequence_next = client::kTicketSequenceMask;
  }
  client::DestroyClientLane(other, false);
  const uint32_t last = Submit(), wrapped = Submit();
  EXPECT_NE(client::TicketOf(lane_, last) >> (client::kTicketSlotBits + client::kTicketLaneBits), 0u);
  EXPECT_EQ(client::TicketOf(lane_, wrapped) >> (client::kTicketSlotBits + client::kTicketLaneBits), 1u);
  EXPECT_GT(Sequence(wrapped), Sequence(last));
}

TEST_F(ClientLaneTest, TheDoorbellRingsOnlyForAParkedLaneOrASleepingEngine) {
  const auto ring = [&] {
    lane_->mutex.Lock();
    client::UnlockAndRing(lane_);
  };
  char byte;
  ring();
  EXPECT_EQ(recv(engine_.socket(), &byte, 1, MSG_DONTWAIT), -1);
  AnnounceParked(engine_.memory().reply());
  ring();
  EXPECT_EQ(recv(engine_.socket(), &byte, 1, MSG_DONTWAIT), 1);
  AnnouncePolled(engine_.memory().reply());
  ring();
  EXPECT_EQ(recv(engine_.socket(), &byte, 1, MSG_DONTWAIT), -1);
  AnnounceEngineAsleep(engine_.page());
  ring();
  EXPECT_EQ(recv(engine_.socket(), &byte, 1, MSG_DONTWAIT), 1);
  const MutexLock lock(lane_->mutex);
  EXPECT_EQ(lane_->current->pins, 0u);
}

using ClientLaneDeathTest = ClientLaneTest;

// That asserts are on, and that a full lane is never written over.
TEST_F(ClientLaneDeathTest, ASubmitWithoutAFreeSlotIsABugOfOurs) {
  for (int i = 0; i < 4; ++i) Submit();
  EXPECT_DEATH(Submit(), "free_count > 0");
}

}  // namespace
}  // namespace sutra::test
