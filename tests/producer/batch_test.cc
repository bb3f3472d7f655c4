// The work of the blocking calls: order and statuses with little room, and calls that fail as a whole.
#include "producer/batch.h"

#include <vector>

#include "producer/lane_pool.h"
#include "tests/producer/client_fixture.h"

namespace sutra::test {
namespace {

class BatchTest : public ClientTest {
 protected:
  // A call for all of `texts_` with room for its answers.
  client::BatchCall Call(uint32_t width = 0) {
    const size_t count = texts_.strings.size();
    vectors_.assign(count * 16, -1.0f);
    results_.assign(count, embed::Result());
    client::BatchCall call = {.texts = texts_.pointers.data(),
                              .text_bytes = texts_.sizes.data(),
                              .count = count,
                              .request = {.tag = 6, .width = width},
                              .vectors = vectors_.data()};
    EXPECT_TRUE(call.results.Open(results_.data(), sizeof(sutra_result)));
    return call;
  }

  Texts texts_ = ManyTexts(30, 7);
  std::vector<float> vectors_;
  std::vector<sutra_result> results_;
};

TEST_F(BatchTest, AnyRoomGivesTheSameAnswersInTheSameOrder) {
  EchoOptions reverse;
  reverse.reverse = true;
  StartEngine(reverse);
  const ClientPtr client = Attach(32);
  for (const size_t in_flight_max : {1u, 2u, 16u, 17u, 1000u}) {  // around the number that needs no allocation
    ASSERT_EQ(client::RunBatch(client.get(), Call(), in_flight_max), SUTRA_OK) << sutra_error_text();
    for (size_t i = 0; i < 30; ++i) {
      ASSERT_EQ(results_[i].status, SUTRA_OK) << i;
      EXPECT_EQ(results_[i].tag, 6u);
      EXPECT_TRUE(IsEchoOf(texts_.strings[i], &vectors_[i * 16], 16)) << i << " of " << in_flight_max;
    }
  }
  EXPECT_EQ(engine_->control().violations.load(), 0u);
}

TEST_F(BatchTest, NarrowVectorsLieWidthApart) {
  StartEngine();
  const ClientPtr client = Attach(4);
  ASSERT_EQ(client::RunBatch(client.get(), Call(4), 4), SUTRA_OK);
  for (size_t i = 0; i < 30; ++i) {
    EXPECT_EQ(results_[i].width, 4u);
    EXPECT_TRUE(IsEchoOf(texts_.strings[i], &vectors_[i * 4], 4)) << i;
  }
  EXPECT_EQ(vectors_[30 * 4], -1.0f);
}

TEST_F(BatchTest, TheFirstTextThatFailsGivesTheStatusWheneverItFails) {
  StartEngine();
  const ClientPtr client = Attach(4);
  texts_.strings[11].assign(kTextBytesMaxDefault + 1, 'x');
  texts_.strings[22].clear();
  texts_.Seal();
  EXPECT_EQ(client::RunBatch(client.get(), Call(), 2), SUTRA_TEXT_TOO_LONG);
  EXPECT_EQ(results_[11].status, SUTRA_TEXT_TOO_LONG);
  EXPECT_EQ(results_[22].status, SUTRA_EMPTY_TEXT);
  EXPECT_EQ(results_[22].tag, 6u);
  EXPECT_TRUE(IsEchoOf(texts_.strings[29], &vectors_[29 * 16], 16));
  const std::string why = sutra_error_text();
  EXPECT_NE(why.find("text 11: "), std::string::npos) << why;
  EXPECT_NE(why.find(std::to_string(kTextBytesMaxDefault + 1) + " bytes"), std::string::npos)
      << "text 22 failed later and for another cause: " << why;
}

TEST_F(BatchTest, WhatTheEngineAnsweredIsExplainedAndNothingOlder) {
  EchoOptions failing;
  failing.answer = StatusCode::kInvalidUtf8;
  StartEngine(failing);
  const ClientPtr client = Attach(4);
  EXPECT_EQ(Embed(client, ""), SUTRA_EMPTY_TEXT);
  EXPECT_EQ(client::RunBatch(client.get(), Call(), 4), SUTRA_INVALID_UTF8);
  std::string why = sutra_error_text();
  EXPECT_NE(why.find("text 0: "), std::string::npos) << why;
  EXPECT_NE(why.find("not valid UTF-8"), std::string::npos) << why;
  EXPECT_EQ(Embed(client, ""), SUTRA_EMPTY_TEXT);
  EXPECT_EQ(Embed(client, "x"), SUTRA_INVALID_UTF8);
  why = sutra_error_text();
  EXPECT_NE(why.find("not valid UTF-8"), std::string::npos) << why;
}

TEST_F(BatchTest, AWidthThatTheEngineDoesNotServeIsNamed) {
  EchoOptions failing;
  failing.answer = StatusCode::kBadOption;
  StartEngine(failing);
  const ClientPtr client = Attach(4);
  EXPECT_EQ(client::RunBatch(client.get(), Call(4), 4), SUTRA_BAD_OPTION);
  const std::string why = sutra_error_text();
  EXPECT_NE(why.find("it serves width 16 (asked for: 4)"), std::string::npos) << why;
}

TEST_F(BatchTest, WithFailFastEveryTextHasAStatusWhenTheEngineDies) {
  StartEngine().control().kill_at = 10;
  const ClientPtr client = Attach(2, 1);
  client::BatchCall call = Call();
  call.request.fail_fast = true;
  EXPECT_EQ(client::RunBatch(client.get(), call, 2), SUTRA_ENGINE_GONE);
  size_t ok = 0;
  for (const sutra_result& result : results_) {
    EXPECT_TRUE(result.status == SUTRA_OK || result.status == SUTRA_ENGINE_GONE) << result.status;
    ok += result.status == SUTRA_OK;
  }
  EXPECT_EQ(ok, engine_->control().answered.load());
  EXPECT_NE(std::string(sutra_error_text()).find("the engine died"), std::string::npos) << sutra_error_text();
}

TEST_F(BatchTest, ACallThatFailsAsAWholeGivesEveryTextItsStatus) {
  EXPECT_EQ(client::FailBatch(Call(), SUTRA_FORKED), SUTRA_FORKED);
  for (const sutra_result& result : results_) {
    EXPECT_EQ(result.status, SUTRA_FORKED);
    EXPECT_EQ(result.size, sizeof(sutra_result));
  }
}

TEST_F(BatchTest, OneTextIsCopiedOutAndItsSlotFreeAgain) {
  StartEngine();
  const ClientPtr client = Attach(2, 1);
  for (int i = 0; i < 10; ++i) {
    float vector[16];
    sutra_result result = embed::Result();
    client::ResultSink sink;
    ASSERT_TRUE(sink.Open(&result));
    ASSERT_EQ(client::RunOne(client.get(), "one", 3, {.tag = 3}, vector, sink), SUTRA_OK);
    EXPECT_EQ(result.vector, vector);
    EXPECT_EQ(result.tag, 3u);
    EXPECT_TRUE(IsEchoOf("one", vector, 16));
  }
}

}  // namespace
}  // namespace sutra::test
