// The engine dies, stops, drains, comes back: what callers see who want no other engine (SUTRA_FAIL_FAST) or get none,
// and that nothing they hold goes bad. And fork. (resubmission_test.cc has what goes on at the next engine.)
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <thread>

#include "tests/kit/poll_tickets.h"
#include "tests/producer/client_fixture.h"

#if defined(__SANITIZE_THREAD__)
// A forked child that attaches starts a thread, where the parent had one too: ThreadSanitizer ends it unless told not
// to.
extern "C" const char* __tsan_default_options() { return "die_after_fork=0"; }
#endif

namespace sutra::test {
namespace {

class ClientEngineDeath : public ClientTest {
 protected:
  // Each call may attach again, with backoff; the watchdog bounds the loop.
  static sutra_status EmbedUntilServed(const ClientPtr& client, const std::string& text) {
    sutra_status status;
    do {
      status = Embed(client, text);
      if (status != SUTRA_OK) std::this_thread::yield();
    } while (status == SUTRA_ENGINE_GONE || status == SUTRA_SHUTTING_DOWN);
    return status;
  }

  const sutra_options fail_fast_ = FailFast();
};

TEST_F(ClientEngineDeath, KilledWhileHoldingRequestsEndsWaitersWithEngineGone) {
  StartEngine().control().hold = 1;
  const ClientPtr client = Attach(4, 1);
  sutra_ticket ticket = 0;
  ASSERT_EQ(Submit(client, "doomed", &ticket, &fail_fast_), SUTRA_OK);
  std::thread killer([&] {
    while (engine_->control().taken.load() == 0) std::this_thread::yield();
    engine_->Kill();
  });
  sutra_result result = embed::Result();
  EXPECT_EQ(sutra_wait(client.get(), ticket, 60'000, &result), SUTRA_ENGINE_GONE) << sutra_error_text();
  EXPECT_EQ(result.vector, nullptr);
  EXPECT_EQ(result.reason, SUTRA_REASON_DIED);
  killer.join();
  EXPECT_EQ(sutra_wait(client.get(), ticket, 0, &result), SUTRA_ENGINE_GONE);
  sutra_release(client.get(), ticket);
}

TEST_F(ClientEngineDeath, KilledInMidBatchKeepsPublishedResultsAndEndsTheRest) {
  StartEngine().control().kill_at = 300;
  const ClientPtr client = Attach(16, 1);
  const Texts texts = ManyTexts(1000);
  std::vector<float> vectors(1000 * 16);
  std::vector<sutra_result> results(1000, embed::Result());
  EXPECT_EQ(sutra_embed_batch(client.get(), texts.pointers.data(), texts.sizes.data(), 1000, &fail_fast_, nullptr,
                              vectors.data(), results.data(), sizeof(sutra_result)),
            SUTRA_ENGINE_GONE);
  size_t ok = 0;
  for (size_t i = 0; i < 1000; ++i) {
    if (results[i].status == SUTRA_OK) {
      ++ok;
      EXPECT_TRUE(IsEchoOf(texts.strings[i], &vectors[i * 16], 16)) << i;
    } else {
      EXPECT_EQ(results[i].status, SUTRA_ENGINE_GONE) << i;
      EXPECT_EQ(results[i].reason, SUTRA_REASON_DIED) << i;
    }
  }
  EXPECT_EQ(ok, engine_->control().answered.load());
}

TEST_F(ClientEngineDeath, WithoutAnEngineSubmitsAndFailFastEndAtOnceAndOthersWaitUntilTheirDeadline) {
  StartEngine();
  const ClientPtr client = Attach(4);
  ASSERT_EQ(Embed(client, "before"), SUTRA_OK);
  sutra_info before = embed::Info(), after = embed::Info();
  ASSERT_EQ(sutra_get_info(client.get(), &before), SUTRA_OK);
  EXPECT_EQ(before.engines, 1u);
  EXPECT_EQ(before.lanes, 1u);
  engine_->Kill();
  EXPECT_EQ(Embed(client, "into the void", &fail_fast_), SUTRA_ENGINE_GONE);
  do {  // an attempt that reached the dying engine has another reason
    EXPECT_EQ(Embed(client, "again", &fail_fast_), SUTRA_ENGINE_GONE);
  } while (std::string(sutra_error_text()).find("nothing listens") == std::string::npos);
  sutra_ticket ticket = 0;
  EXPECT_EQ(Submit(client, "never waits", &ticket), SUTRA_ENGINE_GONE);
  const sutra_options soon = RequestOptions(50);
  EXPECT_EQ(Embed(client, "waits", &soon), SUTRA_DEADLINE_EXCEEDED);
  const std::string why = sutra_error_text();
  EXPECT_NE(why.find("there was no engine"), std::string::npos) << why;
  EXPECT_NE(why.find("nothing listens"), std::string::npos) << why;
  ASSERT_EQ(sutra_get_info(client.get(), &after), SUTRA_OK);
  EXPECT_EQ(after.lanes, 0u);
  EXPECT_EQ(after.engine_generation, before.engine_generation);
  StartEngine();
  EXPECT_EQ(Embed(client, "after"), SUTRA_OK);
  ASSERT_EQ(sutra_get_info(client.get(), &after), SUTRA_OK);
  EXPECT_NE(before.engine_generation, after.engine_generation);
  EXPECT_EQ(after.engines, 2u);
}

TEST_F(ClientEngineDeath, VectorsAlreadyDeliveredStayReadableUntilReleased) {
  StartEngine();
  const ClientPtr client = Attach(4);
  sutra_ticket ticket = 0;
  ASSERT_EQ(Submit(client, "kept", &ticket), SUTRA_OK);
  sutra_result result = embed::Result();
  ASSERT_EQ(sutra_wait(client.get(), ticket, 60'000, &result), SUTRA_OK);
  for (int round = 0; round < 3; ++round) {
    engine_->Kill();
    EXPECT_EQ(Embed(client, "gone", &fail_fast_), SUTRA_ENGINE_GONE);
    EXPECT_TRUE(IsEchoOf("kept", result.vector, result.width));
    StartEngine();
    EXPECT_EQ(Embed(client, "new"), SUTRA_OK);
    EXPECT_TRUE(IsEchoOf("kept", result.vector, result.width));
  }
  sutra_result again = embed::Result();
  EXPECT_EQ(sutra_wait(client.get(), ticket, 0, &again), SUTRA_OK);
  EXPECT_EQ(again.vector, result.vector);
  sutra_release(client.get(), ticket);
  EXPECT_EQ(Embed(client, "still served"), SUTRA_OK);
}

TEST_F(ClientEngineDeath, ManyRestartsLeaveTheClientWorking) {
  StartEngine();
  const ClientPtr client = Attach(4, 2);
  for (int round = 0; round < 80; ++round) {  // more than the lane table has entries
    ASSERT_EQ(Embed(client, "round " + std::to_string(round)), SUTRA_OK);
    engine_->Kill();
    StartEngine();
  }
}

TEST_F(ClientEngineDeath, EngineOfAnotherModelOrWidthIsNotAccepted) {
  StartEngine();
  const ClientPtr client = Attach(4);
  ASSERT_EQ(Embed(client, "before"), SUTRA_OK);
  EchoOptions other;
  other.identity = std::string(64, 'f');
  StartEngine(other);
  EXPECT_EQ(Embed(client, "x"), SUTRA_ENGINE_GONE) << "it went on at another model";
  for (int call = 0; call < 100; ++call) {  // later calls say the same at once
    sutra_result result = embed::Result();
    float vector[16];
    EXPECT_EQ(sutra_embed(client.get(), "x", 1, nullptr, vector, &result), SUTRA_ENGINE_GONE);
    EXPECT_EQ(result.reason, SUTRA_REASON_OTHER_IDENTITY);
    EXPECT_NE(std::string(sutra_error_text()).find("another model"), std::string::npos) << sutra_error_text();
  }
  StartEngine();
  EXPECT_EQ(EmbedUntilServed(client, "the right one is back"), SUTRA_OK);
}

TEST_F(ClientEngineDeath, DrainAnswersWhatWasTakenThenSaysShuttingDown) {
  StartEngine().control().hold = 1;
  const ClientPtr client = Attach(8, 1);
  std::vector<sutra_ticket> tickets(4);
  for (sutra_ticket& ticket : tickets) ASSERT_EQ(Submit(client, "taken", &ticket), SUTRA_OK);
  while (engine_->control().taken.load() < 4) std::this_thread::yield();
  engine_->control().deaf = 1;
  sutra_ticket untaken = 0;
  ASSERT_EQ(Submit(client, "never taken", &untaken, &fail_fast_), SUTRA_OK);
  engine_->control().drain = 1;
  sutra_result result = embed::Result();
  for (const sutra_ticket ticket : tickets) {
    EXPECT_EQ(sutra_wait(client.get(), ticket, 60'000, &result), SUTRA_OK);
    EXPECT_TRUE(IsEchoOf("taken", result.vector, result.width));
  }
  EXPECT_EQ(sutra_wait(client.get(), untaken, 60'000, &result), SUTRA_SHUTTING_DOWN);
  EXPECT_EQ(engine_->WaitForExit(), 0);
  EXPECT_EQ(Embed(client, "x", &fail_fast_), SUTRA_SHUTTING_DOWN);
}

TEST_F(ClientEngineDeath, PollReportsTheTicketsOfADeadEngine) {
  StartEngine().control().hold = 1;
  const ClientPtr client = Attach(8, 1);
  const int event_fd = sutra_event_fd(client.get());
  ASSERT_GE(event_fd, 0);
  std::vector<sutra_ticket> tickets(5), found;
  for (sutra_ticket& ticket : tickets) ASSERT_EQ(Submit(client, "x", &ticket, &fail_fast_), SUTRA_OK);
  engine_->Kill();
  pollfd item = {event_fd, POLLIN, 0};
  EXPECT_EQ(poll(&item, 1, kWakeMsMax), 1) << "an event loop must learn of the death";
  while (found.size() < tickets.size()) {
    sutra_ticket some[2];
    const size_t count = PollTickets(client.get(), some, 2);
    found.insert(found.end(), some, some + count);
  }
  std::sort(found.begin(), found.end());
  std::sort(tickets.begin(), tickets.end());
  EXPECT_EQ(found, tickets);
  sutra_result result = embed::Result();
  for (const sutra_ticket ticket : tickets) {
    EXPECT_EQ(sutra_wait(client.get(), ticket, 0, &result), SUTRA_ENGINE_GONE);
    sutra_release(client.get(), ticket);
  }
  EXPECT_EQ(sutra_event_fd(client.get()), event_fd) << "one descriptor for the client's whole life";
}

TEST_F(ClientEngineDeath, AnEventLoopHearsOfTheNextEngineAndGoesOnWithTheSameDescriptor) {
  StartEngine();
  const ClientPtr client = Attach(8, 2);
  const int event_fd = sutra_event_fd(client.get());
  ASSERT_GE(event_fd, 0);
  for (int round = 0; round < 3; ++round) {
    engine_->Kill();
    StartEngine();
    sutra_ticket ticket = 0, done = 0;
    while (Submit(client, "next", &ticket) != SUTRA_OK) {
      pollfd item = {event_fd, POLLIN, 0};
      ASSERT_EQ(poll(&item, 1, kWakeMsMax), 1) << "the revival must be told";
      while (PollTickets(client.get(), &done, 1) == 1) sutra_release(client.get(), done);
    }
    while (PollTickets(client.get(), &done, 1) == 0) {
      pollfd item = {event_fd, POLLIN, 0};
      ASSERT_EQ(poll(&item, 1, kWakeMsMax), 1);
    }
    EXPECT_EQ(done, ticket);
    sutra_release(client.get(), ticket);
  }
}

TEST_F(ClientEngineDeath, DetachWithOutstandingTicketsIsClean) {
  StartEngine().control().hold = 1;
  ClientPtr client = Attach(4);
  sutra_ticket ticket = 0;
  ASSERT_EQ(Submit(client, "x", &ticket), SUTRA_OK);
  client.reset();
  engine_->control().hold = 0;
  const ClientPtr next = Attach(4);
  EXPECT_EQ(Embed(next, "served"), SUTRA_OK);
}

TEST_F(ClientEngineDeath, ManyThreadsAllLeaveTheirWaits) {
  StartEngine().control().hold = 1;
  const ClientPtr client = Attach(16, 2);
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] { EXPECT_EQ(Embed(client, "t" + std::to_string(t), &fail_fast_), SUTRA_ENGINE_GONE); });
  }
  while (engine_->control().taken.load() < 8) std::this_thread::yield();
  engine_->Kill();
  for (std::thread& thread : threads) thread.join();
}

// The child reports by its exit code, since gtest's failures in it would be lost.
TEST_F(ClientEngineDeath, ForkedChildGetsForkedAndDetachesSafelyWhileTheParentGoesOn) {
  StartEngine();
  ClientPtr client = Attach(4);
  ASSERT_EQ(Embed(client, "before"), SUTRA_OK);
  sutra_ticket ticket = 0;
  ASSERT_EQ(Submit(client, "parent's", &ticket), SUTRA_OK);
  const pid_t child = fork();
  if (child == 0) {
    int wrong = 0;
    sutra_ticket mine = 0;
    sutra_result result = embed::Result();
    float vector[16];
    wrong |= sutra_submit(client.get(), "x", 1, nullptr, &mine) != SUTRA_FORKED ? 1 : 0;
    wrong |= sutra_wait(client.get(), ticket, 0, &result) != SUTRA_FORKED ? 2 : 0;
    wrong |= sutra_embed(client.get(), "x", 1, nullptr, vector, nullptr) != SUTRA_FORKED ? 4 : 0;
    wrong |= PollTickets(client.get(), &mine, 1) != 0 ? 8 : 0;
    wrong |= sutra_cancel(client.get(), ticket) != SUTRA_FORKED ? 16 : 0;
    sutra_release(client.get(), ticket);
    wrong |= sutra_event_fd(client.get()) != -1 ? 32 : 0;
    sutra_detach(client.release());
    sutra_client* own = nullptr;
    if (sutra_attach(path_.c_str(), nullptr, &own) != SUTRA_OK ||
        sutra_embed(own, "child", 5, nullptr, vector, nullptr) != SUTRA_OK) {
      wrong |= 64;
    }
    _exit(wrong);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  sutra_result result = embed::Result();
  EXPECT_EQ(sutra_wait(client.get(), ticket, 60'000, &result), SUTRA_OK);
  EXPECT_EQ(Embed(client, "after"), SUTRA_OK);
  EXPECT_LE(engine_->control().lanes_lost.load(), 1u) << "only the child's own lane may end with the child";
}

TEST_F(ClientEngineDeath, KilledClientLosesItsLaneThoughAForkedChildHoldsItsDescriptors) {
  StartEngine();
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    sutra_client* client = nullptr;
    float vector[16];
    if (sutra_attach(path_.c_str(), nullptr, &client) != SUTRA_OK) _exit(1);
    if (fork() == 0) {  // inherits the descriptors; leaves when the test closes its end
      char byte;
      close(ready[1]);
      _exit(static_cast<int>(read(ready[0], &byte, 1)));
    }
    (void)sutra_embed(client, "x", 1, nullptr, vector, nullptr);
    raise(SIGKILL);
  }
  waitpid(child, nullptr, 0);
  // The grandchild keeps the socket open, so no hang-up comes: this engine only asks at hang-up, so close it now.
  close(ready[1]);
  while (engine_->control().lanes_lost.load() == 0) std::this_thread::yield();
  close(ready[0]);
  const ClientPtr next = Attach(4);
  EXPECT_EQ(Embed(next, "neighbours are served"), SUTRA_OK);
}

}  // namespace
}  // namespace sutra::test
