#include "engine/serving/request_batcher.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <thread>
#include <vector>

#include "shm/base/time.h"
#include "shm/layout.h"

namespace sutra {
namespace {

using Names = std::vector<std::string>;

ComputationPtr Text(const std::string& name, uint32_t tokens, uint64_t flow = 1, uint64_t queued_ns = 0) {
  auto computation = std::make_shared<Computation>();
  computation->text = name;
  computation->ids.resize(tokens);
  computation->client = std::make_shared<Client>(flow, 0, 0, "");
  computation->queued_ns = queued_ns == 0 ? MonotonicNs() : queued_ns;
  return computation;
}

RequestBatcher::Limits Tokens(uint32_t tokens_max) {
  return {.tokens_max = tokens_max, .texts_max = 1000, .queue_texts_max = 10'000, .spin_us = 0};
}

Names NamesOf(const std::vector<ComputationPtr>& batch) {
  Names names;
  for (const ComputationPtr& computation : batch) names.push_back(computation->text);
  return names;
}

Names NextNames(RequestBatcher* batcher) {
  std::vector<ComputationPtr> batch;
  const bool any = batcher->TopUp(MonotonicNs(), &batch);
  EXPECT_EQ(any, !batch.empty());
  return NamesOf(batch);
}

TEST(RequestBatcher, TakesWhatIsQueuedInOrderOfArrival) {
  RequestBatcher batcher(Tokens(100));
  for (const char* name : {"a", "b", "c"}) batcher.Add(Text(name, 10), kClassNormal, false);
  EXPECT_EQ(batcher.queued_texts(), 3u);
  EXPECT_EQ(NextNames(&batcher), Names());  // not flushed yet
  batcher.Flush();
  EXPECT_EQ(NextNames(&batcher), Names({"a", "b", "c"}));
  EXPECT_EQ(batcher.queued_texts(), 0u);
  EXPECT_EQ(batcher.queued_tokens(), 0u);
  EXPECT_EQ(NextNames(&batcher), Names());
}

TEST(RequestBatcher, ABatchStaysWithinTheTokenBudget) {
  RequestBatcher batcher(Tokens(25));
  for (const char* name : {"a", "b", "c", "d", "e"}) batcher.Add(Text(name, 10), kClassNormal, false);
  batcher.Flush();
  EXPECT_EQ(NextNames(&batcher), Names({"a", "b"}));
  EXPECT_EQ(NextNames(&batcher), Names({"c", "d"}));
  EXPECT_EQ(NextNames(&batcher), Names({"e"}));
}

TEST(RequestBatcher, ATextOverTheBudgetGoesAlone) {
  RequestBatcher batcher(Tokens(25));
  batcher.Add(Text("large", 100), kClassNormal, false);
  batcher.Add(Text("small", 1), kClassNormal, false);
  batcher.Flush();
  EXPECT_EQ(NextNames(&batcher), Names({"large"}));
  EXPECT_EQ(NextNames(&batcher), Names({"small"}));
}

TEST(RequestBatcher, QueriesComeFirstAndBulkLast) {
  RequestBatcher batcher(Tokens(100));
  batcher.Add(Text("bulk", 1), kClassBulk, false);
  batcher.Add(Text("normal", 1), kClassNormal, false);
  batcher.Add(Text("query", 1), kClassQuery, false);
  batcher.Flush();
  EXPECT_EQ(NextNames(&batcher), Names({"query", "normal", "bulk"}));
}

TEST(RequestBatcher, AClientWithManyTextsDoesNotDelayOneWithFew) {
  RequestBatcher batcher(Tokens(40));
  for (int i = 0; i < 100; ++i) batcher.Add(Text("many" + std::to_string(i), 10, 1), kClassNormal, false);
  for (int i = 0; i < 4; ++i) batcher.Add(Text("few" + std::to_string(i), 10, 2), kClassNormal, false);
  batcher.Flush();
  EXPECT_EQ(NextNames(&batcher), Names({"many0", "few0", "many1", "few1"}));
  EXPECT_EQ(NextNames(&batcher), Names({"many2", "few2", "many3", "few3"}));
  EXPECT_EQ(NextNames(&batcher), Names({"many4", "many5", "many6", "many7"}));
}

TEST(RequestBatcher, FairMeansTokensNotTexts) {
  RequestBatcher batcher(Tokens(60));
  for (int i = 0; i < 4; ++i) batcher.Add(Text("long" + std::to_string(i), 30, 1), kClassNormal, false);
  for (int i = 0; i < 8; ++i) batcher.Add(Text("short" + std::to_string(i), 10, 2), kClassNormal, false);
  batcher.Flush();
  EXPECT_EQ(NextNames(&batcher), Names({"long0", "short0", "short1", "short2"}));
}

TEST(RequestBatcher, BulkThatWaitedLongGetsAShareAheadOfQueries) {
  RequestBatcher batcher(Tokens(40));
  const uint64_t long_ago_ns = MonotonicNs() - 2 * RequestBatcher::kAgingNs;
  for (int i = 0; i < 8; ++i) batcher.Add(Text("bulk" + std::to_string(i), 5, 1, long_ago_ns), kClassBulk, false);
  for (int i = 0; i < 8; ++i) batcher.Add(Text("query" + std::to_string(i), 5, 2), kClassQuery, false);
  batcher.Flush();
  EXPECT_EQ(NextNames(&batcher), Names({"bulk0", "bulk1", "query0", "query1", "query2", "query3", "query4", "query5"}));
}

// What the worker does: it removes candidates outside the batcher's lock and asks for texts that fit in their place.
TEST(RequestBatcher, WhoIsNoLongerWantedDoesNotFillTheBatch) {
  RequestBatcher batcher(Tokens(20));
  for (const char* name : {"a", "gone", "b", "c"}) batcher.Add(Text(name, 10), kClassNormal, false);
  batcher.Flush();
  std::vector<ComputationPtr> batch;
  ASSERT_TRUE(batcher.NextBatch(&batch));
  ASSERT_EQ(NamesOf(batch), Names({"a", "gone"}));
  batch.pop_back();
  EXPECT_TRUE(batcher.TopUp(MonotonicNs(), &batch));
  EXPECT_EQ(NamesOf(batch), Names({"a", "b"}));
  EXPECT_FALSE(batcher.TopUp(MonotonicNs(), &batch));  // full, though a text is queued
  EXPECT_EQ(NamesOf(batch), Names({"a", "b"}));
  EXPECT_EQ(NextNames(&batcher), Names({"c"}));
  EXPECT_EQ(batcher.queued_texts(), 0u);
}

TEST(RequestBatcher, FillingUpKeepsBudgetOrderAndTheBoundOfTexts) {
  RequestBatcher::Limits limits = Tokens(40);
  limits.texts_max = 3;
  RequestBatcher batcher(limits);
  batcher.Add(Text("bulk", 10, 3), kClassBulk, false);
  for (const char* name : {"many0", "many1", "many2"}) batcher.Add(Text(name, 10, 1), kClassNormal, false);
  batcher.Add(Text("few", 10, 2), kClassNormal, false);
  batcher.Flush();
  std::vector<ComputationPtr> batch = {Text("mine", 15, 3)};
  EXPECT_TRUE(batcher.TopUp(MonotonicNs(), &batch));
  EXPECT_EQ(NamesOf(batch), Names({"mine", "many0", "few"}));  // 35 of 40 tokens, fair
  batch.erase(batch.begin() + 1);
  batcher.Add(Text("large", 20, 2), kClassQuery, false);
  batcher.Flush();
  EXPECT_TRUE(batcher.TopUp(MonotonicNs(), &batch));
  EXPECT_EQ(NamesOf(batch),
            Names({"mine", "few", "many1"}));  // "large" does not fit; texts that fit do not wait for it
  batch.clear();
  EXPECT_TRUE(batcher.TopUp(MonotonicNs(), &batch));
  EXPECT_EQ(NamesOf(batch), Names({"large", "many2", "bulk"}));
}

TEST(RequestBatcher, ARaisedTextIsHandedOutOnceAndEarly) {
  RequestBatcher batcher(Tokens(10));
  const ComputationPtr raised = Text("raised", 10);
  batcher.Add(Text("first", 10), kClassBulk, false);
  batcher.Add(raised, kClassBulk, false);
  batcher.Add(raised, kClassQuery, true);
  batcher.Flush();
  EXPECT_EQ(batcher.queued_texts(), 2u);
  EXPECT_EQ(NextNames(&batcher), Names({"raised"}));
  EXPECT_EQ(NextNames(&batcher), Names({"first"}));
  EXPECT_EQ(NextNames(&batcher), Names());
}

TEST(RequestBatcher, SaysFullAtItsBound) {
  RequestBatcher::Limits limits = Tokens(100);
  limits.queue_texts_max = 2;
  RequestBatcher batcher(limits);
  batcher.Add(Text("a", 1), kClassNormal, false);
  EXPECT_FALSE(batcher.full());
  batcher.Add(Text("b", 1), kClassNormal, false);
  EXPECT_TRUE(batcher.full());
  batcher.Flush();
  NextNames(&batcher);
  EXPECT_FALSE(batcher.full());
}

TEST(RequestBatcher, StopEndsASleepingWorker) {
  RequestBatcher batcher(Tokens(100));
  std::thread worker([&] {
    std::vector<ComputationPtr> batch;
    EXPECT_FALSE(batcher.NextBatch(&batch));
  });
  batcher.Stop();
  worker.join();
}

// A worker passes in its last batch, whose texts are answered already: whatever Stop races with, NextBatch must not
// mistake them for texts that it found.
TEST(RequestBatcher, AfterStopTheLastBatchIsNotHandedOutAgain) {
  RequestBatcher batcher(Tokens(100));
  batcher.Add(Text("served", 1), kClassNormal, false);
  batcher.Flush();
  std::vector<ComputationPtr> batch;
  EXPECT_TRUE(batcher.NextBatch(&batch));
  EXPECT_EQ(NamesOf(batch), Names({"served"}));
  batcher.Stop();
  EXPECT_FALSE(batcher.NextBatch(&batch));
  EXPECT_EQ(NamesOf(batch), Names());
}

// Two workers and a loop that flushes one text at a time, so that the workers fall asleep often: each text is handed
// out exactly once, and no worker sleeps while work is queued (the test would not end).
TEST(RequestBatcher, EveryTextReachesExactlyOneOfSeveralWorkers) {
  constexpr int kTexts = 5'000;
  RequestBatcher batcher(Tokens(8));
  Mutex mutex;
  std::map<std::string, int> seen;
  std::atomic<int> count{0};
  const auto work = [&] {
    std::vector<ComputationPtr> batch;
    while (batcher.NextBatch(&batch)) {
      const MutexLock lock(mutex);
      for (const ComputationPtr& computation : batch) ++seen[computation->text];
      count.fetch_add(static_cast<int>(batch.size()), std::memory_order_release);
    }
  };
  std::thread first(work), second(work);
  for (int i = 0; i < kTexts; ++i) {
    batcher.Add(Text(std::to_string(i), 1 + static_cast<uint32_t>(i % 3), static_cast<uint64_t>(i % 4)),
                static_cast<PriorityClass>(i % 3), false);
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

}  // namespace
}  // namespace sutra
