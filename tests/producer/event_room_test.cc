// Room after SUTRA_FULL: the event descriptor is readable from the moment that there is some until it is asked for.
#include <poll.h>

#include <functional>
#include <thread>

#include "producer/lane_pool.h"
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
  EXPECT_EQ(Submit(client_, "no room", &extra_), SUTRA_FULL);  // asks for the lane
  while (client_->lane_count.load() < 2) std::this_thread::yield();
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

}  // namespace
}  // namespace sutra::test
