// Batches as they reach the model: over scripted lanes, without a worker.
#include "engine/serving/batch_former.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/lanes/lane_reader.h"
#include "engine/serving/request_path.h"
#include "shm/stats/stats_segment.h"
#include "tests/kit/gated_backend.h"
#include "tests/kit/scripted_lane.h"

namespace sutra {
namespace {

using Names = std::vector<std::string>;
using testing::GatedBackend;
using testing::ScriptedLane;
using testing::ScriptedRequest;

constexpr uint32_t kWidth = 4;
constexpr uint32_t kTokensMax = 64;  // of a text
constexpr uint64_t kLongNs = 50'000'000;

class BatchFormerTest : public ::testing::Test {
 protected:
  BatchFormerTest() { Make(64); }
  void Make(uint32_t batch_tokens_max) {
    former_.reset();
    path_.reset();
    model_.emplace(ServedModel::Options{.backend = &backend_,
                                        .cache = nullptr,
                                        .ttl_s_default = 77,
                                        .batches = {.tokens_max = batch_tokens_max,
                                                    .texts_max = 1000,
                                                    .queue_texts_max = 1000,
                                                    .queue_bytes_max = 256 << 20,
                                                    .spin_us = 0},
                                        .stats = stats_->writer()});
    path_.emplace(&*model_);
    former_.emplace(&*model_, &backend_);
  }
  void Send(ScriptedLane* lane, uint32_t slot, const std::string& text, const ScriptedRequest& request = {}) {
    lane->Submit(slot, text, request);
    LaneReader::Taken taken;
    const char* why = "";
    ASSERT_EQ(reader_.Take(lane->lane(), &taken, &why), LaneReader::Next::kTaken) << why;
    ASSERT_TRUE(path_->Handle(&taken));
    model_->batcher.Flush();
  }
  // The next batch; REQUIRES that a text is queued that ends up in one.
  Names Next() {
    const Batch* batch = former_->Next();
    EXPECT_NE(batch, nullptr);
    Names names;
    for (size_t i = 0; i < batch->texts.size(); ++i) {
      std::string text;  // the fake model's tokens are bytes
      for (int32_t at = batch->offsets[i]; at < batch->offsets[i + 1]; ++at) {
        text += static_cast<char>(batch->ids[static_cast<size_t>(at)]);
      }
      EXPECT_EQ(text, batch->texts[i]->text.substr(0, kTokensMax));
      EXPECT_EQ(batch->texts[i]->token_count, text.size());
      names.push_back(text);
    }
    EXPECT_EQ(batch->offsets.size(), batch->texts.size() + 1);
    EXPECT_EQ(static_cast<size_t>(batch->offsets.back()), batch->ids.size());
    return names;
  }
  static std::string Named(char name, size_t size) { return std::string(size, name); }

