// Jobs beside the thread that begins them.
#include "engine/control/admin_thread.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <new>

#include "shm/base/time.h"

namespace sutra {
namespace {

CacheJob Job(const std::string& payload) { return {.call = {}, .payload = payload, .peer = {}}; }
CacheReply Reply(uint64_t entries) {
  CacheReply reply;
  reply.body.entries = entries;
  return reply;
}
// Until there is a reply, however long it takes.
CacheReply Await(AdminThread* thread) {
  for (;;) {
    pollfd item = {thread->fd(), POLLIN, 0};
    poll(&item, 1, 1000);
    if (std::optional<CacheReply> reply = thread->Take()) return std::move(*reply);
  }
}

TEST(AdminThread, RunsAJobAndHandsItsReplyOver) {
  AdminThread thread([](const CacheJob& job, AdminThread::Turn&) { return Reply(job.payload.size()); });
  ASSERT_TRUE(thread.Start().ok());
  EXPECT_FALSE(thread.Take().has_value());
  for (size_t i = 1; i < 100; ++i) {
    ASSERT_TRUE(thread.Begin(Job(std::string(i, 'x'))));
    EXPECT_TRUE(thread.busy());
    EXPECT_EQ(Await(&thread).body.entries, i);
    EXPECT_FALSE(thread.busy());
  }
}

TEST(AdminThread, OneJobAtATimeUntilItsReplyIsTaken) {
  AdminThread thread([](const CacheJob&, AdminThread::Turn&) { return Reply(1); });
  EXPECT_FALSE(thread.RunOne());
  EXPECT_TRUE(thread.Begin(Job("a")));
  EXPECT_FALSE(thread.Begin(Job("b")));
  EXPECT_FALSE(thread.Take().has_value());
  EXPECT_TRUE(thread.RunOne());
  EXPECT_FALSE(thread.RunOne());
  EXPECT_FALSE(thread.Begin(Job("c")));
  EXPECT_TRUE(thread.Take().has_value());
  EXPECT_FALSE(thread.Take().has_value());
  EXPECT_TRUE(thread.Begin(Job("d")));
}

TEST(AdminThread, AJobIsToldThatItsAskerIsGoneUnlessItGoesToTheEnd) {
  AdminThread thread([](const CacheJob&, AdminThread::Turn& turn) {
    while (turn.GoOn(3, 4)) {
    }
    EXPECT_TRUE(turn.GoOn(4, 4, true));
    EXPECT_FALSE(turn.leaving());
    return Reply(7);
  });
  ASSERT_TRUE(thread.Start().ok());
  ASSERT_TRUE(thread.Begin(Job("")));
  while (thread.progress().done == 0) {
  }
  EXPECT_EQ(thread.progress().total, 4u);
  thread.AskerGone();
  EXPECT_EQ(Await(&thread).body.entries, 7u);
}

TEST(AdminThread, AnEarlierAskersEndIsForgottenWithTheNextJob) {
  AdminThread thread([](const CacheJob&, AdminThread::Turn& turn) { return Reply(turn.GoOn(0, 0) ? 1 : 0); });
  thread.AskerGone();
  ASSERT_TRUE(thread.Begin(Job("")));
  ASSERT_TRUE(thread.RunOne());
  EXPECT_EQ(thread.Take()->body.entries, 1u);
}

TEST(AdminThread, StopEndsWhatGoesOnAndWhatWaits) {
  AdminThread thread([](const CacheJob&, AdminThread::Turn& turn) {
    while (turn.GoOn(1, 2, true)) {
    }
    return Reply(turn.leaving() && !turn.WaitUntil(UINT64_MAX) ? 5 : 0);
  });
  ASSERT_TRUE(thread.Start().ok());
  ASSERT_TRUE(thread.Begin(Job("")));
  thread.Stop();
  EXPECT_EQ(thread.Take()->body.entries, 5u);
  EXPECT_FALSE(thread.Begin(Job(""))) << "an engine that leaves begins nothing";
}

TEST(AdminThread, StopWakesACommandThatWaits) {
  AdminThread thread([](const CacheJob&, AdminThread::Turn& turn) {
    EXPECT_TRUE(turn.GoOn(1, 1));
    return Reply(turn.WaitUntil(UINT64_MAX) ? 1 : 2);
  });
  ASSERT_TRUE(thread.Start().ok());
  ASSERT_TRUE(thread.Begin(Job("")));
  while (thread.progress().done == 0) {
  }
  thread.Stop();
  EXPECT_EQ(thread.Take()->body.entries, 2u);
}

TEST(AdminThread, AWaitEndsNotBeforeItsTime) {
  const uint64_t until_ns = MonotonicNs() + 20 * kNsPerMs;
  AdminThread thread([until_ns](const CacheJob&, AdminThread::Turn& turn) {
    EXPECT_TRUE(turn.WaitUntil(until_ns));
    EXPECT_GE(MonotonicNs(), until_ns);
    return Reply(1);
  });
  ASSERT_TRUE(thread.Begin(Job("")));
  ASSERT_TRUE(thread.RunOne());
}

TEST(AdminThread, AJobThatRunsOutOfMemoryFailsAlone) {
  AdminThread thread([](const CacheJob& job, AdminThread::Turn&) {
    if (job.payload.empty()) throw std::bad_alloc();
    return Reply(1);
  });
  ASSERT_TRUE(thread.Start().ok());
  ASSERT_TRUE(thread.Begin(Job("")));
  EXPECT_EQ(Await(&thread).status.code(), StatusCode::kOutOfMemory);
  ASSERT_TRUE(thread.Begin(Job("x")));
  EXPECT_TRUE(Await(&thread).status.ok());
}

}  // namespace
}  // namespace sutra
