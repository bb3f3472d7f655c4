// Waiting for one, any or all of several tickets, and taking a vector out.
#include <poll.h>

#include <atomic>
#include <set>
#include <thread>

#include "producer/lane_pool.h"
#include "tests/producer/client_fixture.h"

namespace sutra::test {
namespace {

class ApiWait : public ClientTest {
 protected:
  // Tickets of as many texts as there are slots in `lanes` lanes of `slots`.
  std::vector<sutra_ticket> Fill(const ClientPtr& client, size_t count, const sutra_options* options = nullptr) {
    std::vector<sutra_ticket> tickets;
    while (tickets.size() < count) {
      sutra_ticket ticket = 0;
      if (Submit(client, TextOf(tickets.size()), &ticket, options) == SUTRA_OK) tickets.push_back(ticket);
    }
    return tickets;
  }
  static std::string TextOf(size_t i) { return "text " + std::to_string(i); }
  // The echo engine answers what it held at its next turn: somebody has to ring.
  void LetGo(const ClientPtr& client) {
    engine_->control().hold = 0;
    sutra_ticket wake = 0;
    if (Submit(client, "a turn", &wake) == SUTRA_OK) sutra_release(client.get(), wake);
  }
  static sutra_status WaitAny(const ClientPtr& client, const std::vector<sutra_ticket>& tickets, uint32_t timeout_ms,
                              size_t* index, sutra_result* result) {
    *result = embed::Result();
    return sutra_wait_any(client.get(), tickets.data(), tickets.size(), timeout_ms, index, result);
  }
};

TEST_F(ApiWait, AnyReturnsEachTicketOfEveryLaneAsItEnds) {
  EchoOptions reverse;
  reverse.reverse = true;
  StartEngine(reverse);
  const ClientPtr client = Attach(4, 3);
  for (int round = 0; round < 20; ++round) {
    std::vector<sutra_ticket> tickets = Fill(client, 12);
    std::vector<size_t> texts(12);
    for (size_t i = 0; i < 12; ++i) texts[i] = i;
    while (!tickets.empty()) {
      size_t index = 99;
      sutra_result result;
      ASSERT_EQ(WaitAny(client, tickets, 60'000, &index, &result), SUTRA_OK) << sutra_error_text();
      ASSERT_LT(index, tickets.size());
      EXPECT_EQ(result.status, SUTRA_OK);
      EXPECT_EQ(result.ticket, tickets[index]);
      EXPECT_TRUE(IsEchoOf(TextOf(texts[index]), result.vector, result.width));
      sutra_release(client.get(), tickets[index]);
      tickets.erase(tickets.begin() + static_cast<ptrdiff_t>(index));
      texts.erase(texts.begin() + static_cast<ptrdiff_t>(index));
    }
  }
  EXPECT_EQ(client->lane_count.load(), 3u);
}

TEST_F(ApiWait, AnyOfATicketThatWasReportedBeforeIsDoneAtOnce) {
  StartEngine();
  const ClientPtr client = Attach(4, 1);
  const std::vector<sutra_ticket> tickets = Fill(client, 1);
  ASSERT_EQ(sutra_wait(client.get(), tickets[0], 60'000, nullptr), SUTRA_OK);
  size_t index = 99;
  EXPECT_EQ(sutra_wait_any(client.get(), tickets.data(), 1, 0, &index, nullptr), SUTRA_OK);
  EXPECT_EQ(index, 0u);
}

TEST_F(ApiWait, AnyIsNotReadyWhenTheTimeIsOverAndTheTicketsLiveOn) {
  StartEngine().control().hold = 1;
  const ClientPtr client = Attach(2, 2);
  const std::vector<sutra_ticket> tickets = Fill(client, 4);
  size_t index = 99;
  sutra_result result;
  EXPECT_EQ(WaitAny(client, tickets, 0, &index, &result), SUTRA_NOT_READY);
  EXPECT_EQ(WaitAny(client, tickets, 20, &index, &result), SUTRA_NOT_READY);
  EXPECT_EQ(result.status, SUTRA_NOT_READY);
  EXPECT_EQ(index, 99u);
  sutra_release(client.get(), tickets[0]);
  LetGo(client);
  const std::vector<sutra_ticket> others(tickets.begin() + 1, tickets.end());
  for (int i = 0; i < 100 && index == 99; ++i) {
    engine_->control().hold = 0;
    sutra_ticket turn = 0;
    if (Submit(client, "turn", &turn) == SUTRA_OK) sutra_release(client.get(), turn);
    (void)WaitAny(client, others, 100, &index, &result);
  }
  EXPECT_LT(index, 3u);
  EXPECT_EQ(result.status, SUTRA_OK);
}

TEST_F(ApiWait, AnyEndsWithTheEarliestDeadlineOfItsTickets) {
  StartEngine().control().hold = 1;
  const ClientPtr client = Attach(4, 2);
  std::vector<sutra_ticket> tickets = Fill(client, 6);
  const sutra_options soon = RequestOptions(30);
  for (const sutra_ticket ticket : Fill(client, 1, &soon)) tickets.push_back(ticket);
  size_t index = 99;
  sutra_result result;
  ASSERT_EQ(WaitAny(client, tickets, 60'000, &index, &result), SUTRA_OK);
  EXPECT_EQ(index, 6u);
  EXPECT_EQ(result.status, SUTRA_DEADLINE_EXCEEDED);
  EXPECT_NE(std::string(sutra_error_text()).find("deadline"), std::string::npos) << sutra_error_text();
}

TEST_F(ApiWait, ThreadsMayWaitForTheSameTickets) {
  StartEngine();
  const ClientPtr client = Attach(8, 2);
  for (int round = 0; round < 30; ++round) {
    engine_->control().hold = 1;
    const std::vector<sutra_ticket> tickets = Fill(client, 12);
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        if (t % 2 == 0) {
          size_t index = 99;
          sutra_result result = embed::Result();
          if (sutra_wait_any(client.get(), tickets.data(), tickets.size(), 60'000, &index, &result) != SUTRA_OK ||
              index >= tickets.size() || !IsEchoOf(TextOf(index), result.vector, result.width)) {
            ++wrong;
          }
        } else if (sutra_wait_all(client.get(), tickets.data(), tickets.size(), 60'000, nullptr, 0) != SUTRA_OK) {
          ++wrong;
        }
      });
    }
    LetGo(client);
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong.load(), 0);
    for (const sutra_ticket ticket : tickets) sutra_release(client.get(), ticket);
  }
}

TEST_F(ApiWait, AllWritesEveryResultAndSaysOkOnlyIfEachIs) {
  StartEngine();
  const ClientPtr client = Attach(4, 3);
  const std::vector<sutra_ticket> tickets = Fill(client, 12);
  std::vector<sutra_result> results(12, embed::Result());
  ASSERT_EQ(sutra_wait_all(client.get(), tickets.data(), 12, 60'000, results.data(), sizeof(sutra_result)), SUTRA_OK);
  for (size_t i = 0; i < 12; ++i) {
    EXPECT_EQ(results[i].ticket, tickets[i]);
    EXPECT_TRUE(IsEchoOf(TextOf(i), results[i].vector, results[i].width));
  }
  EXPECT_EQ(sutra_wait_all(client.get(), tickets.data(), 12, 0, nullptr, 0), SUTRA_OK) << "they are done";
  EXPECT_EQ(sutra_wait_all(client.get(), nullptr, 0, 0, nullptr, 0), SUTRA_OK);
}

TEST_F(ApiWait, AllThatAreNotDoneInTimeAreNotReadyAndTheOthersAreThere) {
  StartEngine();
  const ClientPtr client = Attach(8, 1);
  std::vector<sutra_ticket> tickets = Fill(client, 3);
  ASSERT_EQ(sutra_wait(client.get(), tickets[2], 60'000, nullptr), SUTRA_OK);
  engine_->Stop();
  for (const sutra_ticket ticket : Fill(client, 1)) tickets.insert(tickets.begin(), ticket);
  std::vector<sutra_result> results(4, embed::Result());
  EXPECT_EQ(sutra_wait_all(client.get(), tickets.data(), 4, 20, results.data(), sizeof(sutra_result)), SUTRA_NOT_READY);
  EXPECT_EQ(results[0].status, SUTRA_NOT_READY);
  EXPECT_EQ(results[0].vector, nullptr);
  EXPECT_EQ(results[3].status, SUTRA_OK);
  engine_->Continue();
  EXPECT_EQ(sutra_wait_all(client.get(), tickets.data(), 4, 60'000, results.data(), sizeof(sutra_result)), SUTRA_OK);
}

TEST_F(ApiWait, AllSaysAndExplainsTheFirstThatFailed) {
  StartEngine();
  const ClientPtr client = Attach(8, 1);
  std::vector<sutra_ticket> tickets = Fill(client, 2);
  ASSERT_EQ(sutra_wait_all(client.get(), tickets.data(), 2, 60'000, nullptr, 0), SUTRA_OK);
  engine_->Stop();
  const sutra_options soon = RequestOptions(20);
  sutra_ticket late = 0;
  ASSERT_EQ(Submit(client, "late", &late, &soon), SUTRA_OK);
  tickets.insert(tickets.begin() + 1, late);
  std::vector<sutra_result> results(3, embed::Result());
  EXPECT_EQ(sutra_wait_all(client.get(), tickets.data(), 3, 60'000, results.data(), sizeof(sutra_result)),
            SUTRA_DEADLINE_EXCEEDED);
  EXPECT_NE(std::string(sutra_error_text()).find("no answer until the deadline"), std::string::npos);
  EXPECT_EQ(results[0].status, SUTRA_OK);
  EXPECT_EQ(results[1].status, SUTRA_DEADLINE_EXCEEDED);
  EXPECT_EQ(results[2].status, SUTRA_OK);
  engine_->Continue();
}

TEST_F(ApiWait, OneStaleTicketAmongManyIsABadArgumentAndNothingIsWaitedFor) {
  StartEngine().control().hold = 1;
  const ClientPtr client = Attach(4, 1);
  std::vector<sutra_ticket> tickets = Fill(client, 3);
  sutra_release(client.get(), tickets[1]);
  size_t index = 99;
  sutra_result result;
  EXPECT_EQ(WaitAny(client, tickets, 60'000, &index, &result), SUTRA_BAD_ARGUMENT);
  EXPECT_EQ(result.status, SUTRA_BAD_ARGUMENT);
  EXPECT_EQ(index, 99u);
  std::vector<sutra_result> results(3, embed::Result());
  EXPECT_EQ(sutra_wait_all(client.get(), tickets.data(), 3, 60'000, results.data(), sizeof(sutra_result)),
            SUTRA_BAD_ARGUMENT);
  for (const sutra_result& one : results) EXPECT_EQ(one.status, SUTRA_BAD_ARGUMENT);
  EXPECT_EQ(sutra_wait_any(client.get(), tickets.data(), 0, 0, &index, nullptr), SUTRA_BAD_ARGUMENT);
  float vector[16];
  EXPECT_EQ(sutra_take(client.get(), tickets[1], vector, 16, &result), SUTRA_BAD_ARGUMENT);
}

TEST_F(ApiWait, MoreTicketsThanMemoryHoldsAreABadArgumentAtOnce) {
  StartEngine();
  const ClientPtr client = Attach(4, 1);
  const sutra_ticket ticket = 1;
  EXPECT_EQ(sutra_wait_all(client.get(), &ticket, SIZE_MAX, 60'000, nullptr, 0), SUTRA_BAD_ARGUMENT);
  size_t index = 99;
  EXPECT_EQ(sutra_wait_any(client.get(), &ticket, SIZE_MAX, 60'000, &index, nullptr), SUTRA_BAD_ARGUMENT);
  EXPECT_EQ(index, 99u);
}

TEST_F(ApiWait, TakeCopiesTheVectorAndReleasesTheTicket) {
  StartEngine();
  const ClientPtr client = Attach(2, 1);
  for (size_t i = 0; i < 10; ++i) {
    sutra_options options = RequestOptions();
    options.tag = i;
    sutra_ticket ticket = 0;
    ASSERT_EQ(Submit(client, TextOf(i), &ticket, &options), SUTRA_OK) << "its slot came back";
    float vector[16];
    sutra_result result = embed::Result();
    sutra_status status;
    while ((status = sutra_take(client.get(), ticket, vector, 16, &result)) == SUTRA_NOT_READY) {
      EXPECT_EQ(result.tag, i);
      EXPECT_EQ(result.vector, nullptr);
      std::this_thread::yield();
    }
    ASSERT_EQ(status, SUTRA_OK);
    EXPECT_EQ(result.vector, vector);
    EXPECT_EQ(result.data, vector);
    EXPECT_TRUE(IsEchoOf(TextOf(i), vector, 16));
    EXPECT_EQ(sutra_wait(client.get(), ticket, 0, nullptr), SUTRA_BAD_ARGUMENT) << "released";
  }
}

TEST_F(ApiWait, TakeWithoutRoomLeavesTheTicket) {
  StartEngine();
  const ClientPtr client = Attach(2, 1);
  const std::vector<sutra_ticket> tickets = Fill(client, 1);
  ASSERT_EQ(sutra_wait(client.get(), tickets[0], 60'000, nullptr), SUTRA_OK);
  float vector[16] = {};
  sutra_result result = embed::Result();
  EXPECT_EQ(sutra_take(client.get(), tickets[0], vector, 15, &result), SUTRA_BAD_ARGUMENT);
  EXPECT_EQ(result.vector, nullptr);
  EXPECT_EQ(vector[0], 0.0F);
  EXPECT_NE(std::string(sutra_error_text()).find("15"), std::string::npos) << sutra_error_text();
  EXPECT_EQ(sutra_take(client.get(), tickets[0], vector, 16, nullptr), SUTRA_OK);
  EXPECT_TRUE(IsEchoOf(TextOf(0), vector, 16));
}

TEST_F(ApiWait, TakeReleasesATicketThatFailed) {
  StartEngine().control().hold = 1;
  const ClientPtr client = Attach(2, 1);
  const sutra_options soon = RequestOptions(1);
  const std::vector<sutra_ticket> tickets = Fill(client, 1, &soon);
  float vector[16] = {};
  sutra_status status;
  while ((status = sutra_take(client.get(), tickets[0], vector, 0, nullptr)) == SUTRA_NOT_READY) poll(nullptr, 0, 1);
  EXPECT_EQ(status, SUTRA_DEADLINE_EXCEEDED) << "no room is needed for it";
  EXPECT_EQ(sutra_take(client.get(), tickets[0], vector, 16, nullptr), SUTRA_BAD_ARGUMENT);
}

TEST_F(ApiWait, FreeSlotsAreWhatASubmitWouldTake) {
  StartEngine();
  const ClientPtr client = Attach(4, 2);
  EXPECT_EQ(sutra_free_slots(client.get()), 4u);
  std::vector<sutra_ticket> tickets = Fill(client, 3);
  EXPECT_EQ(sutra_free_slots(client.get()), 1u);
  for (const sutra_ticket ticket : Fill(client, 2)) tickets.push_back(ticket);
  EXPECT_EQ(sutra_free_slots(client.get()), 3u) << "of two lanes";
  ASSERT_EQ(sutra_wait_all(client.get(), tickets.data(), tickets.size(), 60'000, nullptr, 0), SUTRA_OK);
  EXPECT_EQ(sutra_free_slots(client.get()), 3u) << "a ticket holds its slot";
  for (const sutra_ticket ticket : tickets) sutra_release(client.get(), ticket);
  EXPECT_EQ(sutra_free_slots(client.get()), 8u);
}

TEST_F(ApiWait, SlotsOfReleasedRequestsAreFreeOnceTheyAreAnswered) {
  StartEngine();
  const ClientPtr client = Attach(8, 1);
  engine_->Stop();
  for (const sutra_ticket ticket : Fill(client, 8)) sutra_release(client.get(), ticket);
  EXPECT_EQ(sutra_free_slots(client.get()), 0u);
  engine_->Continue();
  while (sutra_free_slots(client.get()) < 8) std::this_thread::yield();
}

TEST_F(ApiWait, ThereAreNoFreeSlotsWithoutAnEngine) {
  StartEngine();
  const ClientPtr client = Attach(8, 1);
  engine_->Kill();
  while (sutra_free_slots(client.get()) != 0) std::this_thread::yield();
  EXPECT_EQ(sutra_free_slots(nullptr), 0u);
}

}  // namespace
}  // namespace sutra::test
