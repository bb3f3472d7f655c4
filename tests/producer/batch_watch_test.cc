// What ends a batch early: its timeout, its progress callback, sutra_cancel_all; and what its texts are told.
#include "producer/batch_watch.h"

#include <poll.h>
#include <signal.h>

#include <atomic>
#include <functional>
#include <thread>

#include "tests/producer/client_fixture.h"
#include "tests/producer/sleepers.h"

namespace sutra::test {
namespace {

constexpr uint32_t kForEverMs = 3'600'000;

class BatchWatchTest : public ClientTest {
 protected:
  struct Progress {
    std::vector<size_t> seen;
    std::vector<uint64_t> at_ns;
    size_t stop_at = SIZE_MAX;  // calls
    std::function<void()> then = [] {};
  };
  static int OnProgress(void* context, size_t done, size_t count) {
    auto* progress = static_cast<Progress*>(context);
    EXPECT_LE(done, count);
    progress->seen.push_back(done);
    progress->at_ns.push_back(MonotonicNs());
    progress->then();
    return progress->seen.size() >= progress->stop_at ? 1 : 0;
  }

  sutra_status Run(const ClientPtr& client, const Texts& texts, const sutra_batch_options& batch) {
    const size_t count = texts.strings.size();
    vectors_.assign(count * 16, -1.0F);
    results_.assign(count, embed::Result());
    const sutra_options patient = RequestOptions(kForEverMs);
    return sutra_embed_batch(client.get(), texts.pointers.data(), texts.sizes.data(), count, &patient, &batch,
                             vectors_.data(), results_.data(), sizeof(sutra_result));
  }
  sutra_batch_options WithProgress(Progress* progress) {
    sutra_batch_options batch = embed::BatchOptions();
    batch.progress = OnProgress;
    batch.context = progress;
    return batch;
  }
  std::string ErrorText(size_t i) const { return &errors_[i * kErrorBytes]; }
  void WithErrorTexts(size_t count, sutra_batch_options* batch) {
    errors_.assign(count * kErrorBytes + 1, '#');
    batch->error_texts = errors_.data();
    batch->error_text_bytes = kErrorBytes;
  }

