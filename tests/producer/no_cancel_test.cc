// No call is a cancellation point: a thread that is to be cancelled leaves each call with everything done and unlocked.
#include "producer/no_cancel.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>

#include "tests/kit/poll_tickets.h"
#include "tests/producer/client_fixture.h"

namespace sutra::test {
namespace {

class NoCancelTest : public ClientTest {
 protected:
  struct Shared {
    const char* path;
    std::atomic<int> step = 0;  // 1 = the thread wants a dead engine, 2 = it has one, 3 = all calls returned
    std::atomic<int> failed = 0;
  };

  static void* CallAll(void* argument) {
    auto* shared = static_cast<Shared*>(argument);
    pthread_cancel(pthread_self());  // deferred: the next cancellation point would be the end
    const auto expect = [&](bool good, int line) {
      if (!good && shared->failed == 0) shared->failed = line;
    };
    sutra_attach_options options = AttachOptions(4, 2);
    sutra_client* client = nullptr;
    expect(sutra_attach(shared->path, &options, &client) == SUTRA_OK, __LINE__);
    if (client == nullptr) return nullptr;
    expect(sutra_event_fd(client) >= 0, __LINE__);
    static const std::string long_text(60'000, 'x');
    for (int round = 0; round < 40; ++round) {  // more long texts than a lane keeps the memory of
      Texts texts;
      for (int i = 0; i < 12; ++i) texts.Add(long_text);
      texts.Seal();
      float vectors[12 * 16];
      expect(sutra_embed_batch(client, texts.pointers.data(), texts.sizes.data(), 12, nullptr, nullptr, vectors,
                               nullptr, 0) == SUTRA_OK,
             __LINE__);
    }
    sutra_ticket tickets[8] = {}, polled[8];
    for (int round = 0; round < 20; ++round) {
      for (sutra_ticket& ticket : tickets) {
        while (sutra_submit(client, "text", 4, nullptr, &ticket) != SUTRA_OK) sched_yield();  // opens the second lane
      }
      sutra_options soon = RequestOptions(1);
      float vector[16];
      expect(sutra_embed(client, "no room", 7, &soon, vector, nullptr) == SUTRA_FULL, __LINE__);
      (void)PollTickets(client, polled, 8);
      size_t index = 0;  // two lanes: asleep on both words, unless they are done by now
      expect(sutra_wait_any(client, tickets, 8, 60'000, &index, nullptr) == SUTRA_OK, __LINE__);
      sutra_cancel_all(client);
      expect(sutra_wait_all(client, tickets, 8, 60'000, nullptr, 0) != SUTRA_NOT_READY, __LINE__);
      expect(sutra_free_slots(client) == 0, __LINE__);
      expect(sutra_take(client, tickets[index], vector, 16, nullptr) == SUTRA_OK, __LINE__);
      for (sutra_ticket& ticket : tickets) {
        if (&ticket == &tickets[index]) continue;
        sutra_release(client, ticket);
      }
      for (sutra_ticket& ticket : tickets) {
        while (sutra_submit(client, "text", 4, nullptr, &ticket) != SUTRA_OK) sched_yield();
      }
      for (const sutra_ticket ticket : tickets) {
        expect(sutra_wait(client, ticket, 60'000, nullptr) == SUTRA_OK, __LINE__);
        sutra_release(client, ticket);
      }
    }
    shared->step = 1;
    while (shared->step != 2) sched_yield();
    float vector[16];
    sutra_options fail_fast = FailFast();
    expect(sutra_embed(client, "x", 1, &fail_fast, vector, nullptr) == SUTRA_ENGINE_GONE, __LINE__);
    sutra_detach(client);
    // Returns instead of being cancelled: AddressSanitizer takes what a forced unwinding leaves on a stack for a fault.
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
    shared->step = 3;
    return nullptr;
  }
};

TEST_F(NoCancelTest, ACancelledThreadLeavesEachCallBeforeItEnds) {
  StartEngine();
  Shared shared = {path_.c_str()};
  pthread_t thread;
  ASSERT_EQ(pthread_create(&thread, nullptr, CallAll, &shared), 0);
  while (shared.step != 1 && pthread_tryjoin_np(thread, nullptr) != 0) sched_yield();
  ASSERT_EQ(shared.step, 1) << "a call was a cancellation point";
  engine_->Kill();
  shared.step = 2;
  ASSERT_EQ(pthread_join(thread, nullptr), 0);
  EXPECT_EQ(shared.step, 3) << "a call was a cancellation point";
  EXPECT_EQ(shared.failed, 0) << "line";
}

#if !defined(__SANITIZE_ADDRESS__)
void* CallOnce(void* returned) {
  pthread_cancel(pthread_self());
  close(-1);
  *static_cast<std::atomic<bool>*>(returned) = true;
  return nullptr;
}

TEST(NoCancel, CanaryACancellationPointEndsSuchAThread) {
  std::atomic<bool> returned = false;
  pthread_t thread;
  ASSERT_EQ(pthread_create(&thread, nullptr, CallOnce, &returned), 0);
  void* end = nullptr;
  ASSERT_EQ(pthread_join(thread, &end), 0);
  EXPECT_EQ(end, PTHREAD_CANCELED);
  EXPECT_FALSE(returned);
}
#endif

TEST(NoCancel, TheStateThatTheCallerHadComesBack) {
  int state = -1;
  for (const int before : {PTHREAD_CANCEL_ENABLE, PTHREAD_CANCEL_DISABLE}) {
    pthread_setcancelstate(before, nullptr);
    {
      const client::NoCancel outer;
      const client::NoCancel inner;
      pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
      EXPECT_EQ(state, PTHREAD_CANCEL_DISABLE);
    }
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state);
    EXPECT_EQ(state, before);
  }
}

}  // namespace
}  // namespace sutra::test
