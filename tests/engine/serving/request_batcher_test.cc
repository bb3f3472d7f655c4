#include "engine/serving/request_batcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "shm/base/mutex.h"
#include "tests/kit/queued_text.h"

namespace sutra {
namespace {

using Names = std::vector<std::string>;
using testing::At;
using testing::QueuedText;

constexpr RequestBatcher::Limits kLimits = {
    .tokens_max = 100, .texts_max = 100, .queue_texts_max = 100, .queue_bytes_max = 1000, .spin_us = 0};

// Takes and settles what there is.
Names TakeAll(RequestBatcher* batcher) {
  Names names;
  TakenText taken;
  while (batcher->Take(1, true, &taken)) {
    batcher->Settle(taken, taken.charged);
    names.push_back(taken.computation->text);
  }
  return names;
}

TEST(RequestBatcher, TakesWhatIsFlushedInOrder) {
  RequestBatcher batcher(kLimits);
  for (const char* name : {"a", "b", "c"}) batcher.Add(QueuedText(name, 10), At(1), false);
  batcher.Add(QueuedText("query", 5), At(1, kClassQuery), false);
  EXPECT_EQ(batcher.queued_texts(), 4u);
  EXPECT_EQ(batcher.queued_bytes(), 8u);
  EXPECT_EQ(batcher.queued_cost(), 35u);
  EXPECT_EQ(TakeAll(&batcher), Names());  // not flushed yet
  batcher.Flush();
  EXPECT_EQ(TakeAll(&batcher), Names({"query", "a", "b", "c"}));
  EXPECT_EQ(batcher.queued_texts(), 0u);
  EXPECT_EQ(batcher.queued_bytes(), 0u);
  EXPECT_EQ(batcher.queued_cost(), 0u);
}

TEST(RequestBatcher, ATextThatIsPutBackIsStillQueuedAndNext) {
  RequestBatcher batcher(kLimits);
  batcher.Add(QueuedText("large", 10), At(1), false);
  batcher.Add(QueuedText("small", 10), At(1), false);
  batcher.Flush();
  TakenText taken;
  ASSERT_TRUE(batcher.Take(1, true, &taken));
  batcher.PutBack(std::move(taken));
  EXPECT_EQ(batcher.queued_texts(), 2u);
  EXPECT_TRUE(batcher.WaitForText());
  batcher.Add(QueuedText("query", 10, 2), At(2, kClassQuery), false);
  batcher.Flush();
  ASSERT_TRUE(batcher.Take(1, false, &taken));  // past it
  EXPECT_EQ(taken.computation->text, "query");
  batcher.Settle(taken, 10);
  EXPECT_EQ(TakeAll(&batcher), Names({"large", "small"}));
  EXPECT_EQ(batcher.queued_texts(), 0u);
}

// Otherwise one that is large could wait for ever, while other workers put back later ones.
TEST(RequestBatcher, TextsThatSeveralWorkersPutBackKeepTheirOrder) {
  RequestBatcher batcher(kLimits);
  for (const char* name : {"first", "second", "third"}) batcher.Add(QueuedText(name, 10), At(1), false);
  batcher.Flush();
  TakenText first, second;
  ASSERT_TRUE(batcher.Take(1, true, &first));
  ASSERT_TRUE(batcher.Take(1, true, &second));
  batcher.PutBack(std::move(first));
  batcher.PutBack(std::move(second));
  EXPECT_EQ(TakeAll(&batcher), Names({"first", "second", "third"}));
}

TEST(RequestBatcher, ATextThatIsPutBackWakesTheWorkerOnItsOwn) {
  RequestBatcher batcher(kLimits);
  batcher.Add(QueuedText("only", 10), At(1), false);
  batcher.Flush();
  TakenText taken;
  ASSERT_TRUE(batcher.Take(1, true, &taken));
  batcher.PutBack(std::move(taken));
  EXPECT_TRUE(batcher.WaitForText());
  batcher.Stop();
  EXPECT_FALSE(batcher.WaitForText());
  EXPECT_EQ(TakeAll(&batcher), Names({"only"}));  // Stop loses nothing
}

TEST(RequestBatcher, ATextQueuedAgainIsHandedOutOnceAndCountsOnce) {
  RequestBatcher batcher(kLimits);
  const ComputationPtr raised = QueuedText("raised", 10);
  batcher.Add(QueuedText("first", 10), At(1, kClassBulk), false);
  batcher.Add(raised, At(1, kClassBulk), false);
  batcher.Add(raised, At(1, kClassQuery), true);
  batcher.Flush();
  EXPECT_EQ(batcher.queued_texts(), 2u);
  EXPECT_EQ(TakeAll(&batcher), Names({"raised", "first"}));
  batcher.Add(raised, At(2, kClassQuery), true);  // served already
  batcher.Flush();
  EXPECT_EQ(TakeAll(&batcher), Names());
}

TEST(RequestBatcher, AFullQueueRefusesTheClientThatFillsItAndServesANewcomer) {
  RequestBatcher batcher(kLimits);
  const ComputationPtr greedy = QueuedText("x", 1, 1);
  int admitted = 0;
  for (; batcher.Admits(*greedy->client, 1); ++admitted) {
    const ComputationPtr text = QueuedText("x", 1, 1);
    text->client = greedy->client;
    batcher.Add(text, At(1), false);
  }
  EXPECT_EQ(admitted, 50);
  EXPECT_TRUE(batcher.Admits(*QueuedText("y", 1, 2)->client, 1));
  EXPECT_EQ(greedy->client->queued_texts.load(std::memory_order_relaxed), 50u);
  batcher.Flush();
  TakeAll(&batcher);
  EXPECT_EQ(greedy->client->queued_texts.load(std::memory_order_relaxed), 0u);
  EXPECT_TRUE(batcher.Admits(*greedy->client, 1));
}

TEST(RequestBatcher, TextsOfAnotherClientThatCameSinceTheMarkAreNewcomers) {
  RequestBatcher batcher(kLimits);
  for (int i = 0; i < 3; ++i) batcher.Add(QueuedText("bulk", 10), At(1), false);
  batcher.Flush();
  TakenText taken;
  ASSERT_TRUE(batcher.Take(1, true, &taken));
  const uint64_t mark = batcher.arrivals();
  EXPECT_FALSE(batcher.NewcomerIsNext(mark, 1));
  batcher.Add(QueuedText("new", 10, 2), At(2), false);
  batcher.Flush();
  EXPECT_TRUE(batcher.NewcomerIsNext(mark, 1));
}

TEST(RequestBatcher, StopEndsASleepingWorker) {
  RequestBatcher batcher(kLimits);
  std::thread worker([&] { EXPECT_FALSE(batcher.WaitForText()); });
  batcher.Stop();
  worker.join();
}

// Two workers and a loop that flushes one text at a time, so that the workers fall asleep often: each text is handed
// out exactly once, and no worker sleeps while work is queued (the test would not end).
TEST(RequestBatcher, EveryTextReachesExactlyOneOfSeveralWorkers) {
  constexpr int kTexts = 5'000;
  RequestBatcher::Limits limits = kLimits;
  limits.queue_bytes_max = 1 << 20;
  RequestBatcher batcher(limits);
  Mutex mutex;
  std::map<std::string, int> seen;
  std::atomic<int> count{0};
  const auto work = [&] {
    TakenText taken;
    for (uint64_t turn = 0; batcher.WaitForText();) {
      if (!batcher.Take(1, true, &taken)) continue;
      if (++turn % 16 == 0) {  // did not fit
        batcher.PutBack(std::move(taken));
        continue;
      }
      batcher.Settle(taken, 2);
      const MutexLock lock(mutex);
      ++seen[taken.computation->text];
      count.fetch_add(1, std::memory_order_release);
    }
  };
  std::thread first(work), second(work);
  for (int i = 0; i < kTexts; ++i) {
    const auto client = static_cast<uint64_t>(i % 4);
    batcher.Add(QueuedText(std::to_string(i), 1 + static_cast<uint32_t>(i % 3), client),
                At(client, static_cast<PriorityClass>(i % 3)), false);
    batcher.Flush();
    if (i % 64 == 0) std::this_thread::yield();
  }
  while (count.load(std::memory_order_acquire) < kTexts) std::this_thread::yield();
  batcher.Stop();
  first.join();
  second.join();
  EXPECT_EQ(seen.size(), static_cast<size_t>(kTexts));
  for (const auto& [name, times] : seen) EXPECT_EQ(times, 1) << name;
}

// While two clients both wait, what they are served differs by a text of each, and by what workers have taken and not
// settled yet.
TEST(RequestBatcher, SeveralWorkersServeTwoClientsEqually) {
  constexpr int kTexts = 2'000, kWorkers = 2;
  constexpr uint32_t kEstimate = 4, kCostMax = 9;
  RequestBatcher::Limits limits = kLimits;
  limits.queue_texts_max = 4 * kTexts;
  limits.queue_bytes_max = 1 << 20;
  RequestBatcher batcher(limits);
  for (int i = 0; i < kTexts; ++i) {
    for (uint64_t client = 1; client <= 2; ++client) {
      batcher.Add(QueuedText(std::to_string(i), kEstimate, client), At(client), false);
    }
  }
  batcher.Flush();
  Mutex mutex;
  int64_t served[2] = {0, 0}, widest = 0;
  int left[2] = {kTexts, kTexts};
  const auto work = [&] {
    TakenText taken;
    for (;;) {
      uint32_t cost = 0;
      {
        const MutexLock lock(mutex);
        if (!batcher.Take(1, true, &taken)) return;
        const size_t client = taken.client - 1;
        cost = taken.client == 1 ? kCostMax : 1;
        served[client] += cost;
        --left[client];
        if (left[0] > 0 && left[1] > 0) widest = std::max(widest, std::abs(served[0] - served[1]));
      }
      std::this_thread::yield();
      batcher.Settle(taken, cost);
    }
  };
  std::thread first(work), second(work);
  first.join();
  second.join();
  EXPECT_LE(widest, int64_t{kCostMax} * (2 + kWorkers));
}

}  // namespace
}  // namespace sutra
