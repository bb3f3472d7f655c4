// Engine death inside the calls for several tickets, in sutra_take and in batches with options, and sutra_cancel_all
// while requests have no engine or move to the next one.
#include <poll.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <thread>

#include "producer/cancel_all.h"
#include "producer/lane_wait.h"
#include "shm/base/checkpoint.h"
#include "tests/producer/client_fixture.h"
#include "tests/producer/sleepers.h"

namespace sutra::test {
namespace {

constexpr uint32_t kForEverMs = 3'600'000;

class CallsOverDeaths : public ClientTest {
 protected:
  // An engine that takes texts and never answers, and a client of it.
  ClientPtr Silent(uint32_t slots, uint32_t lanes_max = 1) {
    StartEngine().control().hold = 1;
    return Attach(slots, lanes_max);
  }
  sutra_ticket SubmitPatient(const ClientPtr& client, const std::string& text, uint32_t flags = 0) {
    sutra_options options = RequestOptions(kForEverMs);
    options.flags = flags;
    sutra_ticket ticket = 0;
    EXPECT_EQ(Submit(client, text, &ticket, &options), SUTRA_OK) << sutra_error_text();
    return ticket;
  }
  void Taken(uint64_t count) {
    while (engine_->control().taken.load() < count) std::this_thread::yield();
  }
  static void AwaitLanes(const ClientPtr& client, uint32_t lanes) {
    sutra_info info = embed::Info();
    do {
      ASSERT_EQ(sutra_get_info(client.get(), &info), SUTRA_OK);
    } while (info.lanes != lanes);
  }
  static uint32_t Sleepers(const ClientPtr& client) { return SleepersOf(client->lanes[0].load()); }

  // Runs a call on another thread; `meanwhile` once it sleeps on the engine's word.
  static sutra_status During(const ClientPtr& client, const std::function<sutra_status()>& call,
                             const std::function<void()>& meanwhile) {
    sutra_status status = SUTRA_OK;
    std::thread thread([&] { status = call(); });
    while (Sleepers(client) == 0) std::this_thread::yield();
    meanwhile();
    thread.join();
    return status;
  }
  void KillAndStart() {
    engine_->Kill();
    poll(nullptr, 0, 3);  // the waiter falls asleep without an engine
    StartEngine();
  }
  sutra_status Batch(const ClientPtr& client, const Texts& texts, const sutra_batch_options* batch,
                     uint32_t timeout_ms = kForEverMs, uint32_t flags = 0) {
    const size_t count = texts.strings.size();
    vectors_.assign(count * 16, -1.0F);
    results_.assign(count, embed::Result());
    sutra_options options = RequestOptions(timeout_ms);
    options.flags = flags;
    return sutra_embed_batch(client.get(), texts.pointers.data(), texts.sizes.data(), count, &options, batch,
                             vectors_.data(), results_.data(), sizeof(sutra_result));
  }
  // RETURNS how many have their vector; all others have `status`.
  size_t DoneOf(const Texts& texts, sutra_status status) const {
    size_t done = 0;
    for (size_t i = 0; i < results_.size(); ++i) {
      if (results_[i].status == SUTRA_OK) {
        EXPECT_TRUE(IsEchoOf(texts.strings[i], &vectors_[i * 16], 16)) << i;
        ++done;
      } else {
        EXPECT_EQ(results_[i].status, status) << i;
      }
    }
    return done;
  }

  static uint64_t Attempts(const ClientPtr& client) {
    const MutexLock lock(client->attempt_mutex);
    return client->attempts;
  }

