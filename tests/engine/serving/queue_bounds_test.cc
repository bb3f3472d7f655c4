#include "engine/serving/queue_bounds.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "tests/kit/seed.h"

namespace sutra {
namespace {

constexpr uint64_t kBytesMax = 1 << 20;

ClientPtr NewClient(uint64_t id) { return std::make_shared<Client>(id, 0, 0, ""); }

uint64_t Fill(QueueBounds* bounds, Client* client, size_t bytes = 0) {
  uint64_t count = 0;
  for (; bounds->Admits(*client, bytes); ++count) bounds->Add(client, bytes, 1);
  return count;
}

// With one bound for all together, one client fills the queue, and everybody else's texts are refused.
TEST(QueueBounds, OneClientHoldsAtMostHalfAndKClientsLeaveAPartInKPlusOne) {
  for (uint64_t k = 1; k <= 9; ++k) {
    QueueBounds bounds(1000, kBytesMax);
    std::vector<ClientPtr> clients;
    for (uint64_t i = 0; i < k; ++i) clients.push_back(NewClient(i));
    for (bool any = true; any;) {  // all want all they can get, one text at a time
      any = false;
      for (const ClientPtr& client : clients) {
        if (!bounds.Admits(*client, 1)) continue;
        bounds.Add(client.get(), 1, 1);
        any = true;
      }
    }
    const ClientPtr newcomer = NewClient(99);
    EXPECT_TRUE(bounds.Admits(*newcomer, 1)) << k;
    EXPECT_GE(1000 - bounds.texts() + k, 1000 / (k + 1)) << k;
    EXPECT_LE(clients[0]->queued_texts.load(std::memory_order_relaxed), 1000 / 2) << k;
  }
}

TEST(QueueBounds, BytesAreSharedTheSameWay) {
  QueueBounds bounds(1000, 1000);
  const ClientPtr greedy = NewClient(1), modest = NewClient(2);
  EXPECT_EQ(Fill(&bounds, greedy.get(), 100), 5u);
  EXPECT_FALSE(bounds.Admits(*greedy, 1));
  EXPECT_TRUE(bounds.Admits(*modest, 100));
  EXPECT_FALSE(bounds.Admits(*modest, 501));
}

TEST(QueueBounds, AnEmptyQueueTakesATextOfItsWholeSizeAndNoneLarger) {
  QueueBounds bounds(1, 1000);
  const ClientPtr client = NewClient(1);
  EXPECT_FALSE(bounds.Admits(*client, 1001));
  EXPECT_FALSE(bounds.Admits(*client, SIZE_MAX));
  EXPECT_TRUE(bounds.Admits(*client, 1000));
  bounds.Add(client.get(), 1000, 1);
  EXPECT_FALSE(bounds.Admits(*client, 0));
  bounds.Remove(client.get(), 1000, 1);
  EXPECT_TRUE(bounds.Admits(*client, 1000));
  EXPECT_EQ(client->queued_texts.load(std::memory_order_relaxed), 0u);
  EXPECT_EQ(client->queued_bytes.load(std::memory_order_relaxed), 0u);
}

// Random arrivals and services: the sums stay within the bounds; whoever is refused for texts has a queue at least as
// long as any that is admitted; as long as a place is free a client without texts gets in.
TEST(QueueBounds, TheLongestQueueIsRefusedFirstAndTheBoundsHold) {
  constexpr uint64_t kTextsMax = 64, kClients = 7;
  std::mt19937_64 random(test::TestSeed());
  QueueBounds bounds(kTextsMax, kBytesMax);
  std::vector<ClientPtr> clients;
  for (uint64_t i = 0; i < kClients; ++i) clients.push_back(NewClient(i));
  std::deque<std::pair<Client*, size_t>> waiting;
  uint64_t refused = 0;
  for (int step = 0; step < 100'000; ++step) {
    uint64_t longest_admitted = 0, shortest_refused = UINT64_MAX, bytes = 0;
    for (const ClientPtr& client : clients) {
      const uint64_t queued = client->queued_texts.load(std::memory_order_relaxed);
      bytes += client->queued_bytes.load(std::memory_order_relaxed);
      if (bounds.Admits(*client, 0)) {
        longest_admitted = std::max(longest_admitted, queued);
      } else if (client->queued_bytes.load(std::memory_order_relaxed) <= kBytesMax - bounds.bytes()) {
        shortest_refused = std::min(shortest_refused, queued);
      }
      ASSERT_TRUE(queued != 0 || bounds.texts() >= kTextsMax || bounds.Admits(*client, 0));
    }
    ASSERT_LE(longest_admitted, shortest_refused);
    ASSERT_LE(bounds.texts(), kTextsMax);
    ASSERT_LE(bounds.bytes(), kBytesMax);
    ASSERT_EQ(bounds.texts(), waiting.size());
    ASSERT_EQ(bounds.bytes(), bytes);
    if (random() % 5 < 3) {
      Client* client = clients[std::min(random() % kClients, random() % kClients)].get();
      const size_t text_bytes = random() % (kBytesMax / 40);
      if (!bounds.Admits(*client, text_bytes)) {
        ++refused;
        continue;
      }
      bounds.Add(client, text_bytes, 3);
      waiting.emplace_back(client, text_bytes);
    } else if (!waiting.empty()) {
      bounds.Remove(waiting.front().first, waiting.front().second, 3);
      waiting.pop_front();
    }
  }
  EXPECT_GT(refused, 1000u);  // the canary: the bounds were reached
}

TEST(QueueBounds, TheHintIsTheTimeOfHalfTheQueueAtTheMeasuredRateWithinItsRange) {
  QueueBounds bounds(1000, kBytesMax);
  const ClientPtr client = NewClient(1);
  bounds.Add(client.get(), 0, 4000);
  EXPECT_EQ(bounds.RetryAfterMs(), QueueBounds::kRetryMsUnknown);
  bounds.CountServed(1000, 1'000'000'000);
  EXPECT_EQ(bounds.RetryAfterMs(), 2000u);
  for (int i = 0; i < 100; ++i) bounds.CountServed(2000, 1'000'000'000);
  EXPECT_NEAR(bounds.RetryAfterMs(), 1000u, 1);
  bounds.Remove(client.get(), 0, 4000);
  EXPECT_EQ(bounds.RetryAfterMs(), 1u);
  bounds.Add(client.get(), 0, 4'000'000'000);
  EXPECT_EQ(bounds.RetryAfterMs(), QueueBounds::kRetryMsMax);
  bounds.CountServed(1000, 0);
  EXPECT_EQ(bounds.RetryAfterMs() >= 1, true);
}

}  // namespace
}  // namespace sutra