  std::unique_ptr<StatsSegment> stats_ = StatsSegment::CreatePrivate();
  GatedBackend backend_{kWidth, kTokensMax};
  ScriptedLane bulk_{LaneGeometry{64, 65'536, kWidth}, 1, 1};
  ScriptedLane other_{LaneGeometry{64, 65'536, kWidth}, 2, 2};
  LaneReader reader_{65'536};
  std::optional<ServedModel> model_;
  std::optional<RequestPath> path_;
  std::optional<BatchFormer> former_;
};

TEST_F(BatchFormerTest, ATextThatDoesNotFitIsTheFirstOfTheNextBatch) {
  Send(&bulk_, 0, Named('a', 30));
  Send(&bulk_, 1, Named('b', 30));
  Send(&bulk_, 2, Named('c', 30));
  Send(&bulk_, 3, Named('d', 30));
  EXPECT_EQ(Next(), Names({Named('a', 30), Named('b', 30)}));
  EXPECT_EQ(model_->batcher.queued_texts(), 2u);
  Send(&bulk_, 4, Named('q', 30), {.priority = 1});  // a query does not overtake it
  EXPECT_EQ(Next(), Names({Named('c', 30), Named('q', 30)}));
  EXPECT_EQ(Next(), Names({Named('d', 30)}));
  EXPECT_EQ(model_->batcher.queued_texts(), 0u);
  EXPECT_EQ(model_->batcher.queued_cost(), 0u);
  EXPECT_EQ(bulk_.lane()->client()->queued_bytes.load(std::memory_order_relaxed), 0u);
}

TEST_F(BatchFormerTest, ABatchIsAtMostWhatTheBackendComputesAtOnce) {
  backend_.SetRoundTokens(40);
  for (uint32_t slot = 0; slot < 3; ++slot) Send(&bulk_, slot, Named(static_cast<char>('a' + slot), 20));
  EXPECT_EQ(Next(), Names({Named('a', 20), Named('b', 20)}));
  Send(&other_, 0, "q");
  EXPECT_EQ(Next(), Names({"q", Named('c', 20)}));  // its turn comes after a round, not after a backlog
}

TEST_F(BatchFormerTest, ABatchThatWasServedKeepsNothingOfItsClients) {
  Send(&bulk_, 0, "a");
  const Batch* batch = former_->Next();
  ASSERT_EQ(batch->texts.size(), 1u);
  const std::weak_ptr<Computation> text = batch->texts[0];
  model_->in_flight.Finish(batch->texts[0]);
  former_->Served(1000);
  EXPECT_TRUE(text.expired());
}

TEST_F(BatchFormerTest, ATextOverTheBudgetGoesAlone) {
  Make(16);
  Send(&bulk_, 0, Named('a', 60));
  Send(&bulk_, 1, Named('b', 1));
  EXPECT_EQ(Next(), Names({Named('a', 60)}));
  EXPECT_EQ(Next(), Names({Named('b', 1)}));
}

TEST_F(BatchFormerTest, AHeldBackTextSurvivesStopAndIsAnsweredByTheEndOfTheDrain) {
  Send(&bulk_, 0, Named('a', 40));
  Send(&bulk_, 1, Named('b', 40));
  EXPECT_EQ(Next(), Names({Named('a', 40)}));
  model_->batcher.Stop();
  EXPECT_EQ(former_->Next(), nullptr);
  EXPECT_EQ(model_->batcher.queued_texts(), 1u);
  EXPECT_EQ(model_->in_flight.TakeAll().size(), 2u);
}

TEST_F(BatchFormerTest, InvalidTextsAreAnsweredHereAndDoNotReachTheModel) {
  Send(&bulk_, 0, "ab\xC3");
  Send(&other_, 0, "ab\xC3");  // joined
  Send(&bulk_, 1, "fine");
  EXPECT_EQ(Next(), Names({"fine"}));
  EXPECT_EQ(bulk_.status(0), StatusCode::kInvalidUtf8);
  EXPECT_EQ(bulk_.answered_sequence(0), 1u);
  EXPECT_EQ(other_.status(0), StatusCode::kInvalidUtf8);
  EXPECT_EQ(model_->in_flight.size(), 1u);
}

TEST_F(BatchFormerTest, ATextTooLongIsRefusedToWhoRejectsTruncationOnly) {
  Send(&bulk_, 0, Named('x', 65), {.options = kOptionReject});
  Send(&other_, 0, Named('x', 65));
  Send(&bulk_, 1, Named('y', 65), {.options = kOptionReject});
  Send(&bulk_, 2, "short");
  EXPECT_EQ(Next(), Names({Named('x', 64)}));
  EXPECT_EQ(bulk_.status(0), StatusCode::kTextTooLong);
  EXPECT_EQ(other_.answered_sequence(0), 0u);
  EXPECT_EQ(Next(), Names({"short"}));
  EXPECT_EQ(bulk_.status(1), StatusCode::kTextTooLong);
  EXPECT_EQ(bulk_.answered_sequence(1), 1u);
}

// 64 KiB of one word become few tokens, but take as long to tokenise as a text of hundreds: the budget of a batch is
// charged for it, and so is the client.
TEST_F(BatchFormerTest, TokenisingIsChargedWhereItGivesFewTokens) {
  Make(256);
  for (uint32_t slot = 0; slot < 4; ++slot) Send(&bulk_, slot, Named('w', 16'384) + std::to_string(slot));
  for (uint32_t slot = 0; slot < 8; ++slot) Send(&other_, slot, Named(static_cast<char>('a' + slot), 32));
  EXPECT_EQ(former_->Next()->cost, 256u);  // a long one, of 64 tokens: 128, and four of 32
  EXPECT_EQ(former_->Next()->cost, 256u);
  EXPECT_EQ(model_->batcher.queued_texts(), 2u);
}

TEST_F(BatchFormerTest, ATextIsChargedForItsAnswers) {
  Send(&bulk_, 0, "a");
  for (uint32_t slot = 1; slot < 64; ++slot) Send(&bulk_, slot, "a");
  Send(&other_, 0, Named('b', 50));
  EXPECT_EQ(Next(), Names({"a"})) << "sixteen for 64 answers, and 50 are over what is left of 64";
  EXPECT_EQ(Next(), Names({Named('b', 50)}));
}

TEST_F(BatchFormerTest, RefusedTextsSpendTheBudgetSoThatOthersDoNotWaitForThem) {
  for (uint32_t slot = 0; slot < 40; ++slot) Send(&bulk_, slot, Named('x', 1280) + std::to_string(slot) + "\xff");
  Send(&other_, 0, "victim");
  EXPECT_EQ(Next(), Names({"victim"}));
  uint64_t refused = 0;
  for (uint32_t slot = 0; slot < 40; ++slot) refused += bulk_.answered_sequence(slot);
  EXPECT_LE(refused, 7u);  // 10 each, of 64
}

// A budget of 80 tokens, and a client with a queue of 60 texts of ten.
class NewcomerTest : public BatchFormerTest {
 protected:
  NewcomerTest() {
    Make(80);
    for (uint32_t slot = 0; slot < 60; ++slot) Send(&bulk_, slot, BulkText(slot), {.priority = 2});
  }
  static std::string BulkText(uint32_t number) { return "bulktext" + std::to_string(10 + number); }
  size_t NextSize() { return Next().size(); }
};

TEST_F(NewcomerTest, AfterALongFullBatchTheBatchOfANewcomerIsBrief) {
  EXPECT_EQ(NextSize(), 8u);
  former_->Served(kLongNs);
  Send(&other_, 0, "newcomer12");
  EXPECT_EQ(Next(), Names({"newcomer12"}));  // an eighth of the budget
  former_->Served(kLongNs);
  EXPECT_EQ(NextSize(), 8u);
}

TEST_F(NewcomerTest, AQueryOfTheSameClientIsANewcomerToo) {
  EXPECT_EQ(NextSize(), 8u);
  former_->Served(kLongNs);
  Send(&bulk_, 60, "query text", {.priority = 1});
  EXPECT_EQ(Next(), Names({"query text"}));
}

TEST_F(NewcomerTest, NeverAreTwoBatchesInARowBrief) {
  EXPECT_EQ(NextSize(), 8u);
  for (uint32_t round = 0; round < 3; ++round) {
    former_->Served(kLongNs);
    Send(&other_, 2 * round, "newcomer1" + std::to_string(round));
    EXPECT_EQ(NextSize(), 1u);
    former_->Served(kLongNs);
    Send(&other_, 2 * round + 1, "newcomer2" + std::to_string(round));
    EXPECT_EQ(NextSize(), 8u);
  }
}

TEST_F(NewcomerTest, AfterABriefOrShortBatchOrWithoutANewcomerBatchesAreFull) {
  EXPECT_EQ(NextSize(), 8u);
  former_->Served(1000);  // over in no time
  Send(&other_, 0, "newcomer12");
  EXPECT_EQ(NextSize(), 8u);
  former_->Served(kLongNs);
  EXPECT_EQ(NextSize(), 8u);  // nobody new
  former_->Served(kLongNs);
  Send(&bulk_, 61, "more bulk ", {.priority = 2});
  EXPECT_EQ(NextSize(), 8u);
}

// The text that did not fit waits for the batch after the newcomer's, which it could fill alone, and is not forgotten.
TEST_F(NewcomerTest, AHeldBackTextGivesWayToANewcomerOnce) {
  Make(85);
  ScriptedLane fresh(LaneGeometry{64, 65'536, kWidth}, 3, 3);
  for (uint32_t slot = 0; slot < 20; ++slot) Send(&fresh, slot, BulkText(slot), {.priority = 2});
  EXPECT_EQ(NextSize(), 8u);
  former_->Served(kLongNs);
  Send(&other_, 0, "newcomer12");
  EXPECT_EQ(Next(), Names({"newcomer12"}));
  EXPECT_EQ(Next().front(), BulkText(8));
}

}  // namespace
}  // namespace sutra
