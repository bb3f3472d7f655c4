// Looking for a text in the hot table of a lane's engine, which the test plays; and the calls that do it, at an engine
// that publishes whatever it answers.
#include "producer/hot_lookup.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "shm/base/time.h"
#include "tests/producer/client_fixture.h"
#include "tests/producer/lane_fixture.h"

namespace sutra::test {
namespace {

constexpr uint32_t kWidth = EngineEnd::kWidth;

class HotLookup : public LaneTest {
 protected:
  HotLookup() { writer_ = &engine_.MakeHotTable(64); }

  std::vector<float> Unit(float first) const {
    std::vector<float> unit(kWidth);
    for (uint32_t i = 0; i < kWidth; ++i) unit[i] = first + static_cast<float>(i);
    return unit;
  }
  void Publish(const std::string& text, uint32_t slot, HotValue value = {}) {
    if (value.expires_ns == 0) value.expires_ns = UINT64_MAX;
    HotKey key = writer_->KeyOf(text, 0);
    writer_->Write(slot, &key, Unit(static_cast<float>(slot)), value);
  }
  bool Find(const std::string& text, const client::Request& request = {}) {
    Beat();
    return Look(text, request);
  }
  bool Look(const std::string& text, const client::Request& request = {}) {
    const MutexLock lock(lane_->mutex);
    return client::FindHotLocked(lane_, text.data(), static_cast<uint32_t>(text.size()), request, vector_, &answer_);
  }
  void Beat(uint64_t age_ns = 0) {
    engine_.page()->heartbeat_ns.store(MonotonicNs() - age_ns, std::memory_order_relaxed);  // relaxed: one thread
  }
  ClientLine& Line() const { return Request0().client(); }
  RequestLane Request0() const { return lane_request_; }
  void SetUp() override {
    LaneTest::SetUp();
    lane_request_ = Current()->connection.mapping.request;
  }

