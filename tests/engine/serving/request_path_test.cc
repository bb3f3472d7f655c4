// What the loop thread does with a taken request, up to the batcher: without a worker, so that texts stay there.
#include "engine/serving/request_path.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "shm/stats/stats_segment.h"
#include "tests/kit/gated_backend.h"
#include "tests/kit/hot_client.h"
#include "tests/kit/memory_cache.h"
#include "tests/kit/scripted_lane.h"

namespace sutra {
namespace {

using testing::GatedBackend;
using testing::MemoryCache;
using testing::ScriptedLane;
using testing::ScriptedRequest;

constexpr uint32_t kWidth = 4;
constexpr uint32_t kTokensMax = 16;
constexpr uint64_t kTtlDefault = 77;

class RequestPathTest : public ::testing::Test {
 protected:
  RequestPathTest() { Make(&cache_, 100); }
  void Make(CacheShard* cache, uint32_t queue_texts_max) {
    path_.reset();
    model_.emplace(ServedModel::Options{.backend = &backend_,
                                        .cache = cache,
                                        .hot = hot_.get(),
                                        .ttl_s_default = kTtlDefault,
                                        .batches = {.tokens_max = 100,
                                                    .texts_max = 100,
                                                    .queue_texts_max = queue_texts_max,
                                                    .queue_bytes_max = queue_bytes_max_,
                                                    .spin_us = 0},
                                        .stats = stats_->writer()});
    path_.emplace(&*model_);
  }
  // Submits, takes and handles one request, and flushes the result to the batcher's workers.
  void Send(uint32_t slot, const std::string& text, const ScriptedRequest& request = {}) {
    SendFrom(&scripted_, slot, text, request);
  }
  void SendFrom(ScriptedLane* lane, uint32_t slot, const std::string& text, const ScriptedRequest& request = {}) {
    lane->Submit(slot, text, request);
    LaneReader::Taken taken;
    const char* why = "";
    ASSERT_EQ(reader_.Take(lane->lane(), &taken, &why), LaneReader::Next::kTaken) << why;
    ASSERT_TRUE(path_->Handle(&taken));
    model_->batcher.Flush();
  }
  bool Answered(uint32_t slot) const { return scripted_.answered_sequence(slot) != 0; }
  std::vector<ComputationPtr> Queued() {
    std::vector<ComputationPtr> queued;
    TakenText taken;
    while (model_->batcher.Take(1, true, &taken)) {
      charged_.push_back(taken.client);
      queued.push_back(taken.computation);
    }
    return queued;
  }
  void Store(const std::string& text, bool truncated = false) {
    cache_.Insert(text, 0, std::vector<float>{1, 0, 0, 0}, {.norm = 2, .token_count = 3, .truncated = truncated}, 1);
  }
  uint64_t Count(Counter counter) { return stats_->writer().Get(counter); }

