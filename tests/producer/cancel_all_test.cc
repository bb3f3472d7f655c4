// sutra_cancel_all: from other threads and from signal handlers, whatever the engine does.
#include "producer/cancel_all.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

#include <atomic>
#include <functional>
#include <set>
#include <thread>

#include "tests/producer/client_fixture.h"
#include "tests/producer/sleepers.h"

namespace sutra::test {
namespace {

constexpr uint32_t kForEverMs = 3'600'000;

class CancelAllTest : public ClientTest {
 protected:
  // An engine that never answers, and a client of it.
  ClientPtr Silent(uint32_t slots, uint32_t lanes_max) {
    StartEngine().control().hold = 1;
    return Attach(slots, lanes_max);
  }
  std::vector<sutra_ticket> Fill(const ClientPtr& client, size_t count) {
    const sutra_options patient = RequestOptions(kForEverMs);
    std::vector<sutra_ticket> tickets;
    while (tickets.size() < count) {
      sutra_ticket ticket = 0;
      if (Submit(client, "held", &ticket, &patient) == SUTRA_OK) tickets.push_back(ticket);
    }
    return tickets;
  }
  static uint32_t Sleepers(const ClientPtr& client) {
    uint32_t sleepers = 0;
    for (uint32_t i = 0; i < client->lane_count.load(); ++i) {
      sleepers += SleepersOf(client->lanes[i].load());
    }
    return sleepers;
  }
  static uint32_t RoomWaiters(const ClientPtr& client) {
    const MutexLock lock(client->signals.mutex);
    return client->signals.waiters;
  }
  // Runs a call on another thread, and cancels once it sleeps. RETURNS its status, and its explanation in why_.
  sutra_status CancelDuring(const ClientPtr& client, const std::function<sutra_status()>& call,
                            const std::function<bool()>& sleeps) {
    sutra_status status = SUTRA_OK;
    std::thread thread([&] {
      status = call();
      why_ = sutra_error_text();
    });
    while (!sleeps()) std::this_thread::yield();
    sutra_cancel_all(client.get());
    thread.join();
    return status;
  }

