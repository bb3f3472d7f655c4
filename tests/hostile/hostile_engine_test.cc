// The client library against engines that lie: whatever an engine sends or writes, each call ends with a status of the
// closed set, within its time, and the caller's process lives.
#include <gtest/gtest.h>

#include <memory>

#include "tests/hostile/neighbour.h"
#include "tests/kit/child_process.h"
#include "tests/kit/poll_tickets.h"
#include "tests/kit/temp_dir.h"
#include "tests/kit/watchdog.h"

namespace sutra::test {
namespace {

constexpr int kReadyMs = 60'000;

class HostileEngine {
 public:
  explicit HostileEngine(const std::string& behaviour) {
    SpawnOptions spawn;
    spawn.args = {SUTRA_HOSTILE_ENGINE_PROGRAM, behaviour, socket()};
    spawn.log_path = directory_ / "engine.log";
    spawn.pipe_output = true;
    process_ = std::make_unique<ChildProcess>(spawn);
    EXPECT_EQ(process_->ReadLine(kReadyMs), "ready") << process_->Log();
  }
  std::string socket() const { return directory_ / "s"; }

 private:
  TempDir directory_;
  std::unique_ptr<ChildProcess> process_;
};

bool IsAStatus(sutra_status status) { return status <= SUTRA_BAD_ARGUMENT; }

sutra_status Attach(const HostileEngine& engine, ClientHandle* client) {
  sutra_attach_options options = ClientHandle::DefaultOptions();
  options.slots = 16;
  options.timeout_ms = 500;
  return client->Attach(engine.socket(), options);
}

class HostileEngineTest : public testing::TestWithParam<const char*> {
  Watchdog watchdog_{std::chrono::seconds(100)};
};

// Behaviours that no library may accept.
class BadOfferTest : public HostileEngineTest {};

TEST_P(BadOfferTest, IsRefusedWithAReason) {
  const HostileEngine engine(GetParam());
  ClientHandle client;
  const sutra_status status = Attach(engine, &client);
  EXPECT_TRUE(IsAStatus(status)) << status;
  EXPECT_NE(status, SUTRA_OK);
  EXPECT_NE(std::string(sutra_error_text()), "");
  EXPECT_EQ(client.get(), nullptr);
}

INSTANTIATE_TEST_SUITE_P(
    Offers, BadOfferTest,
    testing::Values("hangs-up", "says-nothing", "says-garbage", "short-welcome", "one-byte-welcome", "wrong-magic",
                    "no-descriptors", "one-descriptor", "seven-descriptors", "sixty-four-descriptors",
                    "devices-for-lanes", "unsealed-request-lane", "unsealed-reply-lane", "unsealed-page",
                    "unsealed-tail-file", "short-request-lane", "short-reply-lane", "short-tail-file", "empty-page",
                    "zeros-for-lanes", "read-only-request-lane", "lanes-swapped", "file-for-a-pipe", "slots-odd",
                    "slots-zero", "slots-max", "slots-more-than-the-lane", "width-zero", "width-max",
                    "width-more-than-the-lane", "text-bytes-max", "text-bytes-zero", "unterminated-refusal",
                    "unknown-refusal", "refusal-with-descriptors", "other-layout", "other-layout-in-the-header",
                    "unfinished-header", "unknown-features", "header-of-another-lane", "header-of-another-generation",
                    "header-of-another-shape", "page-of-another-generation", "never-serves", "serving-refused",
                    "serving-garbage"),
    [](const auto& behaviour) {
      std::string name = behaviour.param;
      for (char& c : name) c = c == '-' ? '_' : c;
      return name;
    });

// Behaviours after a valid attach.
class BadAnswerTest : public HostileEngineTest {};

void EmbedAtAllCosts(const ClientHandle& client) {
  const sutra_options request = ClientHandle::RequestOptions(0, 200);
  const Reply one = client.Embed("one text", request);
  EXPECT_TRUE(IsAStatus(one.status)) << one.status;
  EXPECT_NE(one.status, SUTRA_NOT_READY) << "a blocking call ended without an end";
  sutra_status status = SUTRA_OK;
  for (const Reply& reply : client.EmbedBatch(NumberedTexts("text", 40), &status, request)) {
    EXPECT_TRUE(IsAStatus(reply.status)) << reply.status;
    EXPECT_NE(reply.status, SUTRA_NOT_READY);
  }
  EXPECT_TRUE(IsAStatus(status)) << status;
}

void UseTickets(const ClientHandle& client) {
  const sutra_options request = ClientHandle::RequestOptions(0, 200);
  const int event_fd = sutra_event_fd(client.get());
  static_cast<void>(event_fd);
  for (int round = 0; round < 10; ++round) {
    sutra_ticket ticket = 0;
    const sutra_status submitted = sutra_submit(client.get(), "a ticket", 8, &request, &ticket);
    EXPECT_TRUE(IsAStatus(submitted)) << submitted;
    sutra_ticket done[16];
    EXPECT_LE(PollTickets(client.get(), done, 16), 16U);
    if (submitted != SUTRA_OK) continue;
    sutra_result result = embed::Result();
    EXPECT_TRUE(IsAStatus(sutra_wait(client.get(), ticket, 20, &result)));
    if (result.status == SUTRA_OK) {
      ASSERT_NE(result.vector, nullptr);
      float sum = 0;
      for (uint32_t i = 0; i < result.width; ++i) sum += result.vector[i];
      EXPECT_LE(result.width, client.info().width);
      static_cast<void>(sum);
    }
    EXPECT_TRUE(IsAStatus(sutra_cancel(client.get(), ticket)));
    EXPECT_LE(PollTickets(client.get(), done, 16), 16U);
    sutra_release(client.get(), ticket);
  }
}

TEST_P(BadAnswerTest, EndsEveryCallWithAStatus) {
  const HostileEngine engine(GetParam());
  ClientHandle client;
  ASSERT_EQ(Attach(engine, &client), SUTRA_OK) << sutra_error_text();
  EmbedAtAllCosts(client);
  UseTickets(client);
  EmbedAtAllCosts(client);
}

INSTANTIATE_TEST_SUITE_P(Answers, BadAnswerTest,
                         testing::Values("unterminated-strings", "clock-of-another-world", "hangs-up-after-serving",
                                         "never-answers", "wrong-vectors", "answers-not-ready", "answers-full",
                                         "answers-forked", "answers-unknown-status", "answers-another-sequence",
                                         "answers-with-ones", "answers-too-wide", "answers-and-takes-back",
                                         "completions-without-position", "completions-of-ones", "completions-far-ahead",
                                         "completions-without-end", "events-without-end", "event-pipe-made-blocking",
                                         "drains-for-ever", "closes-without-a-reason", "closes-with-ok",
                                         "state-of-noise", "dies", "another-generation-each-time",
                                         "another-model-each-time"),
                         [](const auto& behaviour) {
                           std::string name = behaviour.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

// The canary of all attacks: the neighbour that vouches for the engine must see a wrong answer, and an end.
TEST(HostileCanary, TheNeighbourSeesAWrongVector) {
  const HostileEngine engine("wrong-vectors");
  Neighbour neighbour(engine.socket());
  EXPECT_TRUE(neighbour.WaitAnswers(3));
  EXPECT_GT(neighbour.wrong(), 0U);
  EXPECT_NE(neighbour.first_wrong().find("vector"), std::string::npos) << neighbour.first_wrong();
}

TEST(HostileCanary, TheNeighbourSeesADeadEngine) {
  const HostileEngine engine("dies");
  Neighbour neighbour(engine.socket());
  EXPECT_TRUE(neighbour.WaitAnswers(1));
  EXPECT_GT(neighbour.wrong(), 0U);
}

}  // namespace
}  // namespace sutra::test