  static constexpr size_t kErrorBytes = 400;
  std::vector<float> vectors_;
  std::vector<sutra_result> results_;
  std::vector<char> errors_;
};

TEST_F(BatchWatchTest, TheTimeoutOfTheWholeCallEndsWhatIsLeft) {
  StartEngine().control().hold = 1;
  const ClientPtr client = Attach(4, 1);
  sutra_batch_options batch = embed::BatchOptions();
  batch.timeout_ms = 50;
  WithErrorTexts(20, &batch);
  EXPECT_EQ(Run(client, ManyTexts(20), batch), SUTRA_DEADLINE_EXCEEDED);
  EXPECT_NE(std::string(sutra_error_text()).find("timeout_ms of the batch (50)"), std::string::npos)
      << sutra_error_text();
  for (size_t i = 0; i < 20; ++i) {
    EXPECT_EQ(results_[i].status, SUTRA_DEADLINE_EXCEEDED);
    EXPECT_NE(ErrorText(i).find("timeout_ms of the batch"), std::string::npos) << ErrorText(i);
  }
  engine_->control().hold = 0;
  EXPECT_EQ(Embed(client, "the slots are back"), SUTRA_OK);
}

TEST_F(BatchWatchTest, TheTimeoutHoldsWhileItWaitsForASlotToo) {
  StartEngine();
  const ClientPtr client = Attach(2, 1);
  sutra_ticket held[2];
  for (sutra_ticket& ticket : held) ASSERT_EQ(Submit(client, "held", &ticket), SUTRA_OK);
  ASSERT_EQ(sutra_wait_all(client.get(), held, 2, 60'000, nullptr, 0), SUTRA_OK);
  sutra_batch_options batch = embed::BatchOptions();
  batch.timeout_ms = 50;
  EXPECT_EQ(Run(client, ManyTexts(3), batch), SUTRA_DEADLINE_EXCEEDED);
  for (const sutra_result& result : results_) EXPECT_EQ(result.status, SUTRA_DEADLINE_EXCEEDED);
}

TEST_F(BatchWatchTest, ProgressIsToldAtTheEndAndNotOftenerThanAgreed) {
  StartEngine();
  const ClientPtr client = Attach(4, 1);
  Progress progress;
  EXPECT_EQ(Run(client, ManyTexts(500), WithProgress(&progress)), SUTRA_OK) << sutra_error_text();
  ASSERT_FALSE(progress.seen.empty());
  EXPECT_EQ(progress.seen.back(), 500u);
  for (size_t i = 1; i + 1 < progress.seen.size(); ++i) {
    EXPECT_GE(progress.seen[i], progress.seen[i - 1]);
    EXPECT_GE(progress.at_ns[i] - progress.at_ns[i - 1], client::kProgressNs);
  }
  progress.seen.clear();
  Texts none;
  none.Seal();
  const sutra_batch_options batch = WithProgress(&progress);
  EXPECT_EQ(sutra_embed_batch(client.get(), nullptr, nullptr, 0, nullptr, &batch, nullptr, nullptr, 0), SUTRA_OK);
  EXPECT_EQ(progress.seen, std::vector<size_t>{0});
}

TEST_F(BatchWatchTest, ProgressIsToldWhileNothingComes) {
  StartEngine();
  const ClientPtr client = Attach(4, 1);
  Progress progress;
  progress.then = [&] {
    if (progress.seen.size() == 3) engine_->Continue();
  };
  engine_->Stop();
  EXPECT_EQ(Run(client, ManyTexts(20), WithProgress(&progress)), SUTRA_OK) << sutra_error_text();
  EXPECT_GE(progress.seen.size(), 4u);
  EXPECT_EQ(progress.seen[0], 0u);
}

TEST_F(BatchWatchTest, ProgressThatSaysStopEndsTheBatchAndIsNotToldAgain) {
  StartEngine().control().hold = 1;
  const ClientPtr client = Attach(4, 1);
  Progress progress;
  progress.stop_at = 2;
  sutra_batch_options batch = WithProgress(&progress);
  WithErrorTexts(20, &batch);
  EXPECT_EQ(Run(client, ManyTexts(20), batch), SUTRA_CANCELLED);
  EXPECT_EQ(progress.seen.size(), 2u);
  EXPECT_NE(std::string(sutra_error_text()).find("progress callback"), std::string::npos) << sutra_error_text();
  for (size_t i = 0; i < 20; ++i) {
    EXPECT_EQ(results_[i].status, SUTRA_CANCELLED);
    EXPECT_EQ(results_[i].vector, nullptr);
    EXPECT_EQ(vectors_[i * 16], -1.0F);
    EXPECT_NE(ErrorText(i).find("progress callback"), std::string::npos) << ErrorText(i);
  }
}

TEST_F(BatchWatchTest, ProgressStopsABatchThatWaitsForASlot) {
  StartEngine();
  const ClientPtr client = Attach(2, 1);
  sutra_ticket held[2];
  for (sutra_ticket& ticket : held) ASSERT_EQ(Submit(client, "held", &ticket), SUTRA_OK);
  ASSERT_EQ(sutra_wait_all(client.get(), held, 2, 60'000, nullptr, 0), SUTRA_OK);
  Progress progress;
  progress.stop_at = 2;
  EXPECT_EQ(Run(client, ManyTexts(3), WithProgress(&progress)), SUTRA_CANCELLED);
  EXPECT_EQ(progress.seen.size(), 2u);
}

TEST_F(BatchWatchTest, TheCallbackMayUseTheClient) {
  StartEngine();
  const ClientPtr client = Attach(8, 1);
  engine_->Stop();
  Progress progress;
  progress.then = [&] {
    sutra_ticket ticket = 0;
    if (Submit(client, "by the callback", &ticket) == SUTRA_OK) sutra_release(client.get(), ticket);
    (void)sutra_free_slots(client.get());
    engine_->Continue();
  };
  EXPECT_EQ(Run(client, ManyTexts(50), WithProgress(&progress)), SUTRA_OK) << sutra_error_text();
  Progress canceller;
  canceller.then = [&] { sutra_cancel_all(client.get()); };
  engine_->Stop();
  EXPECT_EQ(Run(client, ManyTexts(50), WithProgress(&canceller)), SUTRA_CANCELLED);
  engine_->Continue();
}

// One text each: too long, empty, refused by the engine; none shows another's cause, or an older one.
TEST_F(BatchWatchTest, EveryTextThatFailsSaysItsOwnCause) {
  StartEngine();
  sutra_attach_options attach = AttachOptions(4, 1);
  attach.text_bytes_max = 512;
  const ClientPtr client = Attach(attach);
  EXPECT_EQ(Embed(client, ""), SUTRA_EMPTY_TEXT);  // the text of an earlier failure
  Texts texts = ManyTexts(6);
  texts.strings[1].clear();
  texts.strings[3] = std::string(513, 'x');
  texts.Seal();
  texts.pointers[4] = nullptr;
  sutra_batch_options batch = embed::BatchOptions();
  WithErrorTexts(6, &batch);
  EXPECT_EQ(Run(client, texts, batch), SUTRA_EMPTY_TEXT);
  EXPECT_NE(std::string(sutra_error_text()).find("text 1: the text has zero bytes"), std::string::npos);
  for (const size_t good : {0u, 2u, 5u}) EXPECT_EQ(ErrorText(good), "");
  EXPECT_NE(ErrorText(1).find("zero bytes"), std::string::npos);
  EXPECT_NE(ErrorText(3).find("513 bytes"), std::string::npos);
  EXPECT_NE(ErrorText(4).find("text is NULL"), std::string::npos);
  EXPECT_EQ(errors_.back(), '#') << "written behind the last one";
  EchoOptions failing;
  failing.answer = StatusCode::kInvalidUtf8;
  StartEngine(failing);
  const ClientPtr other = Attach(4);
  WithErrorTexts(6, &batch);
  texts = ManyTexts(6);
  texts.strings[2].clear();
  texts.Seal();
  EXPECT_EQ(Run(other, texts, batch), SUTRA_INVALID_UTF8);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_NE(ErrorText(i).find(i == 2 ? "zero bytes" : "not valid UTF-8"), std::string::npos) << i << ErrorText(i);
  }
}

TEST_F(BatchWatchTest, ErrorTextsAreCutWhereTheyAreTooLongAndOfTheWholeCallWhereItFails) {
  StartEngine();
  const ClientPtr client = Attach(4);
  const Texts texts = ManyTexts(2);
  char small[2][8] = {"#######", "#######"};
  sutra_batch_options batch = embed::BatchOptions();
  batch.error_texts = small[0];
  batch.error_text_bytes = sizeof(small[0]);
  sutra_options options = RequestOptions();
  options.priority = 9;
  float vectors[32];
  EXPECT_EQ(sutra_embed_batch(client.get(), texts.pointers.data(), texts.sizes.data(), 2, &options, &batch, vectors,
                              nullptr, 0),
            SUTRA_BAD_OPTION);
  EXPECT_STREQ(small[0], "priorit");
  EXPECT_STREQ(small[1], "priorit");
  batch.error_text_bytes = 0;
  EXPECT_EQ(Run(client, texts, batch), SUTRA_BAD_ARGUMENT);
  batch = embed::BatchOptions();
  batch.size = 0;
  EXPECT_EQ(Run(client, texts, batch), SUTRA_BAD_ARGUMENT);
  EXPECT_NE(std::string(sutra_error_text()).find("sutra_batch_options.size"), std::string::npos);
}

// Ctrl-C in the middle of a long batch, as a Python program handles it: the handler cancels, the batch returns.
std::atomic<sutra_client*> interrupted_client{nullptr};
void OnInterrupt(int) { sutra_cancel_all(interrupted_client.load()); }

TEST_F(BatchWatchTest, AnInterruptEndsABatchOfTwentyThousandTextsAtOnce) {
  StartEngine();
  const ClientPtr client = Attach(16, 1);
  interrupted_client.store(client.get());
  struct sigaction action = {}, before = {};
  action.sa_handler = OnInterrupt;
  sigaction(SIGINT, &action, &before);
  Progress progress;
  progress.then = [&] { raise(SIGINT); };  // on the thread of the batch, which returns into the call
  const Texts texts = ManyTexts(20'000);
  engine_->Stop();
  EXPECT_EQ(Run(client, texts, WithProgress(&progress)), SUTRA_CANCELLED);
  EXPECT_EQ(progress.seen.size(), 2u) << "once by the clock, once at the end";
  engine_->Continue();
  while (sutra_free_slots(client.get()) < 16) std::this_thread::yield();  // what was dropped is answered
  // And while the thread sleeps: by another thread's kill.
  engine_->control().hold = 1;
  const pthread_t self = pthread_self();
  std::thread other([&] {
    while (SleepersOf(client->lanes[0].load()) == 0) std::this_thread::yield();
    pthread_kill(self, SIGINT);
  });
  EXPECT_EQ(Run(client, texts, embed::BatchOptions()), SUTRA_CANCELLED);
  other.join();
  sigaction(SIGINT, &before, nullptr);
  engine_->control().hold = 0;
  EXPECT_EQ(Embed(client, "after it"), SUTRA_OK);
}

}  // namespace
}  // namespace sutra::test