  std::string why_;
};

TEST_F(CancelAllTest, EndsEveryKindOfWaitWhateverTheEngineDoes) {
  const ClientPtr client = Silent(2, 2);
  const auto asleep = [&] { return Sleepers(client) != 0; };
  const sutra_options patient = RequestOptions(kForEverMs);
  float vectors[8 * 16];
  const Texts texts = ManyTexts(8);
  sutra_result result = embed::Result();
  std::vector<sutra_ticket> tickets = Fill(client, 2);
  EXPECT_EQ(CancelDuring(
                client, [&] { return sutra_wait(client.get(), tickets[0], kForEverMs, &result); }, asleep),
            SUTRA_CANCELLED);
  EXPECT_EQ(result.status, SUTRA_CANCELLED);
  EXPECT_EQ(result.vector, nullptr);
  EXPECT_NE(why_.find("sutra_cancel_all"), std::string::npos) << why_;
  EXPECT_EQ(sutra_wait(client.get(), tickets[1], kForEverMs, nullptr), SUTRA_CANCELLED) << "all tickets";
  tickets = Fill(client, 2);  // the others still hold their slots: of a second lane
  size_t index = 99;
  EXPECT_EQ(
      CancelDuring(
          client, [&] { return sutra_wait_any(client.get(), tickets.data(), 2, kForEverMs, &index, &result); }, asleep),
      SUTRA_OK);
  EXPECT_LT(index, 2u);
  EXPECT_EQ(result.status, SUTRA_CANCELLED);
  engine_->control().hold = 0;
  EXPECT_EQ(sutra_wait_all(client.get(), tickets.data(), 2, kForEverMs, nullptr, 0), SUTRA_CANCELLED);

  const ClientPtr other = Silent(2, 1);
  const auto asleep_there = [&] { return Sleepers(other) != 0; };
  tickets = Fill(other, 1);
  EXPECT_EQ(
      CancelDuring(
          other, [&] { return sutra_wait_all(other.get(), tickets.data(), 1, kForEverMs, nullptr, 0); }, asleep_there),
      SUTRA_CANCELLED);
  EXPECT_EQ(CancelDuring(
                other, [&] { return sutra_embed(other.get(), "x", 1, &patient, vectors, &result); }, asleep_there),
            SUTRA_CANCELLED);
  EXPECT_EQ(result.status, SUTRA_CANCELLED);
  EXPECT_NE(why_.find("sutra_cancel_all"), std::string::npos) << why_;
}

TEST_F(CancelAllTest, EndsABatchWithTheVectorsOfTheTextsThatWereDone) {
  constexpr size_t kTexts = 50'000;
  const ClientPtr client = Silent(4, 1);
  const sutra_options patient = RequestOptions(kForEverMs);
  const Texts texts = ManyTexts(kTexts);
  std::vector<float> vectors(kTexts * 16);
  std::vector<sutra_result> results(kTexts, embed::Result());
  engine_->control().hold = 0;
  EXPECT_EQ(CancelDuring(
                client,
                [&] {
                  return sutra_embed_batch(client.get(), texts.pointers.data(), texts.sizes.data(), kTexts, &patient,
                                           nullptr, vectors.data(), results.data(), sizeof(sutra_result));
                },
                [&] {
                  if (engine_->control().answered.load() >= 10) engine_->control().hold = 1;
                  return engine_->control().hold != 0 && Sleepers(client) != 0;
                }),
            SUTRA_CANCELLED);
  EXPECT_NE(why_.find("sutra_cancel_all"), std::string::npos) << why_;
  size_t done = 0;
  for (size_t i = 0; i < kTexts; ++i) {
    if (results[i].status == SUTRA_OK) {
      EXPECT_TRUE(IsEchoOf(texts.strings[i], &vectors[i * 16], 16));
      ++done;
    } else {
      EXPECT_EQ(results[i].status, SUTRA_CANCELLED) << i;
    }
  }
  EXPECT_GE(done, 6u) << "at most the four in flight were answered and not yet looked at";
}

TEST_F(CancelAllTest, EndsCallsThatWaitForASlot) {
  const ClientPtr client = Silent(2, 1);
  const std::vector<sutra_ticket> tickets = Fill(client, 2);
  const sutra_options patient = RequestOptions(kForEverMs);
  float vectors[32];
  const Texts texts = ManyTexts(2);
  const auto waits = [&] { return RoomWaiters(client) != 0; };
  EXPECT_EQ(CancelDuring(
                client, [&] { return sutra_embed(client.get(), "x", 1, &patient, vectors, nullptr); }, waits),
            SUTRA_CANCELLED);
  EXPECT_NE(why_.find("sutra_cancel_all"), std::string::npos) << why_;
  EXPECT_EQ(CancelDuring(
                client,
                [&] {
                  return sutra_embed_batch(client.get(), texts.pointers.data(), texts.sizes.data(), 2, &patient,
                                           nullptr, vectors, nullptr, 0);
                },
                waits),
            SUTRA_CANCELLED);
}

TEST_F(CancelAllTest, WhatIsSubmittedAfterItIsNotCancelled) {
  const ClientPtr client = Silent(8, 1);
  const std::vector<sutra_ticket> before = Fill(client, 2);
  sutra_cancel_all(client.get());
  const std::vector<sutra_ticket> after = Fill(client, 2);
  for (const sutra_ticket ticket : before) {
    EXPECT_EQ(sutra_wait(client.get(), ticket, 0, nullptr), SUTRA_CANCELLED) << "at once, on the same thread";
  }
  for (const sutra_ticket ticket : after) {
    EXPECT_EQ(sutra_wait(client.get(), ticket, 20, nullptr), SUTRA_NOT_READY);
  }
  engine_->control().hold = 0;
  EXPECT_EQ(Embed(client, "a turn"), SUTRA_OK);
  for (const sutra_ticket ticket : after) EXPECT_EQ(sutra_wait(client.get(), ticket, kForEverMs, nullptr), SUTRA_OK);
  for (const sutra_ticket ticket : before) {
    EXPECT_EQ(sutra_wait(client.get(), ticket, 0, nullptr), SUTRA_CANCELLED) << "a request ends once";
  }
}

TEST_F(CancelAllTest, WhatWasAnsweredBeforeItKeepsItsVector) {
  StartEngine();
  const ClientPtr client = Attach(4, 1);
  const std::vector<sutra_ticket> tickets = Fill(client, 1);
  while (engine_->control().answered.load() == 0) std::this_thread::yield();
  poll(nullptr, 0, 5);  // the count comes before the answer
  EXPECT_EQ(Embed(client, "behind it"), SUTRA_OK);
  sutra_cancel_all(client.get());
  EXPECT_EQ(sutra_wait(client.get(), tickets[0], 0, nullptr), SUTRA_OK) << "nobody had looked at it yet";
}

TEST_F(CancelAllTest, TheEngineIsToldAndTheSlotsReturn) {
  const ClientPtr client = Silent(4, 1);
  const std::vector<sutra_ticket> tickets = Fill(client, 4);
  sutra_cancel_all(client.get());
  for (const sutra_ticket ticket : tickets) sutra_release(client.get(), ticket);
  EXPECT_EQ(sutra_free_slots(client.get()), 0u) << "the engine has them";
  engine_->control().hold = 0;
  EXPECT_EQ(Embed(client, "waits for a slot"), SUTRA_OK);
  EXPECT_EQ(engine_->control().cancelled.load(), 4u);
  EXPECT_EQ(sutra_free_slots(client.get()), 4u);
}

// Without a look of the caller: the helper thread ends what nobody waits for.
TEST_F(CancelAllTest, TheEngineIsToldOfTicketsThatNobodyLooksAt) {
  const ClientPtr client = Silent(4, 1);
  const std::vector<sutra_ticket> tickets = Fill(client, 4);
  sutra_cancel_all(client.get());
  client::ClientLane* lane = client->lanes[0].load();
  const client::Attachment* home = client::HomeOf(lane, 0);
  const auto told = [&] {
    uint32_t count = 0;
    for (uint32_t i = 0; i < 4; ++i) {
      const RequestDescriptor& request = home->connection.mapping.request.request(i);
      count +=
          request.cancel_sequence.load(std::memory_order_relaxed) == request.sequence.load(std::memory_order_relaxed);
    }
    return count;
  };
  while (told() < 4) std::this_thread::yield();
}

TEST_F(CancelAllTest, AnEventLoopIsWokenAndToldOfEachTicketOnce) {
  const ClientPtr client = Silent(4, 2);
  const int event_fd = sutra_event_fd(client.get());
  ASSERT_GE(event_fd, 0);
  const std::vector<sutra_ticket> tickets = Fill(client, 6);
  std::vector<sutra_result> results(8, embed::Result());
  pollfd item = {event_fd, POLLIN, 0};
  do {
    EXPECT_EQ(sutra_poll(client.get(), results.data(), sizeof(sutra_result), 8), 0u);
  } while (poll(&item, 1, 0) == 1);  // a new lane was told
  sutra_cancel_all(client.get());
  ASSERT_EQ(poll(&item, 1, kWakeMsMax), 1);
  std::set<sutra_ticket> found;
  while (found.size() < tickets.size()) {
    const size_t count = sutra_poll(client.get(), results.data(), sizeof(sutra_result), 8);
    for (size_t i = 0; i < count; ++i) {
      EXPECT_EQ(results[i].status, SUTRA_CANCELLED);
      EXPECT_TRUE(found.insert(results[i].ticket).second);
    }
  }
  while (poll(&item, 1, 0) == 1) EXPECT_EQ(sutra_poll(client.get(), results.data(), sizeof(sutra_result), 8), 0u);
}

TEST_F(CancelAllTest, APollOnTheSameThreadReportsWhatItEndedAtOnce) {
  const ClientPtr client = Silent(4, 1);
  Fill(client, 3);
  std::vector<sutra_result> results(4, embed::Result());
  EXPECT_EQ(sutra_poll(client.get(), results.data(), sizeof(sutra_result), 4), 0u);
  sutra_cancel_all(client.get());
  EXPECT_EQ(sutra_poll(client.get(), results.data(), sizeof(sutra_result), 4), 3u);
}

TEST_F(CancelAllTest, KeepsErrnoAndDoesNothingWithoutAClientOrInAForkedChild) {
  const ClientPtr client = Silent(4, 1);
  const std::vector<sutra_ticket> tickets = Fill(client, 1);
  errno = 4711;
  sutra_cancel_all(nullptr);
  EXPECT_EQ(errno, 4711);
  const pid_t child = fork();
  if (child == 0) {
    sutra_cancel_all(client.get());
    _exit(errno == 4711 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(sutra_wait(client.get(), tickets[0], 20, nullptr), SUTRA_NOT_READY);
  errno = 4711;
  sutra_cancel_all(client.get());
  EXPECT_EQ(errno, 4711);
}

// A timer's signals hit whatever thread runs, in the middle of every call.
std::atomic<sutra_client*> storm_client{nullptr};
std::atomic<uint64_t> storm_signals{0};
void OnAlarm(int) {
  if (sutra_client* client = storm_client.load(); client != nullptr) sutra_cancel_all(client);
  storm_signals.fetch_add(1);
}

class CancelStorm : public CancelAllTest {
 protected:
  void SetUp() override {
    CancelAllTest::SetUp();
    struct sigaction action = {};
    action.sa_handler = OnAlarm;
    action.sa_flags = SA_RESTART;
    sigaction(SIGVTALRM, &action, &before_);
    sigaction(SIGUSR2, &action, nullptr);
  }
  void TearDown() override {
    CancelAllTest::TearDown();
    sigaction(SIGVTALRM, &before_, nullptr);
    signal(SIGUSR2, SIG_DFL);
  }

  // Every call, over and over, on threads that the signals hit, until `rounds` signals came.
  void Run(const ClientPtr& client, uint64_t signals) {
    storm_signals.store(0);
    storm_client.store(client.get());
    std::vector<std::thread> threads;
    std::atomic<int> ended{0};
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        while (storm_signals.load() < signals) Round(client, t);
        ++ended;
      });
    }
    // Also to threads that sleep, which a timer of consumed time would not hit.
    while (storm_signals.load() < signals) {
      for (std::thread& thread : threads) pthread_kill(thread.native_handle(), SIGUSR2);
      poll(nullptr, 0, 1);
    }
    while (ended.load() < 4) {  // a call may have begun behind the last signal
      sutra_cancel_all(client.get());
      poll(nullptr, 0, 1);
    }
    for (std::thread& thread : threads) thread.join();
    storm_client.store(nullptr);
  }

