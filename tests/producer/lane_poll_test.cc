// What an event loop is told about a lane: each finished ticket once, and when to ask.
#include "producer/lane_poll.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <functional>
#include <set>
#include <vector>

#include "producer/include/sutra/embed.hpp"
#include "producer/ticket.h"
#include "tests/producer/lane_fixture.h"

namespace sutra::test {
namespace {

class LanePollTest : public LaneTest {
 protected:
  static std::vector<sutra_ticket> Tickets(size_t count, const std::function<void(client::PollRoom*)>& poll) {
    std::vector<sutra_result> results(count, embed::Result());
    client::ResultSink sink;
    EXPECT_TRUE(sink.Open(results.data(), sizeof(sutra_result)));
    client::PollRoom room = {.results = sink, .count = count};
    poll(&room);
    std::vector<sutra_ticket> tickets;
    for (size_t i = 0; i < room.found; ++i) tickets.push_back(results[i].ticket);
    return tickets;
  }
  std::vector<sutra_ticket> Poll(size_t count, uint64_t now_ns = MonotonicNs()) {
    return Tickets(count, [&](client::PollRoom* room) {
      const MutexLock lock(lane_->mutex);
      client::PollLocked(lane_, room, now_ns, true);
    });
  }
  std::set<sutra_ticket> PollAll(size_t at_once) {
    std::set<sutra_ticket> found;
    for (;;) {
      const std::vector<sutra_ticket> some = Poll(at_once);
      if (some.empty()) return found;
      for (const sutra_ticket ticket : some) EXPECT_TRUE(found.insert(ticket).second) << "reported twice";
    }
  }
  sutra_ticket TicketOf(uint32_t slot) const { return client::TicketOf(lane_, slot); }
  int EventFd() { return client::EventFdOf(&client_); }
  std::vector<sutra_ticket> PollClient(size_t count, uint64_t now_ns = MonotonicNs()) {
    return Tickets(count, [&](client::PollRoom* room) { client::PollClient(&client_, room, now_ns); });
  }
  bool Readable(int timeout_ms = 0) {
    pollfd item = {EventFd(), POLLIN, 0};
    return poll(&item, 1, timeout_ms) == 1;
  }
  uint32_t Armed() {
    return engine_.memory().request().client().event_armed.load(std::memory_order_relaxed);  // relaxed: one thread
  }
};

TEST_F(LanePollTest, EachFinishedTicketIsReportedOnce) {
  std::set<sutra_ticket> expected;
  for (int i = 0; i < 3; ++i) {
    const uint32_t slot = Submit();
    expected.insert(TicketOf(slot));
    engine_.Answer(slot);
  }
  Submit();  // unanswered
  EXPECT_EQ(PollAll(2), expected);
}

TEST_F(LanePollTest, WhatDoesNotFitIsReportedByTheNextCall) {
  for (int i = 0; i < 4; ++i) engine_.Answer(Submit());
  EXPECT_EQ(Poll(1).size(), 1u);
  EXPECT_EQ(Poll(1).size(), 1u);
  EXPECT_EQ(Poll(4).size(), 2u);
  EXPECT_TRUE(Poll(4).empty());
}

TEST_F(LanePollTest, WhatAWaitReportedIsNotReportedAgain) {
  const uint32_t slot = Submit();
  engine_.Answer(slot);
  lane_->slots[slot].reported.store(1, std::memory_order_relaxed);  // relaxed: as WaitSlot does
  EXPECT_TRUE(Poll(4).empty());
}

TEST_F(LanePollTest, WhatABlockingCallHoldsIsNeverShown) {
  const uint32_t own = Submit("text", {}, client::SlotPhase::kCall);
  engine_.Answer(own);
  EXPECT_EQ(TicketOf(own), 0u);
  EXPECT_TRUE(Poll(4).empty());
  Submit("text", {}, client::SlotPhase::kCall);
  engine_.Die();
  EXPECT_TRUE(Poll(4, MonotonicNs() + 2 * client::kSleepSliceNs).empty()) << "nor by the sweep after a death";
}

TEST_F(LanePollTest, AfterALapOfTheCompletionRingEverySlotIsLookedAt) {
  for (int i = 0; i < 10; ++i) {  // more answers than the ring has entries, none of them polled
    const uint32_t slot = Submit();
    engine_.Answer(slot);
    Release(slot);
  }
  const uint32_t slot = Submit();
  engine_.Answer(slot);
  EXPECT_EQ(PollAll(4), std::set<sutra_ticket>{TicketOf(slot)});
}

TEST_F(LanePollTest, DeadlinesAndDeathsAreReported) {
  const uint32_t late = Submit("text", {.timeout_ns = 1});
  EXPECT_EQ(Poll(4, MonotonicNs() + client::kSweepNs), std::vector<sutra_ticket>{TicketOf(late)});
  const uint32_t lost = Submit("text", {.fail_fast = true});
  engine_.Die();
  EXPECT_EQ(Poll(4, MonotonicNs() + 2 * client::kSleepSliceNs), std::vector<sutra_ticket>{TicketOf(lost)});
}

TEST_F(LanePollTest, TheDescriptorIsArmedWhenItIsGivenOutAndAfterEachPollThatFoundTheEnd) {
  EXPECT_EQ(Armed(), 0u);
  const int fd = EventFd();
  ASSERT_GE(fd, 0);
  EXPECT_EQ(EventFd(), fd);
  EXPECT_EQ(Armed(), 1u);
  const uint32_t slot = Submit();
  engine_.Answer(slot);
  engine_.RingEvent();
  EXPECT_TRUE(Readable());
  EXPECT_EQ(PollClient(4).size(), 1u);
  EXPECT_FALSE(Readable()) << "the poll read the event";
  EXPECT_EQ(Armed(), 1u);
}

// A caller that is busy with answers costs the engine no system call for each.
TEST_F(LanePollTest, WhileAPollHasNoRoomForAllTheEngineIsNotAskedToRing) {
  ASSERT_GE(EventFd(), 0);
  for (int i = 0; i < 4; ++i) engine_.Answer(Submit());
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(PollClient(1).size(), 1u);
    EXPECT_EQ(Armed(), 0u);
    EXPECT_TRUE(Readable()) << "the caller may sleep now all the same";
  }
  EXPECT_TRUE(PollClient(1).empty());
  EXPECT_EQ(Armed(), 1u);
  EXPECT_FALSE(Readable());
}

// Answers that are found without a sleep cost the engine no system call, and the caller none either.
TEST_F(LanePollTest, WhileACallerPollsOnTheEngineIsNotAskedToRing) {
  client_.spin_ns = kNsPerSecond;  // time is the test's: it says when each poll is
  ASSERT_GE(EventFd(), 0);
  const uint64_t start_ns = MonotonicNs();
  EXPECT_TRUE(PollClient(4, start_ns).empty());
  EXPECT_EQ(Armed(), 1u) << "no answer was found yet";
  uint64_t now_ns = start_ns;
  for (int round = 0; round < 100; ++round) {
    const uint32_t slot = Submit();
    if (round > 0) {
      EXPECT_EQ(Armed(), 0u) << "the engine would write a byte for this answer";
    }
    engine_.Answer(slot);
    EXPECT_EQ(PollClient(4, ++now_ns).size(), 1u);
    EXPECT_TRUE(PollClient(4, ++now_ns).empty());
    EXPECT_TRUE(Readable()) << "a caller that sleeps now must be woken";
    Release(slot);
  }
  EXPECT_TRUE(PollClient(4, now_ns + 2 * kNsPerSecond).empty());
  EXPECT_EQ(Armed(), 1u) << "nothing came for as long as a wait would spin";
  EXPECT_FALSE(Readable());
}

TEST_F(LanePollTest, ACallerWhoseAnswersComeLaterIsNotKeptFromItsSleep) {
  client_.spin_ns = kNsPerMs;
  ASSERT_GE(EventFd(), 0);
  uint64_t now_ns = MonotonicNs();
  uint32_t polls_before_sleep[16] = {};
  for (uint32_t& polls : polls_before_sleep) {
    const uint32_t slot = Submit();
    engine_.Answer(slot);
    EXPECT_EQ(PollClient(4, now_ns).size(), 1u);
    for (; Readable(); ++polls) {
      now_ns += 400 * kNsPerUs;
      EXPECT_TRUE(PollClient(4, now_ns).empty());
    }
    EXPECT_EQ(Armed(), 1u);
    Release(slot);
  }
  EXPECT_EQ(polls_before_sleep[0], 3u);
  EXPECT_EQ(polls_before_sleep[client::kBusyMissesMax], 0u) << "it never paid off";
  EXPECT_EQ(polls_before_sleep[15], 0u);
}

// The poll has read the engine's byte and has no room for what it found by looking at every slot.
TEST_F(LanePollTest, TheDescriptorStaysReadableWhileMoreIsKnownThanThePollHadRoomFor) {
  ASSERT_GE(EventFd(), 0);
  EXPECT_FALSE(Readable());
  for (int i = 0; i < 6; ++i) {  // laps the completion ring
    const uint32_t slot = Submit("text", {}, client::SlotPhase::kCall);
    engine_.Answer(slot);
    Release(slot);
  }
  for (int i = 0; i < 3; ++i) engine_.Answer(Submit());
  engine_.RingEvent();
  EXPECT_TRUE(Readable());
  EXPECT_EQ(PollClient(1).size(), 1u);
  EXPECT_TRUE(Readable());
  EXPECT_EQ(PollClient(1).size(), 1u);
  EXPECT_TRUE(Readable());
  for (int i = 0; i < 3 && Readable(); ++i) PollClient(4);
  EXPECT_FALSE(Readable()) << "all is reported";
}

// A stopped engine rings for nothing: the deadline itself makes the descriptor readable.
TEST_F(LanePollTest, TheDescriptorBecomesReadableAtTheEarliestDeadline) {
  const uint32_t before = Submit("text", {.timeout_ns = 20 * kNsPerMs});  // before there is a descriptor
  ASSERT_GE(EventFd(), 0);
  EXPECT_TRUE(Readable(60'000));
  EXPECT_EQ(PollClient(4), std::vector<sutra_ticket>{TicketOf(before)});
  EXPECT_FALSE(Readable());
  const uint64_t now_ns = MonotonicNs();
  const uint32_t late = Submit("text", {.timeout_ns = 3600 * kNsPerSecond});
  client::NoteDeadline(&client_.signals, now_ns + 3600 * kNsPerSecond);
  const uint32_t soon = Submit("text", {.timeout_ns = 20 * kNsPerMs});
  client::NoteDeadline(&client_.signals, now_ns + 20 * kNsPerMs);
  EXPECT_TRUE(Readable(60'000));
  EXPECT_EQ(PollClient(4), std::vector<sutra_ticket>{TicketOf(soon)});
  EXPECT_FALSE(Readable());
  EXPECT_GE(client_.signals.timer_ns.load(), now_ns + 3600 * kNsPerSecond) << "set for the next";
  EXPECT_LT(client_.signals.timer_ns.load(), client::kNever);
  Release(late);
}

TEST_F(LanePollTest, ADeadlineWithoutRoomToReportItKeepsTheDescriptorReadable) {
  ASSERT_GE(EventFd(), 0);
  for (int i = 0; i < 3; ++i) Submit("text", {.timeout_ns = 1});
  client::NoteDeadline(&client_.signals, MonotonicNs());
  std::set<sutra_ticket> found;
  while (found.size() < 3) {
    ASSERT_TRUE(Readable());
    for (const sutra_ticket ticket : PollClient(1)) EXPECT_TRUE(found.insert(ticket).second);
  }
  EXPECT_TRUE(PollClient(1).empty());
  EXPECT_FALSE(Readable());
}

TEST_F(LanePollTest, TheDescriptorIsTheSameAfterADeathWhichMakesItReadableOnce) {
  const int fd = EventFd();
  ASSERT_GE(fd, 0);
  const uint32_t lost = Submit("text", {.fail_fast = true});
  engine_.Die();
  EXPECT_FALSE(Alive());
  client::LanesChanged(&client_.signals, true);
  client::TellDeath(lane_);
  EXPECT_TRUE(Readable());
  EXPECT_EQ(PollClient(4), std::vector<sutra_ticket>{TicketOf(lost)});
  EXPECT_TRUE(PollClient(4).empty());
  EXPECT_FALSE(Readable()) << "the closed pipe of a dead engine is none of its parts any more";
  EXPECT_EQ(EventFd(), fd);
}

}  // namespace
}  // namespace sutra::test