  HotWriter* writer_;
  RequestLane lane_request_;
  float vector_[kWidth] = {};
  client::HotAnswer answer_;
};

TEST_F(HotLookup, FindsWhatTheEnginePublished) {
  Publish("a text", 5, {.norm = 3, .token_count = 17, .flags = kResultTruncated});
  EXPECT_FALSE(Find("another text"));
  const uint64_t before_ns = CycleNs();
  ASSERT_TRUE(Find("a text"));
  EXPECT_EQ(answer_.token_count, 17u);
  EXPECT_TRUE(answer_.truncated);
  EXPECT_GE(answer_.found_ns, before_ns);
  EXPECT_LE(answer_.found_ns, CycleNs());
}

TEST_F(HotLookup, VectorsAreOfUnitLengthOrRawAsTheRequestSays) {
  Publish("a text", 5, {.norm = 3});
  const std::vector<float> unit = Unit(5);
  client::Request request;
  request.flags = kOptionNormalize;
  ASSERT_TRUE(Find("a text", request));
  EXPECT_EQ(std::memcmp(vector_, unit.data(), sizeof(vector_)), 0);
  for (const uint32_t flags : {uint32_t{0}, uint32_t{kOptionRaw}}) {  // this engine does not normalise by default
    request.flags = flags;
    ASSERT_TRUE(Find("a text", request));
    for (uint32_t i = 0; i < kWidth; ++i) EXPECT_EQ(vector_[i], unit[i] * 3) << i;
  }
}

TEST_F(HotLookup, RequestsThatWantSomethingElseGoToTheEngine) {
  Publish("a text", 5, {.norm = 1, .token_count = 1, .flags = kResultTruncated});
  Publish("a whole text", 6, {.norm = 1});
  client::Request request;
  request.flags = kOptionCacheSkipLookup;
  EXPECT_FALSE(Find("a text", request));
  request.flags = kOptionReject;
  EXPECT_FALSE(Find("a text", request)) << "it is truncated: the engine refuses it";
  EXPECT_TRUE(Find("a whole text", request));
  request.flags = kOptionCacheSkipStore;
  EXPECT_TRUE(Find("a text", request));
  request.width = kWidth - 1;
  EXPECT_FALSE(Find("a text", request));
  request.width = kWidth;
  EXPECT_TRUE(Find("a text", request));
  const std::string longest(kHotTextBytesMax, 'x');
  Publish(longest, 7);
  Publish(longest + "x", 8);
  EXPECT_TRUE(Find(longest));
  EXPECT_FALSE(Find(longest + "x"));
}

TEST_F(HotLookup, AMissLeavesTheVectorAlone) {
  Publish("expired", 5, {.expires_ns = 1});
  std::memset(vector_, 0x7f, sizeof(vector_));
  EXPECT_FALSE(Find("missing"));
  EXPECT_FALSE(Find("expired"));
  for (const float value : vector_) EXPECT_EQ(std::memcmp(&value, "\x7f\x7f\x7f\x7f", 4), 0);
}

TEST_F(HotLookup, NothingIsFoundOnceTheHeartbeatIsOldOrTheTableClosed) {
  Publish("a text", 5);
  Beat(kHotHeartbeatNsMax);
  EXPECT_FALSE(Look("a text"));
  EXPECT_TRUE(Find("a text"));
  writer_->Close();
  EXPECT_FALSE(Find("a text"));
}

TEST_F(HotLookup, ARemovedTextIsNotFound) {
  Publish("a text", 5);
  Publish("another", 6);
  writer_->Remove(5);
  EXPECT_FALSE(Find("a text"));
  EXPECT_TRUE(Find("another"));
  writer_->Clear();
  EXPECT_FALSE(Find("another"));
}

TEST_F(HotLookup, HitsAreCountedAndEveryEighthIsHintedAt) {
  Publish("a text", 5);
  EXPECT_FALSE(Find("missing"));
  EXPECT_EQ(Line().hot_hits.load(std::memory_order_relaxed), 0u);
  for (uint32_t hits = 1; hits <= kHotHintEvery * kHotHintsPerLane; ++hits) {
    ASSERT_TRUE(Find("a text"));
    EXPECT_EQ(Line().hot_hits.load(std::memory_order_relaxed), hits);
    uint32_t hints = 0;
    for (const auto& hint : Line().hot_hints) {
      const uint32_t value = hint.load(std::memory_order_relaxed);
      EXPECT_TRUE(value == 0 || value == 6) << "slot + 1";
      hints += value != 0 ? 1 : 0;
    }
    EXPECT_EQ(hints, hits / kHotHintEvery);
  }
}

TEST_F(HotLookup, ATokenCountIsNoLargerThanTheModelTakes) {
  Publish("a text", 5, {.token_count = UINT32_MAX});
  ASSERT_TRUE(Find("a text"));
  EXPECT_EQ(answer_.token_count, EngineEnd::kTokensMax);
}

TEST_F(HotLookup, AnEngineInAnotherTimeNamespaceIsReadOnItsOwnClock) {
  Publish("a text", 5);
  const int64_t ahead_ns = 3'600'000'000'000;
  Current()->connection.engine_clock_ahead_ns_max = ahead_ns;
  EXPECT_FALSE(Find("a text")) << "by our clock the heartbeat is young, by its own it is an hour old";
  engine_.page()->heartbeat_ns.store(MonotonicNs() + static_cast<uint64_t>(ahead_ns), std::memory_order_relaxed);
  EXPECT_TRUE(Look("a text"));
}

// The calls, at an engine of its own process that publishes what it answers.
class HotCalls : public ClientTest {
 protected:
  static constexpr uint32_t kEchoWidth = 16;
  EchoEngine& StartHot(uint32_t slots = 512) {
    EchoOptions options;
    options.width = kEchoWidth;
    options.hot_slots = slots;
    return StartEngine(options);
  }
  static sutra_result One(const ClientPtr& client, const std::string& text, const sutra_options* options = nullptr) {
    float vector[kEchoWidth] = {};
    sutra_result result = embed::Result();
    EXPECT_EQ(sutra_embed(client.get(), text.data(), text.size(), options, vector, &result), SUTRA_OK)
        << sutra_error_text();
    EXPECT_TRUE(IsEchoOf(text, vector, kEchoWidth));
    EXPECT_EQ(result.vector, vector);
    EXPECT_EQ(result.width, kEchoWidth);
    return result;
  }
};

TEST_F(HotCalls, AnEmbedIsAnsweredFromTheTableWithoutTheEngine) {
  EchoEngine& engine = StartHot();
  const ClientPtr client = Attach();
  EXPECT_EQ(One(client, "a text").source, SUTRA_SOURCE_MODEL);
  const uint64_t taken = engine.control().taken.load(std::memory_order_relaxed);
  sutra_options options = RequestOptions();
  options.tag = 99;
  const sutra_result result = One(client, "a text", &options);
  EXPECT_EQ(result.source, SUTRA_SOURCE_HOT_TABLE);
  EXPECT_EQ(result.tag, 99u);
  EXPECT_EQ(result.token_count, 6u);
  EXPECT_EQ(result.ticket, 0u);
  EXPECT_GT(result.stage_ns[kSubmitted], 0u);
  EXPECT_GE(result.stage_ns[kPublished], result.stage_ns[kSubmitted]);
  EXPECT_EQ(engine.control().taken.load(std::memory_order_relaxed), taken);
  options.flags = SUTRA_CACHE_SKIP_LOOKUP;
  EXPECT_EQ(One(client, "a text", &options).source, SUTRA_SOURCE_MODEL);
}

TEST_F(HotCalls, ABatchTakesWhatIsHotAndSendsTheRest) {
  EchoEngine& engine = StartHot();
  const ClientPtr client = Attach(8);
  const Texts texts = ManyTexts(300);
  for (size_t i = 0; i < 300; i += 2) One(client, texts.strings[i]);
  const uint64_t taken = engine.control().taken.load(std::memory_order_relaxed);
  std::vector<float> vectors(300 * kEchoWidth);
  std::vector<sutra_result> results(300, embed::Result());
  std::vector<char> errors(300 * 8, 'x');
  sutra_batch_options batch = embed::BatchOptions();
  batch.error_texts = errors.data();
  batch.error_text_bytes = 8;
  ASSERT_EQ(sutra_embed_batch(client.get(), texts.pointers.data(), texts.sizes.data(), 300, nullptr, &batch,
                              vectors.data(), results.data(), sizeof(sutra_result)),
            SUTRA_OK)
      << sutra_error_text();
  for (size_t i = 0; i < 300; ++i) {
    EXPECT_EQ(results[i].status, SUTRA_OK);
    EXPECT_TRUE(IsEchoOf(texts.strings[i], &vectors[i * kEchoWidth], kEchoWidth)) << i;
    EXPECT_EQ(results[i].vector, &vectors[i * kEchoWidth]);
    EXPECT_EQ(results[i].source, i % 2 == 0 ? SUTRA_SOURCE_HOT_TABLE : SUTRA_SOURCE_MODEL) << i;
    EXPECT_STREQ(&errors[i * 8], "");
  }
  EXPECT_EQ(engine.control().taken.load(std::memory_order_relaxed), taken + 150);
}

TEST_F(HotCalls, LanesShareOneMappingWhichGoesWithThem) {
  StartHot();
  const auto mappings = [] {
    std::ifstream maps("/proc/self/maps");
    int count = 0;
    for (std::string line; std::getline(maps, line);) count += line.find("sutra-hot-table") != std::string::npos;
    return count;
  };
  ASSERT_EQ(mappings(), 0);
  {
    const ClientPtr client = Attach(2, 4);
    One(client, "a text");
    // Tickets that fill the first lane make the client open another.
    std::vector<sutra_ticket> tickets;
    const uint64_t until_ns = MonotonicNs() + 60 * kNsPerSecond;
    while (tickets.size() < 6 && MonotonicNs() < until_ns) {
      sutra_ticket ticket = 0;
      if (Submit(client, "ticket " + std::to_string(tickets.size()), &ticket) == SUTRA_OK) tickets.push_back(ticket);
    }
    ASSERT_EQ(tickets.size(), 6u);
    EXPECT_EQ(mappings(), 1);
    for (const sutra_ticket ticket : tickets) sutra_release(client.get(), ticket);
  }
  EXPECT_EQ(mappings(), 0);
}

TEST_F(HotCalls, NothingIsHotOnceTheEngineIsStoppedAndAllOfItAgainAfterwards) {
  EchoEngine& engine = StartHot();
  const ClientPtr client = Attach();
  One(client, "a text");
  EXPECT_EQ(One(client, "a text").source, SUTRA_SOURCE_HOT_TABLE);
  engine.Stop();
  const uint64_t stopped_ns = MonotonicNs();
  sutra_options options = RequestOptions(1);
  uint64_t last_hit_ns = 0;
  for (;;) {
    float vector[kEchoWidth];
    sutra_result result = embed::Result();
    if (sutra_embed(client.get(), "a text", 6, &options, vector, &result) != SUTRA_OK) break;
    ASSERT_EQ(result.source, SUTRA_SOURCE_HOT_TABLE);
    last_hit_ns = result.stage_ns[kPublished];
  }
  EXPECT_LT(last_hit_ns, stopped_ns + 2 * kHotHeartbeatNsMax);  // its last beat may be ahead by most of one
  engine.Continue();
  const uint64_t until_ns = MonotonicNs() + 60 * kNsPerSecond;
  while (One(client, "a text").source != SUTRA_SOURCE_HOT_TABLE && MonotonicNs() < until_ns) {
  }
  EXPECT_EQ(One(client, "a text").source, SUTRA_SOURCE_HOT_TABLE);
}

TEST_F(HotCalls, AnotherEngineHasItsOwnTable) {
  StartHot();
  const ClientPtr client = Attach();
  One(client, "a text");
  EXPECT_EQ(One(client, "a text").source, SUTRA_SOURCE_HOT_TABLE);
  StartHot();
  One(client, "what only the next engine can answer");  // until then the last one's table counts, for 200 ms
  EXPECT_EQ(One(client, "a text").source, SUTRA_SOURCE_MODEL);
  EXPECT_EQ(One(client, "a text").source, SUTRA_SOURCE_HOT_TABLE);
  EchoOptions options;
  options.width = kEchoWidth;
  StartEngine(options);  // one without a table
  One(client, "what only the one after it can answer");
  EXPECT_EQ(One(client, "a text").source, SUTRA_SOURCE_MODEL);
  EXPECT_EQ(One(client, "a text").source, SUTRA_SOURCE_MODEL);
}

}  // namespace
}  // namespace sutra::test