  static constexpr size_t kBatch = 20;

  void Round(const ClientPtr& client, int t) {
    const sutra_options patient = RequestOptions(kForEverMs);
    const Texts texts = ManyTexts(kBatch);
    std::vector<float> vectors(kBatch * 16);
    std::vector<sutra_result> results(kBatch, embed::Result());
    if (t == 0) {
      const sutra_status status =
          sutra_embed(client.get(), texts.pointers[3], texts.sizes[3], &patient, vectors.data(), &results[3]);
      return Judge(status, texts.strings[3], vectors.data());
    }
    if (t == 1) {
      (void)sutra_embed_batch(client.get(), texts.pointers.data(), texts.sizes.data(), kBatch, &patient, nullptr,
                              vectors.data(), results.data(), sizeof(sutra_result));
      for (size_t i = 0; i < kBatch; ++i) Judge(results[i].status, texts.strings[i], &vectors[i * 16]);
      return;
    }
    sutra_ticket tickets[3] = {};
    size_t count = 0, index = 0;
    (void)sutra_submit_many(client.get(), texts.pointers.data(), texts.sizes.data(), 3, &patient, tickets, &count);
    if (count == 0) return std::this_thread::yield();
    if (t == 2) {
      (void)sutra_wait_any(client.get(), tickets, count, kForEverMs, &index, nullptr);
      (void)sutra_wait_all(client.get(), tickets, count, kForEverMs, results.data(), sizeof(sutra_result));
      for (size_t i = 0; i < count; ++i) Judge(results[i].status, texts.strings[i], results[i].vector);
    } else {
      (void)sutra_poll(client.get(), results.data(), sizeof(sutra_result), 2);
      for (size_t i = 0; i < count; ++i) {
        const sutra_status status = sutra_wait(client.get(), tickets[i], kForEverMs, &results[5]);
        Judge(status, texts.strings[i], results[5].vector);
      }
      (void)sutra_take(client.get(), tickets[0], vectors.data(), 16, nullptr);
      (void)sutra_free_slots(client.get());
    }
    for (size_t i = 0; i < count; ++i) sutra_release(client.get(), tickets[i]);
  }

