// Tickets whose texts are in the hot table: done at once, for every call that finds finished tickets, and for as long
// as the caller keeps them.
#include "producer/hot_ticket.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <set>
#include <string>
#include <vector>

#include "tests/producer/client_fixture.h"

namespace sutra::test {
namespace {

constexpr uint32_t kWidth = 16;

class HotTicket : public ClientTest {
 protected:
  void SetUp() override {
    ClientTest::SetUp();
    EchoOptions options;
    options.width = kWidth;
    options.hot_slots = 512;
    StartEngine(options);
    client_ = Attach(8, 1);
    for (int i = 0; i < kTexts; ++i) Warm(Text(i));
    taken_ = Taken();
  }
  void TearDown() override {
    client_.reset();
    ClientTest::TearDown();
  }

  static constexpr int kTexts = 8;
  static std::string Text(int i) { return "hot text " + std::to_string(i); }
  void Warm(const std::string& text) { EXPECT_EQ(Embed(client_, text), SUTRA_OK) << sutra_error_text(); }
  uint64_t Taken() { return engine_->control().taken.load(std::memory_order_relaxed); }
  sutra_ticket SubmitHot(int i, uint64_t tag = 0) {
    sutra_options options = RequestOptions();
    options.tag = tag;
    sutra_ticket ticket = 0;
    EXPECT_EQ(Submit(client_, Text(i), &ticket, &options), SUTRA_OK) << sutra_error_text();
    EXPECT_NE(ticket, 0u);
    return ticket;
  }
  static void ExpectHot(const sutra_result& result, int i, uint64_t tag = 0) {
    EXPECT_EQ(result.status, SUTRA_OK);
    EXPECT_EQ(result.source, SUTRA_SOURCE_HOT_TABLE);
    EXPECT_EQ(result.tag, tag);
    EXPECT_EQ(result.width, kWidth);
    EXPECT_EQ(result.token_count, Text(i).size());
    EXPECT_EQ(result.data, result.vector);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(result.vector) % 64, 0u);
    ASSERT_NE(result.vector, nullptr);
    EXPECT_TRUE(IsEchoOf(Text(i), result.vector, kWidth));
  }
  ClientPtr client_;
  uint64_t taken_ = 0;
};

TEST_F(HotTicket, IsDoneAtOnceAndInPlace) {
  const sutra_ticket ticket = SubmitHot(1, 7);
  sutra_result result = embed::Result();
  EXPECT_EQ(sutra_wait(client_.get(), ticket, 0, &result), SUTRA_OK);
  ExpectHot(result, 1, 7);
  EXPECT_EQ(result.ticket, ticket);
  const float* const vector = result.vector;
  EXPECT_EQ(sutra_wait(client_.get(), ticket, 0, &result), SUTRA_OK) << "again";
  EXPECT_EQ(result.vector, vector);
  EXPECT_EQ(Taken(), taken_) << "the engine knows nothing of it";
  sutra_release(client_.get(), ticket);
  EXPECT_EQ(sutra_wait(client_.get(), ticket, 0, nullptr), SUTRA_BAD_ARGUMENT);
}

TEST_F(HotTicket, IsReportedByPollOnceAndNotAfterAWait) {
  std::set<sutra_ticket> tickets;
  for (int i = 0; i < 5; ++i) tickets.insert(SubmitHot(i));
  const sutra_ticket waited = SubmitHot(5);
  EXPECT_EQ(sutra_wait(client_.get(), waited, 0, nullptr), SUTRA_OK);
  std::vector<sutra_result> results(3, embed::Result());
  EXPECT_EQ(sutra_poll(client_.get(), results.data(), sizeof(sutra_result), 3), 3u);
  for (const sutra_result& result : results) EXPECT_EQ(tickets.erase(result.ticket), 1u);
  EXPECT_EQ(sutra_poll(client_.get(), results.data(), sizeof(sutra_result), 3), 2u);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(tickets.erase(results[i].ticket), 1u);
  EXPECT_EQ(sutra_poll(client_.get(), results.data(), sizeof(sutra_result), 3), 0u);
}

TEST_F(HotTicket, SlotsThatGoRoundAreReportedForTheirLastTicket) {
  for (int round = 0; round < 100; ++round) {
    const sutra_ticket first = SubmitHot(0);
    sutra_release(client_.get(), first);
    const sutra_ticket second = SubmitHot(round % kTexts);  // the same slot, whose place in the queue is still there
    sutra_result result = embed::Result();
    ASSERT_EQ(sutra_poll(client_.get(), &result, sizeof(result), 1), 1u);
    EXPECT_EQ(result.ticket, second);
    ExpectHot(result, round % kTexts);
    EXPECT_EQ(sutra_poll(client_.get(), &result, sizeof(result), 1), 0u);
    sutra_release(client_.get(), second);
  }
}

TEST_F(HotTicket, WaitsForSeveralFindItAmongOthers) {
  engine_->control().hold.store(1, std::memory_order_relaxed);
  sutra_ticket tickets[2] = {};
  ASSERT_EQ(Submit(client_, "cold", &tickets[0]), SUTRA_OK);
  tickets[1] = SubmitHot(2);
  size_t index = 9;
  sutra_result result = embed::Result();
  ASSERT_EQ(sutra_wait_any(client_.get(), tickets, 2, 0, &index, &result), SUTRA_OK);
  EXPECT_EQ(index, 1u);
  ExpectHot(result, 2);
  std::vector<sutra_result> results(2, embed::Result());
  EXPECT_EQ(sutra_wait_all(client_.get(), tickets, 2, 0, results.data(), sizeof(sutra_result)), SUTRA_NOT_READY);
  ExpectHot(results[1], 2);
  engine_->control().hold.store(0, std::memory_order_relaxed);
  EXPECT_EQ(sutra_wait_all(client_.get(), tickets, 2, 20'000, results.data(), sizeof(sutra_result)), SUTRA_OK);
  EXPECT_EQ(results[0].source, SUTRA_SOURCE_MODEL);
}

TEST_F(HotTicket, IsTakenWithItsVector) {
  const sutra_ticket ticket = SubmitHot(3);
  float vector[kWidth] = {};
  sutra_result result = embed::Result();
  EXPECT_EQ(sutra_take(client_.get(), ticket, vector, kWidth - 1, &result), SUTRA_BAD_ARGUMENT) << "no room";
  EXPECT_EQ(sutra_take(client_.get(), ticket, vector, kWidth, &result), SUTRA_OK);
  EXPECT_EQ(result.vector, vector);
  EXPECT_TRUE(IsEchoOf(Text(3), vector, kWidth));
  EXPECT_EQ(sutra_take(client_.get(), ticket, vector, kWidth, &result), SUTRA_BAD_ARGUMENT) << "released";
}

TEST_F(HotTicket, TellsTheEventLoop) {
  const int fd = sutra_event_fd(client_.get());
  ASSERT_GE(fd, 0);
  std::vector<sutra_result> results(8, embed::Result());
  const auto readable = [fd](int timeout_ms) {
    pollfd item = {fd, POLLIN, 0};
    return poll(&item, 1, timeout_ms) == 1;
  };
  // Armed: a poll that finds less than it has room for, until nothing reminds of anything.
  while (readable(0)) (void)sutra_poll(client_.get(), results.data(), sizeof(sutra_result), 8);
  const sutra_ticket ticket = SubmitHot(4);
  ASSERT_TRUE(readable(kWakeMsMax));
  ASSERT_EQ(sutra_poll(client_.get(), results.data(), sizeof(sutra_result), 8), 1u);
  EXPECT_EQ(results[0].ticket, ticket);
  ExpectHot(results[0], 4);
  sutra_release(client_.get(), ticket);
}

TEST_F(HotTicket, IsNotEndedByACancelWhichComesTooLate) {
  const sutra_ticket one = SubmitHot(1), other = SubmitHot(2);
  EXPECT_EQ(sutra_cancel(client_.get(), one), SUTRA_OK);
  sutra_cancel_all(client_.get());
  sutra_result result = embed::Result();
  EXPECT_EQ(sutra_wait(client_.get(), one, 0, &result), SUTRA_OK);
  ExpectHot(result, 1);
  EXPECT_EQ(sutra_wait(client_.get(), other, 0, &result), SUTRA_OK);
  ExpectHot(result, 2);
  sutra_release(client_.get(), one);
  Warm("the lane still serves");
}

TEST_F(HotTicket, OutlivesItsEngineAndTheNextOne) {
  const sutra_ticket ticket = SubmitHot(1, 5);
  for (int lives = 0; lives < 2; ++lives) {
    EchoOptions options;
    options.width = kWidth;
    options.hot_slots = 512;
    StartEngine(options);
    Warm("the next engine's");
    sutra_result result = embed::Result();
    ASSERT_EQ(sutra_wait(client_.get(), ticket, 0, &result), SUTRA_OK);
    ExpectHot(result, 1, 5);
  }
  sutra_release(client_.get(), ticket);
}

TEST_F(HotTicket, HoldsASlotUntilItsReleaseWhichIsFreeAtOnce) {
  engine_->control().deaf.store(1, std::memory_order_relaxed);  // it answers nothing, and gives no slot back
  std::vector<sutra_ticket> tickets;
  for (int i = 0; i < 8; ++i) tickets.push_back(SubmitHot(i));
  sutra_ticket more = 0;
  EXPECT_EQ(Submit(client_, Text(0), &more), SUTRA_FULL);
  EXPECT_EQ(sutra_free_slots(client_.get()), 0u);
  for (const sutra_ticket ticket : tickets) sutra_release(client_.get(), ticket);
  EXPECT_EQ(sutra_free_slots(client_.get()), 8u);
  for (int i = 0; i < 100; ++i) sutra_release(client_.get(), SubmitHot(i % kTexts));
  EXPECT_EQ(Taken(), taken_);
}

TEST_F(HotTicket, ManyAreSubmittedBesideColdOnes) {
  Texts texts;
  for (int i = 0; i < 8; ++i) texts.Add(i % 2 == 0 ? Text(i) : "cold " + std::to_string(i));
  texts.Seal();
  std::vector<sutra_ticket> tickets(8);
  size_t submitted = 0;
  ASSERT_EQ(sutra_submit_many(client_.get(), texts.pointers.data(), texts.sizes.data(), 8, nullptr, tickets.data(),
                              &submitted),
            SUTRA_OK);
  ASSERT_EQ(submitted, 8u);
  std::vector<sutra_result> results(8, embed::Result());
  ASSERT_EQ(sutra_wait_all(client_.get(), tickets.data(), 8, 20'000, results.data(), sizeof(sutra_result)), SUTRA_OK);
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_TRUE(IsEchoOf(texts.strings[i], results[i].vector, kWidth)) << i;
    EXPECT_EQ(results[i].source, i % 2 == 0 ? SUTRA_SOURCE_HOT_TABLE : SUTRA_SOURCE_MODEL);
    sutra_release(client_.get(), tickets[i]);
  }
}

}  // namespace
}  // namespace sutra::test
