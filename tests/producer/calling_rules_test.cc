// What embed.h says of each call at a fork, a detach, the end of a thread, a signal, an exec and the end of the
// program.
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include <atomic>
#include <thread>

#include "producer/lane_pool.h"
#include "tests/producer/client_fixture.h"

namespace sutra::test {
namespace {

class CallingRules : public ClientTest {
 protected:
  // RETURNS the child's wait status.
  template <typename Child>
  static int InChild(const Child& child) {
    const pid_t pid = fork();
    if (pid == 0) {
      alarm(60);
      _exit(child());
    }
    int status = -1;
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    return status;
  }
};

// Whether memory is mapped, without touching it.
bool Mapped(const void* address) {
  int ends[2];
  if (pipe(ends) != 0) return false;
  const bool mapped = write(ends[1], address, 4) == 4;
  close(ends[0]);
  close(ends[1]);
  return mapped;
}

TEST_F(CallingRules, AForkLeavesDeliveredVectorsWithTheParentAndCopiedOnesWithBoth) {
  StartEngine();
  const ClientPtr client = Attach(4);
  sutra_ticket ticket = 0;
  ASSERT_EQ(Submit(client, "in place", &ticket), SUTRA_OK);
  sutra_result result = embed::Result();
  ASSERT_EQ(sutra_wait(client.get(), ticket, 60'000, &result), SUTRA_OK);
  float copied[16];
  ASSERT_EQ(sutra_embed(client.get(), "copied", 6, nullptr, copied, nullptr), SUTRA_OK);
  EXPECT_TRUE(Mapped(result.vector));
  EXPECT_EQ(InChild([&] {
              if (Mapped(result.vector)) return 1;
              if (!IsEchoOf("copied", copied, 16)) return 2;
              sutra_release(client.get(), ticket);  // nothing
              sutra_detach(client.get());           // of the child's copy: the parent's goes on
              return 0;
            }),
            0);
  EXPECT_TRUE(IsEchoOf("in place", result.vector, result.width));
  sutra_release(client.get(), ticket);
  EXPECT_EQ(Embed(client, "after"), SUTRA_OK);
}

// Every call that takes the parent's client, in the child.
TEST_F(CallingRules, EveryCallOfAForkedChildSaysSoAndChangesNothing) {
  StartEngine().control().hold = 1;
  const ClientPtr client = Attach(4);
  ASSERT_GE(sutra_event_fd(client.get()), 0);
  sutra_ticket ticket = 0;
  ASSERT_EQ(Submit(client, "the parent's", &ticket), SUTRA_OK);
  EXPECT_EQ(InChild([&] {
              sutra_client* parents = client.get();
              sutra_info info = embed::Info();
              sutra_result result = embed::Result();
              const char* text = "x";
              const size_t bytes = 1;
              float vector[16];
              sutra_ticket mine = 0;
              size_t number = 0;
              const sutra_status said[] = {
                  sutra_get_info(parents, &info),
                  sutra_submit(parents, text, bytes, nullptr, &mine),
                  sutra_submit_many(parents, &text, &bytes, 1, nullptr, &mine, &number),
                  sutra_wait(parents, ticket, 60'000, &result),
                  sutra_wait_any(parents, &ticket, 1, 60'000, &number, &result),
                  sutra_wait_all(parents, &ticket, 1, 60'000, &result, sizeof(result)),
                  sutra_take(parents, ticket, vector, 16, &result),
                  sutra_cancel(parents, ticket),
                  sutra_embed(parents, text, bytes, nullptr, vector, &result),
                  sutra_embed_batch(parents, &text, &bytes, 1, nullptr, nullptr, vector, &result, sizeof(result)),
              };
              for (const sutra_status status : said) {
                if (status != SUTRA_FORKED) return 1;
              }
              if (result.status != SUTRA_FORKED || mine != 0 || number != 0) return 2;
              if (sutra_poll(parents, &result, sizeof(result), 1) != 0) return 3;
              if (sutra_free_slots(parents) != 0 || sutra_event_fd(parents) != -1) return 4;
              sutra_release(parents, ticket);
              sutra_cancel_all(parents);
              sutra_detach(parents);
              return 0;
            }),
            0);
  EXPECT_EQ(sutra_wait(client.get(), ticket, 20, nullptr), SUTRA_NOT_READY) << "the child changed it";
  engine_->control().hold = 0;
  EXPECT_EQ(Embed(client, "a turn"), SUTRA_OK);
  EXPECT_EQ(sutra_wait(client.get(), ticket, 60'000, nullptr), SUTRA_OK);
}

TEST_F(CallingRules, AForkWhileOtherThreadsAreInCallsLeavesAChildThatCanDetachAndAttach) {
  StartEngine();
  const ClientPtr client = Attach(4, 2);
  std::atomic<bool> stop = false;
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      while (!stop) EXPECT_EQ(Embed(client, "busy"), SUTRA_OK);
    });
  }
  for (int round = 0; round < 10; ++round) {
    EXPECT_EQ(InChild([&] {
                sutra_ticket ticket;
                if (sutra_submit(client.get(), "x", 1, nullptr, &ticket) != SUTRA_FORKED) return 1;
                sutra_detach(client.get());
                return 0;
              }),
              0);
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
}

TEST_F(CallingRules, DetachingNothingOrTwiceThroughTheWrapperIsHarmless) {
  StartEngine();
  sutra_detach(nullptr);
  embed::Client client;
  client.Detach();
  ASSERT_EQ(client.Attach(path_), SUTRA_OK);
  client.Detach();
  client.Detach();
  EXPECT_EQ(client.get(), nullptr);
}

TEST_F(CallingRules, TicketsOutliveTheThreadThatSubmittedThem) {
  StartEngine().control().hold = 1;
  const ClientPtr client = Attach(4, 1);
  struct Shared {
    sutra_client* client;
    sutra_ticket ticket;
  } shared = {client.get(), 0};
  pthread_t thread;
  ASSERT_EQ(pthread_create(
                &thread, nullptr,
                [](void* argument) -> void* {
                  auto* of = static_cast<Shared*>(argument);
                  (void)sutra_submit(of->client, "left behind", 11, nullptr, &of->ticket);
                  return nullptr;
                },
                &shared),
            0);
  ASSERT_EQ(pthread_join(thread, nullptr), 0);
  engine_->control().hold = 0;
  sutra_result result = embed::Result();
  ASSERT_EQ(sutra_wait(client.get(), shared.ticket, 60'000, &result), SUTRA_OK);
  EXPECT_TRUE(IsEchoOf("left behind", result.vector, result.width));
}

// A thread that is cancelled in a wait: for an answer, for a slot, for an engine. Each ends as if nothing had been, and
// the client is whole.
TEST_F(CallingRules, AThreadThatIsCancelledInAWaitLeavesNothingLocked) {
  StartEngine().control().hold = 1;
  const ClientPtr client = Attach(2, 1);
  sutra_ticket tickets[2];
  for (sutra_ticket& ticket : tickets) ASSERT_EQ(Submit(client, "held", &ticket), SUTRA_OK);
  struct Shared {
    sutra_client* client;
    sutra_ticket ticket;
    std::atomic<sutra_status> waited = SUTRA_FORKED, embedded = SUTRA_FORKED;
  } shared;
  shared.client = client.get();
  shared.ticket = tickets[0];
  pthread_t waiter, embedder;
  // They return instead of being cancelled: see no_cancel_test.cc.
  const auto wait = [](void* argument) -> void* {
    auto* of = static_cast<Shared*>(argument);
    const sutra_status status = sutra_wait(of->client, of->ticket, 60'000, nullptr);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
    of->waited = status;
    return nullptr;
  };
  const auto embed = [](void* argument) -> void* {
    auto* of = static_cast<Shared*>(argument);
    float vector[16];
    const sutra_status status = sutra_embed(of->client, "waits for a slot", 16, nullptr, vector, nullptr);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
    of->embedded = status;
    return nullptr;
  };
  ASSERT_EQ(pthread_create(&waiter, nullptr, wait, &shared), 0);
  ASSERT_EQ(pthread_create(&embedder, nullptr, embed, &shared), 0);
  const auto waiters = [&] {
    const MutexLock lock(client->signals.mutex);
    return client->signals.waiters;
  };
  while (waiters() == 0) std::this_thread::yield();
  pthread_cancel(waiter);
  pthread_cancel(embedder);
  engine_->control().hold = 0;
  ASSERT_EQ(pthread_join(waiter, nullptr), 0);
  EXPECT_EQ(shared.waited, SUTRA_OK) << "the wait was a cancellation point";
  sutra_release(client.get(), tickets[0]);
  ASSERT_EQ(pthread_join(embedder, nullptr), 0);
  EXPECT_EQ(shared.embedded, SUTRA_OK) << "the wait was a cancellation point";
  EXPECT_EQ(waiters(), 0u);
  EXPECT_EQ(Embed(client, "whole"), SUTRA_OK);
}

std::atomic<int> handled = 0;

// An event that interrupts system calls is no answer.
TEST_F(CallingRules, SignalsDuringAWaitNeitherEndItNorAreKeptFromTheProgram) {
  StartEngine().control().hold = 1;
  const ClientPtr client = Attach(2, 1);
  sutra_ticket tickets[2];
  for (sutra_ticket& ticket : tickets) ASSERT_EQ(Submit(client, "held", &ticket), SUTRA_OK);
  struct sigaction action = {}, before = {};
  action.sa_handler = [](int) { ++handled; };  // without SA_RESTART
  ASSERT_EQ(sigaction(SIGUSR1, &action, &before), 0);
  std::atomic<bool> ended = false;
  std::thread waiter([&] {
    EXPECT_EQ(sutra_wait(client.get(), tickets[0], 60'000, nullptr), SUTRA_OK) << sutra_error_text();
    ended = true;
  });
  std::thread embedder([&] { EXPECT_EQ(Embed(client, "waits for a slot"), SUTRA_OK); });
  for (int i = 1; i <= 200; ++i) {
    pthread_kill(waiter.native_handle(), SIGUSR1);
    while (handled < 2 * i - 1) std::this_thread::yield();
    pthread_kill(embedder.native_handle(), SIGUSR1);
    while (handled < 2 * i) std::this_thread::yield();
  }
  EXPECT_FALSE(ended);
  engine_->control().hold = 0;
  waiter.join();
  sutra_release(client.get(), tickets[0]);
  embedder.join();
  sigaction(SIGUSR1, &before, nullptr);
}

TEST_F(CallingRules, AnExecEndsTheHelperAndGivesTheLaneBack) {
  StartEngine();
  EXPECT_EQ(InChild([&] {
              sutra_client* client = nullptr;
              if (sutra_attach(path_.c_str(), nullptr, &client) != SUTRA_OK) return 1;
              execl("/bin/true", "true", nullptr);
              return 2;
            }),
            0);
  while (engine_->control().lanes_lost.load() == 0) std::this_thread::yield();
}

TEST_F(CallingRules, AProgramMayEndWithoutADetach) {
  StartEngine();
  EXPECT_EQ(InChild([&] {
              sutra_client* client = nullptr;
              float vector[16];
              if (sutra_attach(path_.c_str(), nullptr, &client) != SUTRA_OK) return 1;
              if (sutra_embed(client, "last", 4, nullptr, vector, nullptr) != SUTRA_OK) return 2;
              exit(0);
              return 3;
            }),
            0);
  while (engine_->control().lanes_lost.load() == 0) std::this_thread::yield();
}

}  // namespace
}  // namespace sutra::test