  void Judge(sutra_status status, const std::string& text, const float* vector) {
    if (status == SUTRA_OK) {
      ++ok_;
      if (!IsEchoOf(text, vector, 16)) ++wrong_;
    } else if (status == SUTRA_CANCELLED) {
      ++cancelled_;
    } else {
      ++wrong_;
    }
  }

  std::atomic<uint64_t> ok_{0}, cancelled_{0}, wrong_{0};
  struct sigaction before_ = {};
};

TEST_F(CancelStorm, OverAnEngineThatAnswersEachTextHasItsVectorOrIsCancelled) {
  StartEngine();
  const ClientPtr client = Attach(8, 2);
  Run(client, 600);
  EXPECT_GT(ok_.load(), 0u);
  EXPECT_EQ(wrong_.load(), 0u);
  EXPECT_EQ(engine_->control().violations.load(), 0u);
  while (sutra_free_slots(client.get()) != 8 * client->lane_count.load()) std::this_thread::yield();
  EXPECT_EQ(Embed(client, "after the storm"), SUTRA_OK);
}

TEST_F(CancelStorm, OverAnEngineThatNeverAnswersEveryCallEnds) {
  const ClientPtr client = Silent(4, 2);
  Run(client, 200);
  EXPECT_EQ(ok_.load() + wrong_.load(), 0u);
  EXPECT_GT(cancelled_.load(), 0u);
}

}  // namespace
}  // namespace sutra::test
