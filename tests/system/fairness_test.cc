// What one client process may take from another: nothing that the other is entitled to. A real engine whose model takes
// its time, an ingest in a process of its own, and this process as the other client. Nothing is timed: what is served
// in between is counted.
#include <string>

#include "tests/system/system_fixture.h"

namespace sutra::test {
namespace {

// Of the 500 in an ingest's backlog. It should be two, but this process may get the CPU late.
constexpr uint64_t kBatchesFew = 300;

class Fairness : public SystemTest {
 protected:
  // Batches of 64 tokens, which are two texts of the ingest.
  void Start(const std::string& queue_texts_max, const std::string& delay_us) {
    engine_.options().environment = {"SUTRA_FAKE_DELAY_US=" + delay_us};
    engine_.options().args = {"--batch-tokens-max", "64", "--queue-texts-max", queue_texts_max};
    ASSERT_TRUE(engine_.Start());
  }
  uint64_t Count(const char* counter) const { return engine_.Stats().counter(counter); }
  static sutra_options Bulk() {
    sutra_options options = ClientHandle::RequestOptions(0, kWaitMs);
    options.priority = SUTRA_PRIORITY_BULK;
    return options;
  }

  EngineProcess engine_;
};

// A query that is served at once because of its class must not move the virtual time to the end of its sender's
// backlog: then 500 batches come before another client's text.
TEST_F(Fairness, AQueryOfAnIngestDoesNotPutOtherClientsBehindItsBacklog) {
  Start("65536", "5000");
  const auto ingest = StartClient(engine_, "ingest", {{"count", "1000"}, {"bytes", "32"}, {"query", "1"}});
  ExpectLine(*ingest, "ingesting");
  const ClientHandle client = Attached(engine_);
  const uint64_t before = Count("batches");
  ExpectVector(client.Embed("a text of another client", Bulk()), "a text of another client");
  EXPECT_LT(Count("batches") - before, kBatchesFew);
  ExpectRight(*ingest);
}

// An ingest that fills the queue must not make other clients `overloaded`.
TEST_F(Fairness, AnIngestThatFillsTheQueueIsRefusedAndOtherClientsAreNot) {
  Start("64", "2000");
  const auto ingest = StartClient(engine_, "ingest", {{"count", "1000"}, {"bytes", "32"}});
  ExpectLine(*ingest, "ingesting");
  ASSERT_TRUE(engine_.WaitStats([](const StatsSnapshot& stats) { return stats.counter("replies_overloaded") > 100; }));
  const ClientHandle client = Attached(engine_);
  for (const std::string& text : NumberedTexts("another client's", 50)) ExpectVector(client.Embed(text, Bulk()), text);
  EXPECT_GT(Count("replies_overloaded"), 100u);  // the canary: the queue is full
  ExpectRight(*ingest);
}

TEST_F(Fairness, AnOverloadedClientIsToldWhenToSubmitAgain) {
  Start("4", "100000");
  const ClientHandle client = Attached(engine_);
  std::vector<sutra_ticket> tickets;
  for (const std::string& text : NumberedTexts("too many", 20)) {
    tickets.push_back(0);
    ASSERT_EQ(sutra_submit(client.get(), text.data(), text.size(), nullptr, &tickets.back()), SUTRA_OK);
  }
  uint32_t overloaded = 0;
  for (const sutra_ticket ticket : tickets) {
    sutra_result result = embed::Result();
    if (sutra_wait(client.get(), ticket, kWaitMs, &result) == SUTRA_OVERLOADED) {
      ++overloaded;
      EXPECT_GE(result.retry_after_ms, 1u);
      EXPECT_LE(result.retry_after_ms, 30'000u);
      EXPECT_NE(std::string(sutra_error_text()).find("retry in "), std::string::npos) << sutra_error_text();
    } else {
      EXPECT_EQ(result.status, SUTRA_OK);
      EXPECT_EQ(result.retry_after_ms, 0u);
    }
    sutra_release(client.get(), ticket);
  }
  EXPECT_GT(overloaded, 0u);
}

// A text that another client's ingest has queued already, deep in its backlog: who joins it does not wait for that.
TEST_F(Fairness, AClientThatJoinsATextOfAnIngestDoesNotWaitBehindIt) {
  Start("65536", "5000");
  const ClientHandle client = Attached(engine_);
  const auto ingest = StartClient(engine_, "ingest", {{"count", "1000"}, {"bytes", "32"}});
  ExpectLine(*ingest, "ingesting");
  ASSERT_TRUE(engine_.WaitStats([](const StatsSnapshot& stats) { return stats.counter("texts") >= 1000; }));
  const std::string pid = std::to_string(ingest->pid());
  std::string text = "ingest " + pid + " 900 ";
  text.resize(32, 'x');
  const uint64_t before = Count("batches");
  const Reply reply = client.Embed(text, Bulk());
  ExpectVector(reply, text);
  EXPECT_EQ(reply.source, SUTRA_SOURCE_JOINED);
  EXPECT_LT(Count("batches") - before, kBatchesFew);
  ExpectRight(*ingest);
}

// Texts that cost much to tokenise and give few tokens, or none, are refused or served by the worker; a client beside
// them is served all the same, and the loop answers its cached texts.
TEST_F(Fairness, InvalidTextsOfAClientDoNotStopAnother) {
  Start("65536", "2000");
  const ClientHandle client = Attached(engine_);
  std::string invalid(60'000, 'x');
  invalid += '\xff';
  EXPECT_EQ(client.Embed(invalid).status, SUTRA_INVALID_UTF8);
  ExpectVector(client.Embed("valid"), "valid");
  EXPECT_TRUE(client.Embed("valid").FromCache());
  EXPECT_EQ(Count("replies_invalid_utf8"), 1u);
}

}  // namespace
}  // namespace sutra::test
