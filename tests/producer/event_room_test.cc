// Room after SUTRA_FULL, or an engine after SUTRA_ENGINE_GONE: the event descriptor is readable from the moment that
// there is some until it is asked for.
#include <poll.h>

#include <functional>
#include <thread>

#include "producer/lane_helper.h"
#include "producer/lane_open.h"
#include "tests/kit/poll_tickets.h"
#include "tests/producer/client_fixture.h"

namespace sutra::test {
namespace {

class EventRoom : public ClientTest {
 protected:
  // A client with lanes of two slots, and its descriptor.
  void Open(uint32_t lanes_max = 1) {
    client_ = Attach(2, lanes_max);
    event_fd_ = sutra_event_fd(client_.get());
    ASSERT_GE(event_fd_, 0);
  }
  void TearDown() override {
    client_.reset();
    ClientTest::TearDown();
  }
  bool Readable(int timeout_ms = 0) {
    pollfd item = {event_fd_, POLLIN, 0};
    return poll(&item, 1, timeout_ms) == 1;
  }
  // As an event loop that was told before anything else: until the descriptor is armed.
  void PollToSleep() {
    sutra_ticket none;
    do {
      EXPECT_EQ(PollTickets(client_.get(), &none, 1), 0u);
    } while (Readable());
  }
  // Tickets hold both slots, their answers were told, and the engine is stopped: no byte of it comes late.
  void Fill() {
    StartEngine();
    Open();
    for (sutra_ticket& ticket : held_) ASSERT_EQ(Submit(client_, "held", &ticket), SUTRA_OK);
    for (const sutra_ticket ticket : held_) ASSERT_EQ(sutra_wait(client_.get(), ticket, 60'000, nullptr), SUTRA_OK);
    engine_->Stop();
    PollToSleep();
  }
  void OnAnotherThread(const std::function<void()>& body) { std::thread(body).join(); }
  // An attempt that a busy machine cuts short is repeated only for whoever asks again.
  void AwaitLanes(uint32_t count) {
    for (; client::OpenLanes(client_.get()) < count; std::this_thread::yield()) client::AskForLane(client_.get(), true);
  }
  void ReleaseElsewhere(sutra_ticket ticket) {
    OnAnotherThread([&] { sutra_release(client_.get(), ticket); });
  }

  ClientPtr client_;
  int event_fd_ = -1;
  sutra_ticket held_[2] = {}, extra_ = 0, none_ = 0;
};

TEST_F(EventRoom, ALoopThatSleepsAfterFullIsTold) {
  Fill();
  EXPECT_EQ(Submit(client_, "no room", &extra_), SUTRA_FULL);
  PollToSleep();
  ReleaseElsewhere(held_[1]);
  EXPECT_TRUE(Readable(60'000)) << "nothing wakes the event loop";
  EXPECT_EQ(Submit(client_, "room", &extra_), SUTRA_OK);
  EXPECT_FALSE(Readable()) << "the caller took what it was told of";
  engine_->Continue();
}

TEST_F(EventRoom, APollBetweenFullAndTheSleepLeavesItToBeRead) {
  Fill();
  EXPECT_EQ(Submit(client_, "no room", &extra_), SUTRA_FULL);
  ReleaseElsewhere(held_[1]);
  EXPECT_EQ(PollTickets(client_.get(), &none_, 1), 0u);
  EXPECT_EQ(PollTickets(client_.get(), &none_, 1), 0u);
  EXPECT_TRUE(Readable(1000)) << "the event loop sleeps beside a free slot";
  EXPECT_EQ(Submit(client_, "room", &extra_), SUTRA_OK);
  EXPECT_FALSE(Readable());
  engine_->Continue();
}

// The answers come after `full`, and are read by a poll before the sleep: nobody releases anything afterwards.
TEST_F(EventRoom, TheAnswerToAReleasedRequestTellsOfItsSlot) {
  StartEngine().control().hold = 1;
  Open();
  EXPECT_EQ(PollTickets(client_.get(), &none_, 1), 0u);
  for (int i = 0; i < 2; ++i) {
    sutra_ticket ticket = 0;
    ASSERT_EQ(Submit(client_, "dropped", &ticket), SUTRA_OK);
    sutra_release(client_.get(), ticket);
  }
  EXPECT_EQ(Submit(client_, "no room", &extra_), SUTRA_FULL);
  engine_->control().hold = 0;
  ASSERT_TRUE(Readable(60'000));  // the answers are there: as if they had come a moment earlier
  for (int i = 0; i < 20; ++i) EXPECT_EQ(PollTickets(client_.get(), &none_, 1), 0u);
  EXPECT_TRUE(Readable(1000)) << "the event loop sleeps beside two free slots";
  EXPECT_EQ(Submit(client_, "room", &extra_), SUTRA_OK);
}

TEST_F(EventRoom, APollBeforeTheSleepLeavesANewLaneToBeRead) {
  StartEngine();
  Open(2);
  for (sutra_ticket& ticket : held_) ASSERT_EQ(Submit(client_, "held", &ticket), SUTRA_OK);
  for (const sutra_ticket ticket : held_) ASSERT_EQ(sutra_wait(client_.get(), ticket, 60'000, nullptr), SUTRA_OK);
  PollToSleep();
  {
    // The submit asks for the lane and looks once more; the helper thread may be so quick that this look finds it. The
    // mutex, which an attempt takes before its lane opens, holds it up until the loop was told that there is no room.
    const MutexLock lock(client_->attempt_mutex);
    EXPECT_EQ(Submit(client_, "no room", &extra_), SUTRA_FULL);
  }
  AwaitLanes(2);
  ASSERT_TRUE(Readable(60'000));
  for (int i = 0; i < 20; ++i) EXPECT_EQ(PollTickets(client_.get(), &none_, 1), 0u);
  EXPECT_TRUE(Readable(1000)) << "the event loop sleeps beside a new lane";
  EXPECT_EQ(Submit(client_, "room", &extra_), SUTRA_OK);
}

// The lane is full again by then, but its slots come free in turn: who sleeps on the descriptor learns of each.
TEST_F(EventRoom, AnotherThreadsSubmitDoesNotTakeWhatTheLoopIsTold) {
  Fill();
  EXPECT_EQ(Submit(client_, "no room", &extra_), SUTRA_FULL);
  ReleaseElsewhere(held_[1]);
  OnAnotherThread([&] { EXPECT_EQ(Submit(client_, "of a thread that was never told", &extra_), SUTRA_OK); });
  EXPECT_TRUE(Readable());
  engine_->Continue();
}

// The loop keeps a backlog of what other threads could not submit.
TEST_F(EventRoom, AThreadThatPollsMaySubmitForTheOneThatWasTold) {
  Fill();
  OnAnotherThread([&] { EXPECT_EQ(Submit(client_, "no room", &extra_), SUTRA_FULL); });
  ReleaseElsewhere(held_[1]);
  EXPECT_TRUE(Readable());
  EXPECT_EQ(PollTickets(client_.get(), &none_, 1), 0u);
  EXPECT_EQ(Submit(client_, "room", &extra_), SUTRA_OK);
  EXPECT_FALSE(Readable());
  engine_->Continue();
}

TEST_F(EventRoom, ACallerThatDropsItsTextEndsTheTellingWithASubmitOfNoTexts) {
  Fill();
  EXPECT_EQ(Submit(client_, "dropped", &extra_), SUTRA_FULL);
  ReleaseElsewhere(held_[1]);
  EXPECT_TRUE(Readable());
  size_t submitted = 0;
  EXPECT_EQ(sutra_submit_many(client_.get(), nullptr, nullptr, 0, nullptr, nullptr, &submitted), SUTRA_OK);
  EXPECT_FALSE(Readable());
  ReleaseElsewhere(held_[0]);
  EXPECT_FALSE(Readable()) << "nobody wants room any more";
  engine_->Continue();
}

// It is told to wait by other means, and submits when it likes: the descriptor would stay readable for ever.
TEST_F(EventRoom, ABlockingCallThatFindsNoRoomTellsNoEventLoop) {
  Fill();
  OnAnotherThread([&] {
    float vector[16];
    const sutra_options options = RequestOptions(30);
    EXPECT_NE(sutra_embed(client_.get(), "x", 1, &options, vector, nullptr), SUTRA_OK);
  });
  ReleaseElsewhere(held_[1]);
  EXPECT_FALSE(Readable());
  engine_->Continue();
}

// Without an engine there is no room either: a loop that was told so sleeps until there is one.
class EventRevival : public EventRoom {
 protected:
  // A submit finds no engine; the next one is there before the loop polls and sleeps.
  void SubmitBetween(sutra_status expected, const EchoOptions& next = {}) {
    sutra_info info = embed::Info();
    do {
      ASSERT_EQ(sutra_get_info(client_.get(), &info), SUTRA_OK);
    } while (info.lanes > 0);
    ASSERT_EQ(Submit(client_, "no engine", &extra_), expected);
    StartEngine(next).control().hold = 1;
  }
  void AwaitEngines(uint32_t engines) {
    sutra_info info = embed::Info();
    while (sutra_get_info(client_.get(), &info), info.engines < engines) std::this_thread::yield();
  }
  // Polls take the reminder of the new engine; what is left is what the submit was promised.
  void ExpectToldUntilSubmit() {
    AwaitEngines(2);
    ASSERT_TRUE(Readable(60'000));
    for (int i = 0; i < 20; ++i) EXPECT_EQ(PollTickets(client_.get(), &none_, 1), 0u);
    EXPECT_TRUE(Readable(1000)) << "the event loop sleeps beside an engine";
    EXPECT_EQ(Submit(client_, "next", &extra_), SUTRA_OK);
    PollToSleep();
    EXPECT_FALSE(Readable()) << "the caller took what it was told of";
  }
};

TEST_F(EventRevival, ALoopThatSleepsAfterEngineGoneIsToldOfTheNextEngine) {
  StartEngine();
  Open();
  PollToSleep();
  engine_->Kill();
  SubmitBetween(SUTRA_ENGINE_GONE);
  ExpectToldUntilSubmit();
}

TEST_F(EventRevival, ALoopThatSleepsAfterShuttingDownIsToldOfTheNextEngine) {
  StartEngine();
  Open();
  PollToSleep();
  engine_->control().drain = 1;
  SubmitBetween(SUTRA_SHUTTING_DOWN);
  ExpectToldUntilSubmit();
}

TEST_F(EventRevival, AnotherThreadsSubmitDoesNotTakeIt) {
  StartEngine();
  Open();
  PollToSleep();
  engine_->Kill();
  SubmitBetween(SUTRA_ENGINE_GONE);
  AwaitEngines(2);
  OnAnotherThread([&] {
    while (Submit(client_, "of a thread that was never told", &extra_) != SUTRA_OK) std::this_thread::yield();
  });
  ExpectToldUntilSubmit();
}

// No engine that the client would go on at: after the answer that says so there is nothing to be told of.
TEST_F(EventRevival, AnEngineOfAnotherModelEndsTheWish) {
  StartEngine();
  Open();
  PollToSleep();
  engine_->Kill();
  EchoOptions other;
  other.identity = std::string(64, 'f');
  SubmitBetween(SUTRA_ENGINE_GONE, other);
  sutra_result result = embed::Result();
  float vector[16];
  do {
    (void)sutra_embed(client_.get(), "x", 1, nullptr, vector, &result);
  } while (result.reason != SUTRA_REASON_OTHER_IDENTITY);
  ASSERT_TRUE(Readable(60'000));
  EXPECT_EQ(Submit(client_, "for good", &extra_), SUTRA_ENGINE_GONE);
  PollToSleep();
}

}  // namespace
}  // namespace sutra::test