  std::vector<float> vectors_;
  std::vector<sutra_result> results_;
  int in_one_attempt_ = 0;
};

TEST_F(CallsOverDeaths, AnyWaitsThroughARestart) {
  StartEngine();
  const ClientPtr client = Attach(8, 1);
  for (int round = 0; round < 5; ++round) {
    AwaitLanes(client, 1);
    engine_->control().hold = 1;
    const sutra_ticket tickets[] = {SubmitPatient(client, "text 0"), SubmitPatient(client, "text 1")};
    size_t index = 99;
    sutra_result result = embed::Result();
    EXPECT_EQ(During(
                  client, [&] { return sutra_wait_any(client.get(), tickets, 2, kForEverMs, &index, &result); },
                  [&] { KillAndStart(); }),
              SUTRA_OK);
    ASSERT_LT(index, 2u);
    EXPECT_EQ(result.status, SUTRA_OK);
    EXPECT_TRUE(IsEchoOf("text " + std::to_string(index), result.vector, result.width));
    EXPECT_EQ(sutra_wait_all(client.get(), tickets, 2, kForEverMs, nullptr, 0), SUTRA_OK);
    for (const sutra_ticket ticket : tickets) sutra_release(client.get(), ticket);
  }
}

TEST_F(CallsOverDeaths, AnyReturnsTheTicketThatEndsWithItsEngineAndTheOthersGoOn) {
  const ClientPtr client = Silent(8);
  const sutra_ticket tickets[] = {SubmitPatient(client, "goes on"), SubmitPatient(client, "ends", SUTRA_FAIL_FAST)};
  size_t index = 99;
  sutra_result result = embed::Result();
  EXPECT_EQ(During(
                client, [&] { return sutra_wait_any(client.get(), tickets, 2, kForEverMs, &index, &result); },
                [&] { engine_->Kill(); }),
            SUTRA_OK);
  EXPECT_EQ(index, 1u);
  EXPECT_EQ(result.status, SUTRA_ENGINE_GONE);
  EXPECT_EQ(result.reason, SUTRA_REASON_DIED);
  EXPECT_EQ(sutra_wait_any(client.get(), tickets, 1, 0, &index, &result), SUTRA_NOT_READY);
  StartEngine();
  EXPECT_EQ(sutra_wait_any(client.get(), tickets, 1, kForEverMs, &index, &result), SUTRA_OK);
  EXPECT_EQ(index, 0u);
  EXPECT_EQ(result.status, SUTRA_OK);
  EXPECT_TRUE(IsEchoOf("goes on", result.vector, result.width));
}

TEST_F(CallsOverDeaths, AllGivesEachTicketItsOwnEndWhicheverEngineGaveIt) {
  StartEngine();
  const ClientPtr client = Attach(8, 1);
  const sutra_ticket first = SubmitPatient(client, "of the first engine");
  ASSERT_EQ(sutra_wait(client.get(), first, kForEverMs, nullptr), SUTRA_OK);
  engine_->control().hold = 1;
  const sutra_ticket tickets[] = {first, SubmitPatient(client, "moves"), SubmitPatient(client, "ends", SUTRA_FAIL_FAST),
                                  SubmitPatient(client, std::string(3000, 'l'))};
  Taken(4);
  sutra_result results[4] = {embed::Result()};
  EXPECT_EQ(
      During(
          client, [&] { return sutra_wait_all(client.get(), tickets, 4, kForEverMs, results, sizeof(results[0])); },
          [&] { KillAndStart(); }),
      SUTRA_ENGINE_GONE);
  EXPECT_EQ(results[0].status, SUTRA_OK);
  EXPECT_TRUE(IsEchoOf("of the first engine", results[0].vector, 16));
  EXPECT_EQ(results[1].status, SUTRA_OK);
  EXPECT_TRUE(IsEchoOf("moves", results[1].vector, 16));
  EXPECT_EQ(results[2].status, SUTRA_ENGINE_GONE);
  EXPECT_EQ(results[2].reason, SUTRA_REASON_DIED);
  EXPECT_EQ(results[3].status, SUTRA_OK);
  EXPECT_TRUE(IsEchoOf(std::string(3000, 'l'), results[3].vector, 16));
}

TEST_F(CallsOverDeaths, AllIsNotReadyWhileThereIsNoEngineAndTheTicketsLiveOn) {
  const ClientPtr client = Silent(8);
  const sutra_ticket tickets[] = {SubmitPatient(client, "text 0"), SubmitPatient(client, "text 1")};
  engine_->Kill();
  sutra_result results[2] = {embed::Result()};
  EXPECT_EQ(sutra_wait_all(client.get(), tickets, 2, 30, results, sizeof(results[0])), SUTRA_NOT_READY);
  StartEngine();
  EXPECT_EQ(sutra_wait_all(client.get(), tickets, 2, kForEverMs, results, sizeof(results[0])), SUTRA_OK);
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(IsEchoOf("text " + std::to_string(i), results[i].vector, 16));
}

TEST_F(CallsOverDeaths, TakeIsNotReadyUntilTheNextEngineAnsweredAndReleasesWhatEnded) {
  StartEngine();
  const ClientPtr client = Attach(4, 1);
  const sutra_ticket answered = SubmitPatient(client, "answered");
  ASSERT_EQ(sutra_wait(client.get(), answered, kForEverMs, nullptr), SUTRA_OK);
  engine_->control().hold = 1;
  const sutra_ticket moves = SubmitPatient(client, "moves"), ends = SubmitPatient(client, "ends", SUTRA_FAIL_FAST);
  Taken(3);
  engine_->Kill();
  AwaitLanes(client, 0);
  float vector[16];
  sutra_result result = embed::Result();
  EXPECT_EQ(sutra_take(client.get(), moves, vector, 16, &result), SUTRA_NOT_READY);
  EXPECT_EQ(sutra_take(client.get(), ends, vector, 16, &result), SUTRA_ENGINE_GONE);
  EXPECT_EQ(result.reason, SUTRA_REASON_DIED);
  EXPECT_EQ(sutra_take(client.get(), ends, vector, 16, &result), SUTRA_BAD_ARGUMENT) << "it was released";
  StartEngine();
  sutra_status status;
  while ((status = sutra_take(client.get(), moves, vector, 16, &result)) == SUTRA_NOT_READY) std::this_thread::yield();
  EXPECT_EQ(status, SUTRA_OK);
  EXPECT_TRUE(IsEchoOf("moves", vector, 16));
  EXPECT_EQ(sutra_take(client.get(), answered, vector, 16, &result), SUTRA_OK) << "of the gone engine's memory";
  EXPECT_TRUE(IsEchoOf("answered", vector, 16));
  AwaitLanes(client, 1);
  EXPECT_EQ(sutra_free_slots(client.get()), 4u);
}

TEST_F(CallsOverDeaths, ABatchEndsAtItsTimeoutThoughThereIsNoEngine) {
  StartEngine().control().kill_at = 30;
  const ClientPtr client = Attach(4, 1);
  const Texts texts = ManyTexts(100);
  sutra_batch_options batch = embed::BatchOptions();
  batch.timeout_ms = 300;
  EXPECT_EQ(Batch(client, texts, &batch), SUTRA_DEADLINE_EXCEEDED);
  EXPECT_NE(std::string(sutra_error_text()).find("timeout_ms of the batch"), std::string::npos) << sutra_error_text();
  EXPECT_EQ(DoneOf(texts, SUTRA_DEADLINE_EXCEEDED), engine_->control().answered.load());
  StartEngine();
  EXPECT_EQ(Embed(client, "the slots are back"), SUTRA_OK);
  AwaitLanes(client, 1);
  EXPECT_EQ(sutra_free_slots(client.get()), 4u);
}

struct Progress {
  std::vector<size_t> seen;
  std::function<int()> then;
};
int OnProgress(void* context, size_t done, size_t) {
  auto* progress = static_cast<Progress*>(context);
  progress->seen.push_back(done);
  return progress->then();
}
sutra_batch_options WithProgress(Progress* progress) {
  sutra_batch_options batch = embed::BatchOptions();
  batch.progress = OnProgress;
  batch.context = progress;
  return batch;
}

TEST_F(CallsOverDeaths, ProgressIsToldWhileThereIsNoEngineAndTheBatchGoesOnAtTheNext) {
  StartEngine().control().kill_at = 30;
  const ClientPtr client = Attach(4, 1);
  const Texts texts = ManyTexts(100);
  Progress progress;
  progress.then = [&] {
    if (progress.seen.size() == 3) StartEngine();
    return 0;
  };
  const sutra_batch_options batch = WithProgress(&progress);
  EXPECT_EQ(Batch(client, texts, &batch), SUTRA_OK) << sutra_error_text();
  EXPECT_EQ(DoneOf(texts, SUTRA_OK), 100u);
  ASSERT_GE(progress.seen.size(), 4u);
  EXPECT_LT(progress.seen[2], 100u);
  EXPECT_EQ(progress.seen.back(), 100u);
}

TEST_F(CallsOverDeaths, ProgressStopsABatchThatHasNoEngine) {
  StartEngine().control().kill_at = 30;
  const ClientPtr client = Attach(4, 1);
  const Texts texts = ManyTexts(100);
  Progress progress;
  progress.then = [&] { return progress.seen.size() == 2; };
  const sutra_batch_options batch = WithProgress(&progress);
  EXPECT_EQ(Batch(client, texts, &batch), SUTRA_CANCELLED);
  EXPECT_EQ(DoneOf(texts, SUTRA_CANCELLED), engine_->control().answered.load());
  EXPECT_EQ(progress.seen.size(), 2u) << "not once more after it said stop";
}

TEST_F(CallsOverDeaths, EveryTextOfAFailFastBatchSaysThatTheEngineDied) {
  const ClientPtr client = Silent(4);
  const Texts texts = ManyTexts(50);
  EXPECT_EQ(
      During(
          client, [&] { return Batch(client, texts, nullptr, kForEverMs, SUTRA_FAIL_FAST); }, [&] { engine_->Kill(); }),
      SUTRA_ENGINE_GONE);
  EXPECT_EQ(DoneOf(texts, SUTRA_ENGINE_GONE), 0u);
  for (const sutra_result& result : results_) EXPECT_EQ(result.reason, SUTRA_REASON_DIED);
}

TEST_F(CallsOverDeaths, EveryTextOfABatchSaysThatTheNextEngineIsAnother) {
  const ClientPtr client = Silent(4);
  const Texts texts = ManyTexts(50);
  EXPECT_EQ(During(
                client, [&] { return Batch(client, texts, nullptr); },
                [&] {
                  EchoOptions other;
                  other.identity = std::string(64, 'f');
                  StartEngine(other);
                }),
            SUTRA_ENGINE_GONE);
  EXPECT_EQ(DoneOf(texts, SUTRA_ENGINE_GONE), 0u);
  for (const sutra_result& result : results_) EXPECT_EQ(result.reason, SUTRA_REASON_OTHER_IDENTITY);
}

// Each kind of wait, of a client that has no engine.
TEST_F(CallsOverDeaths, CancelAllEndsEveryWaitWhileThereIsNoEngine) {
  const sutra_options patient = RequestOptions(kForEverMs);
  const Texts texts = ManyTexts(50);
  float vector[16];
  size_t index = 99;
  sutra_result result = embed::Result();
  sutra_ticket tickets[2] = {};
  ClientPtr client;
  const std::function<sutra_status()> calls[] = {
      [&] { return sutra_wait(client.get(), tickets[0], kForEverMs, &result); },
      [&] {
        EXPECT_EQ(sutra_wait_any(client.get(), tickets, 2, kForEverMs, &index, &result), SUTRA_OK);
        return result.status;
      },
      [&] { return sutra_wait_all(client.get(), tickets, 2, kForEverMs, nullptr, 0); },
      [&] { return sutra_embed(client.get(), "x", 1, &patient, vector, &result); },
      [&] { return Batch(client, texts, nullptr); },
  };
  for (const auto& call : calls) {
    client = Silent(8);
    for (sutra_ticket& ticket : tickets) ticket = SubmitPatient(client, "held");
    const auto cancel = [&] {
      engine_->Kill();
      AwaitLanes(client, 0);
      sutra_cancel_all(client.get());
    };
    EXPECT_EQ(During(client, call, cancel), SUTRA_CANCELLED);
    for (const sutra_ticket ticket : tickets) {
      EXPECT_EQ(sutra_wait(client.get(), ticket, 0, nullptr), SUTRA_CANCELLED);
      sutra_release(client.get(), ticket);
    }
    StartEngine();
    EXPECT_EQ(Embed(client, "served"), SUTRA_OK) << sutra_error_text();
    EXPECT_EQ(engine_->control().taken.load(), 1u) << "nothing that was cancelled moved";
    EXPECT_EQ(sutra_free_slots(client.get()), 8u);
    client.reset();
  }
}

TEST_F(CallsOverDeaths, ARequestKeepsTheNumberOfItsCancelsWhereverItMoves) {
  const ClientPtr client = Silent(8);
  const sutra_ticket before = SubmitPatient(client, "before");
  sutra_cancel_all(client.get());
  const sutra_ticket after = SubmitPatient(client, "after");
  StartEngine().control().hold = 1;
  EXPECT_EQ(sutra_wait(client.get(), before, kForEverMs, nullptr), SUTRA_CANCELLED);
  Taken(1);
  EXPECT_EQ(sutra_wait(client.get(), after, 20, nullptr), SUTRA_NOT_READY) << "the cancel was before it";
  sutra_cancel_all(client.get());
  EXPECT_EQ(sutra_wait(client.get(), after, 0, nullptr), SUTRA_CANCELLED) << "at the next engine";
  engine_->control().hold = 0;
  EXPECT_EQ(Embed(client, "served"), SUTRA_OK);
}

#if defined(SUTRA_CHECKPOINTS)
const char* cancel_point = nullptr;
std::atomic<sutra_client*> cancel_client{nullptr};

TEST_F(CallsOverDeaths, ACancelAtEachStepOfAMoveEndsEveryRequest) {
  for (const char* point : {"move.evidence", "move.gone", "move.woken", "move.attached", "move.settled", "move.copied",
                            "move.home", "move.published", "move.opened", "move.bumped", "move.rung"}) {
    SCOPED_TRACE(point);
    const ClientPtr client = Silent(8);
    sutra_ticket tickets[4];
    for (sutra_ticket& ticket : tickets) ticket = SubmitPatient(client, "held");
    Taken(4);
    cancel_point = point;
    cancel_client = client.get();
    checkpoint::hook = [](const char* name) {
      if (strcmp(name, cancel_point) != 0) return;
      if (sutra_client* target = cancel_client.exchange(nullptr)) sutra_cancel_all(target);
    };
    EXPECT_EQ(During(
                  client, [&] { return sutra_wait(client.get(), tickets[2], kForEverMs, nullptr); },
                  [&] { StartEngine().control().hold = 1; }),
              SUTRA_CANCELLED);
    while (cancel_client.load() != nullptr) std::this_thread::yield();
    checkpoint::hook = nullptr;
    EXPECT_EQ(sutra_wait_all(client.get(), tickets, 4, kForEverMs, nullptr, 0), SUTRA_CANCELLED);
    for (const sutra_ticket ticket : tickets) sutra_release(client.get(), ticket);
    engine_->control().hold = 0;
    EXPECT_EQ(Embed(client, "served"), SUTRA_OK) << sutra_error_text();
    while (sutra_free_slots(client.get()) != 8) std::this_thread::yield();
    EXPECT_EQ(engine_->control().violations.load(), 0u);
  }
}
#endif

// Nor does a detach: the helper thread looks around while it attaches to an engine that does not answer.
TEST_F(CallsOverDeaths, ACancelEndsWaitsWhileTheHelperThreadIsInAnAttach) {
  const ClientPtr client = Silent(8);
  EchoOptions silent;
  silent.hostile = Hostile::kSilent;
  for (int round = 0; round < 5; ++round) {
    AwaitLanes(client, 1);
    const sutra_ticket ticket = SubmitPatient(client, "held");
    uint64_t attempts = 0;
    EXPECT_EQ(During(
                  client, [&] { return sutra_wait(client.get(), ticket, kForEverMs, nullptr); },
                  [&] {
                    StartEngine(silent);
                    AwaitLanes(client, 0);
                    poll(nullptr, 0, 10);
                    while (client->helper.opening.load() == 0) std::this_thread::yield();
                    attempts = Attempts(client);
                    sutra_cancel_all(client.get());
                  }),
              SUTRA_CANCELLED);
    in_one_attempt_ += Attempts(client) == attempts;
    sutra_release(client.get(), ticket);
    StartEngine().control().hold = 1;
  }
  EXPECT_GT(in_one_attempt_, 0) << "each wait ended only with the attach";
}

}  // namespace
}  // namespace sutra::test