  std::unique_ptr<StatsSegment> stats_ = StatsSegment::CreatePrivate();
  GatedBackend backend_{kWidth, kTokensMax};
  MemoryCache cache_;
  ScriptedLane scripted_{LaneGeometry{16, 4096, kWidth}, 1, 42};
  ScriptedLane other_{LaneGeometry{16, 4096, kWidth}, 2, 43};
  std::unique_ptr<HotCache> hot_ = std::move(HotCache::Create(kWidth, kHotBytesMin, 77)).value();
  ScriptedLane with_table_{LaneGeometry{16, 4096, kWidth}, 3, 44, true};
  LaneReader reader_{4096};
  uint64_t queue_bytes_max_ = 1 << 20;
  std::optional<ServedModel> model_;
  std::optional<RequestPath> path_;
  std::vector<uint64_t> charged_;  // whose turn each of Queued was
};

TEST_F(RequestPathTest, AMissIsCopiedAndQueuedForItsClientAtItsEstimate) {
  Send(3, "apple", {.sequence = 9});
  EXPECT_FALSE(Answered(3));
  EXPECT_EQ(model_->in_flight.size(), 1u);
  const std::vector<ComputationPtr> queued = Queued();
  ASSERT_EQ(queued.size(), 1u);
  EXPECT_EQ(queued[0]->text, "apple");
  EXPECT_EQ(queued[0]->cost_estimate, 1u);  // of four bytes
  EXPECT_EQ(queued[0]->token_count, 0u);
  EXPECT_EQ(queued[0]->client->id, 42u);
  EXPECT_EQ(queued[0]->client->queued_bytes.load(std::memory_order_relaxed), 5u);
  EXPECT_EQ(model_->in_flight.LifetimeToStore(queued[0]), kTtlDefault);
  const std::vector<Waiter> waiters = model_->in_flight.Finish(queued[0]);
  ASSERT_EQ(waiters.size(), 1u);
  EXPECT_EQ(waiters[0].slot, 3u);
  EXPECT_EQ(waiters[0].sequence, 9u);
  EXPECT_EQ(Count(Counter::kMisses), 1u);
}

TEST_F(RequestPathTest, AHitIsAnsweredHereAndTouchesNeitherTableNorQueue) {
  Store("apple");
  Send(0, "apple");
  ASSERT_TRUE(Answered(0));
  EXPECT_EQ(scripted_.status(0), StatusCode::kOk);
  EXPECT_EQ(scripted_.vector(0), (std::vector<float>{1, 0, 0, 0}));
  Send(1, "apple", {.options = kOptionRaw});
  EXPECT_EQ(scripted_.vector(1), (std::vector<float>{2, 0, 0, 0}));
  EXPECT_EQ(model_->in_flight.size(), 0u);
  EXPECT_EQ(model_->batcher.queued_texts(), 0u);
  EXPECT_EQ(Count(Counter::kHits), 2u);
}

TEST_F(RequestPathTest, TheLookupIsSkippedOnDemand) {
  Store("apple");
  Send(0, "apple", {.options = kOptionCacheSkipLookup});
  EXPECT_FALSE(Answered(0));
  EXPECT_EQ(Queued().size(), 1u);
}

// The first use is computed, the second is a hit of the shard: the third need not come here.
TEST_F(RequestPathTest, AHitOfAClientWithTheHotTableIsPublishedThereWithUnitLength) {
  Store("apple");
  Store("pear");
  Send(0, "apple");
  EXPECT_EQ(hot_->figures().published, 0u) << "this client has no table to look into";
  SendFrom(&with_table_, 0, "apple", {.options = kOptionRaw});
  EXPECT_EQ(with_table_.vector(0), (std::vector<float>{2, 0, 0, 0}));
  test::HotClient client(hot_->fd(), kWidth, hot_->slots());
  client.Beat();
  hot_->Beat();
  const std::optional<test::HotClient::Hit> hit = client.Find("apple");
  ASSERT_TRUE(hit.has_value());
  EXPECT_EQ(hit->unit, (std::vector<float>{1, 0, 0, 0}));
  EXPECT_EQ(hit->value.norm, 2.f);
  EXPECT_EQ(hit->value.token_count, 3u);
  SendFrom(&with_table_, 1, "pear", {.options = kOptionCacheSkipLookup});
  SendFrom(&with_table_, 2, "plum");
  EXPECT_EQ(hot_->figures().published, 1u) << "neither was answered by the shard";
}

// Removals are counted before the shard is asked: its answer may be of before the removal.
TEST_F(RequestPathTest, AHitBesideARemovalIsAnsweredButNotPublished) {
  Store("apple");
  cache_.on_lookup = [&](std::string_view text) { hot_->OnErased(text, 0, ++cache_.removals); };
  SendFrom(&with_table_, 0, "apple");
  EXPECT_EQ(with_table_.status(0), StatusCode::kOk);
  EXPECT_EQ(hot_->figures().published, 0u);
  cache_.on_lookup = nullptr;
  SendFrom(&with_table_, 1, "apple");
  EXPECT_EQ(hot_->figures().published, 1u);
}

TEST_F(RequestPathTest, WithoutACacheEveryTextIsComputed) {
  Make(nullptr, 100);
  Send(0, "apple");
  EXPECT_EQ(Queued().size(), 1u);
}

TEST_F(RequestPathTest, ATextUnderWayIsJoinedUnlessItIsCachedByNow) {
  Send(0, "apple");
  Send(1, "apple");
  EXPECT_FALSE(Answered(1));
  EXPECT_EQ(Count(Counter::kJoined), 1u);
  Store("apple");
  Send(2, "apple");
  EXPECT_TRUE(Answered(2));
  const std::vector<ComputationPtr> queued = Queued();
  ASSERT_EQ(queued.size(), 1u);
  EXPECT_EQ(model_->in_flight.Finish(queued[0]).size(), 2u);
}

TEST_F(RequestPathTest, AfterARemovalATextUnderWayIsNotJoinedButComputedAnew) {
  Send(0, "apple");
  cache_.removals = 1;
  Send(1, "apple");
  Send(2, "apple");  // joins the second
  const std::vector<ComputationPtr> queued = Queued();
  ASSERT_EQ(queued.size(), 2u);
  EXPECT_EQ(queued[0]->removals_seen, 0u);
  EXPECT_EQ(queued[1]->removals_seen, 1u);
  EXPECT_EQ(model_->in_flight.Finish(queued[0]).size(), 1u);
  EXPECT_EQ(model_->in_flight.Finish(queued[1]).size(), 2u);
}

// It has seen what was removed before it looked into the cache, not what is removed while it looks.
TEST_F(RequestPathTest, ARemovalBesideTheLookupCountsAsOneAfterTheComputationBegan) {
  cache_.after_lookup = [&](std::string_view) { cache_.removals = 5; };
  Send(0, "apple");
  const std::vector<ComputationPtr> queued = Queued();
  ASSERT_EQ(queued.size(), 1u);
  EXPECT_EQ(queued[0]->removals_seen, 0u);
}

// The worker stores and ends the computation just after the lookup missed: the text is in neither of the two looks.
TEST_F(RequestPathTest, ATextThatEndsBetweenTheTwoLooksIsNotComputedAgain) {
  Send(0, "apple");
  const std::vector<ComputationPtr> queued = Queued();
  ASSERT_EQ(queued.size(), 1u);
  cache_.after_lookup = [&](std::string_view) {
    cache_.after_lookup = nullptr;
    Store("apple");
    model_->in_flight.Finish(queued[0]);
  };
  Send(1, "apple");
  EXPECT_TRUE(Answered(1));
  EXPECT_EQ(Count(Counter::kMisses), 1u);
}

TEST_F(RequestPathTest, ARequestThatMeetsAHeldLockIsLeftAsItWas) {
  Store("apple");
  scripted_.Submit(0, "apple");
  LaneReader::Taken taken;
  const char* why = "";
  ASSERT_EQ(reader_.Take(scripted_.lane(), &taken, &why), LaneReader::Next::kTaken);
  cache_.SetBusy("apple");
  EXPECT_FALSE(path_->Handle(&taken));
  EXPECT_FALSE(path_->HandleAgain(&taken));
  EXPECT_FALSE(Answered(0));
  cache_.SetBusy("");
  EXPECT_TRUE(path_->HandleAgain(&taken));
  EXPECT_TRUE(Answered(0));
  EXPECT_EQ(Count(Counter::kTexts), 1u);
  EXPECT_EQ(Count(Counter::kHits), 1u);
}

TEST_F(RequestPathTest, AJoinOfAHigherClassIsServedInItsClass) {
  Send(0, "bulk", {.priority = 2});
  Send(1, "normal");
  Send(2, "bulk", {.priority = 1});
  const std::vector<ComputationPtr> queued = Queued();
  ASSERT_EQ(queued.size(), 2u);
  EXPECT_EQ(queued[0]->text, "bulk");
}

TEST_F(RequestPathTest, LifetimesAreTheDefaultOrCutToTheLongest) {
  Send(0, "asked", {.ttl_s = 5});
  Send(1, "longest", {.ttl_s = UINT32_MAX});
  Send(2, "unstored", {.options = kOptionCacheSkipStore});
  const std::vector<ComputationPtr> queued = Queued();
  ASSERT_EQ(queued.size(), 3u);
  EXPECT_EQ(model_->in_flight.LifetimeToStore(queued[0]), 5u);
  EXPECT_EQ(model_->in_flight.LifetimeToStore(queued[1]), 10ull * 365 * 86'400);
  EXPECT_EQ(model_->in_flight.LifetimeToStore(queued[2]), std::nullopt);
}

// A query that joins a text deep in another client's bulk does not wait behind it, and pays for it.
TEST_F(RequestPathTest, AJoinByAnotherClientWaitsAtThatClientAndIsChargedToIt) {
  for (uint32_t slot = 0; slot < 5; ++slot) Send(slot, "bulk" + std::to_string(slot), {.priority = 2});
  SendFrom(&other_, 0, "bulk4", {.priority = 2});
  SendFrom(&other_, 1, "bulk4", {.priority = 2});  // in the queue already, in the same class
  const std::vector<ComputationPtr> queued = Queued();
  ASSERT_EQ(queued.size(), 5u);
  EXPECT_EQ(queued[1]->text, "bulk4");
  EXPECT_EQ(charged_, std::vector<uint64_t>({42, 43, 42, 42, 42}));
  EXPECT_EQ(queued[1]->client->id, 42u);
  EXPECT_EQ(model_->in_flight.Finish(queued[1]).size(), 3u);
}

TEST_F(RequestPathTest, AJoinOfALowerClassIsNotQueuedAgain) {
  Send(0, "normal");
  Send(1, "bulk", {.priority = 2});
  Send(2, "normal", {.priority = 2});
  EXPECT_EQ(model_->batcher.queued_texts(), 2u);
  EXPECT_EQ(Queued().size(), 2u);
}

TEST_F(RequestPathTest, ATruncatedTextIsRefusedAsAskedWhereItIsKnownToBeTruncated) {
  Send(0, "long", {.options = kOptionReject});
  EXPECT_FALSE(Answered(0));  // the worker will know
  const std::vector<ComputationPtr> queued = Queued();
  std::vector<Waiter> removed;
  Send(1, "long");
  EXPECT_TRUE(model_->in_flight.Truncate(queued.at(0), &removed));
  Send(2, "long", {.options = kOptionReject});
  EXPECT_EQ(scripted_.status(2), StatusCode::kTextTooLong);
  Store("stored", true);
  Send(3, "stored", {.options = kOptionReject});
  EXPECT_EQ(scripted_.status(3), StatusCode::kTextTooLong);
}

// With one bound for all together, whoever fills the queue has everybody else refused.
TEST_F(RequestPathTest, BeyondItsShareAClientIsRefusedAndOthersAreNot) {
  Make(&cache_, 4);
  Send(0, "first");
  Send(1, "second");
  Send(2, "third");
  EXPECT_EQ(scripted_.status(2), StatusCode::kOverloaded);
  EXPECT_EQ(scripted_.result(2).retry_after_ms, QueueBounds::kRetryMsUnknown);
  SendFrom(&other_, 0, "theirs");
  EXPECT_EQ(other_.answered_sequence(0), 0u);
  Store("hit");
  Send(3, "hit");
  Send(4, "first");  // joins: it does not count towards the bound
  EXPECT_EQ(scripted_.status(3), StatusCode::kOk);
  EXPECT_FALSE(Answered(4));
  EXPECT_EQ(Queued().size(), 3u);
}

TEST_F(RequestPathTest, CopiesOfTextsAreBoundedInBytes) {
  queue_bytes_max_ = 8192;
  Make(&cache_, 100);
  Send(0, std::string(4096, 'a'));
  Send(1, "b");  // half of the bytes are taken
  EXPECT_EQ(scripted_.status(1), StatusCode::kOverloaded);
  SendFrom(&other_, 0, "c");
  EXPECT_EQ(other_.answered_sequence(0), 0u);
  EXPECT_EQ(model_->batcher.queued_bytes(), 4097u);
}

TEST_F(RequestPathTest, WhatTheReaderRefusedIsAnsweredWithItsReason) {
  Send(0, "");
  Send(1, "apple", {.options = 1u << 30});
  EXPECT_EQ(scripted_.status(0), StatusCode::kEmptyText);
  EXPECT_EQ(scripted_.status(1), StatusCode::kBadOption);
  EXPECT_EQ(Count(Counter::kTexts), 2u);
}

}  // namespace
}  // namespace sutra
