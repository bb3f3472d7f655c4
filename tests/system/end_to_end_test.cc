// The whole path of a text with real processes and the fake model, whose every answer is known.
#include <algorithm>
#include <atomic>
#include <set>
#include <thread>

#include "tests/kit/seed.h"
#include "tests/system/system_fixture.h"

namespace sutra::test {
namespace {

class EndToEnd : public SystemTest {
 protected:
  // Embeds all texts in calls of up to 100 and expects every vector to be correct.
  static std::vector<Reply> EmbedAll(const ClientHandle& client, const std::vector<std::string>& texts) {
    std::vector<Reply> replies = client.EmbedBatch(texts);
    for (size_t i = 0; i < texts.size(); ++i) ExpectVector(replies[i], texts[i]);
    return replies;
  }
  static size_t FromShard(const std::vector<Reply>& replies) {
    return static_cast<size_t>(
        std::count_if(replies.begin(), replies.end(), [](const Reply& reply) { return reply.FromCache(); }));
  }
};

TEST_F(EndToEnd, ComputesOnceThenAnswersFromTheShard) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const ClientHandle client = Attached(engine);
  EXPECT_EQ(client.info().width, kTestWidth);
  EXPECT_STREQ(client.info().model, kFakeName);
  EXPECT_EQ(client.info().engine_pid, static_cast<uint32_t>(engine.process().pid()));
  const std::string text = "Apple revenue grew 3.2 percent in the quarter";

  const Reply first = client.Embed(text);
  ExpectVector(first, text);
  EXPECT_EQ(first.source, SUTRA_SOURCE_MODEL);
  EXPECT_EQ(first.token_count, text.size());  // the fake model's tokens are bytes
  const Reply second = client.Embed(text);
  ExpectVector(second, text);
  EXPECT_TRUE(second.FromCache());
  EXPECT_EQ(second.token_count, first.token_count);
}

TEST_F(EndToEnd, OptionsChangeTheAnswerAsTheySay) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const ClientHandle client = Attached(engine);
  const std::string text = "raw and normalised answers come from one entry";
  for (const bool stored : {false, true}) {
    const Reply raw = client.Embed(text, ClientHandle::RequestOptions(SUTRA_RAW));
    EXPECT_EQ(raw.FromCache(), stored);
    EXPECT_TRUE(SameVector(raw.vector, ExpectedVector(text, true)));
    ExpectVector(client.Embed(text, ClientHandle::RequestOptions(SUTRA_NORMALIZE)), text);
  }
  const Reply again = client.Embed(text, ClientHandle::RequestOptions(SUTRA_CACHE_SKIP_LOOKUP));
  EXPECT_EQ(again.source, SUTRA_SOURCE_MODEL);
  const sutra_options no_store = ClientHandle::RequestOptions(SUTRA_CACHE_SKIP_STORE);
  EXPECT_EQ(client.Embed("not to be kept", no_store).source, SUTRA_SOURCE_MODEL);
  EXPECT_EQ(client.Embed("not to be kept", no_store).source, SUTRA_SOURCE_MODEL);
  sutra_options tagged = ClientHandle::RequestOptions();
  tagged.tag = 0xfeedface12345678;
  EXPECT_EQ(client.Embed(text, tagged).tag, tagged.tag);
}

TEST_F(EndToEnd, AnswersFromTheShardAfterACleanRestart) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const std::vector<std::string> texts = NumberedTexts("kept over a clean stop", 500);
  {
    const ClientHandle client = Attached(engine);
    EmbedAll(client, texts);
  }
  const ExitStatus status = engine.Terminate();  // writes and syncs what is pending
  EXPECT_TRUE(status.exited && status.code == 0) << ToText(status);
  ASSERT_TRUE(engine.Start());
  EXPECT_TRUE(engine.WaitStats([&](const StatsSnapshot& s) { return s.gauge("cache_entries") == texts.size(); }, 1));
  EXPECT_EQ(FromShard(EmbedAll(Attached(engine), texts)), texts.size());
}

TEST_F(EndToEnd, AnswersFromTheShardAfterKillMinus9) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const std::vector<std::string> texts = NumberedTexts("kept over a kill", 500);
  EmbedAll(Attached(engine), texts);
  ASSERT_TRUE(engine.WaitWritten());
  EXPECT_EQ(engine.Stats().gauge("wal_dropped_inserts"), 0u);
  engine.Kill();
  ASSERT_TRUE(engine.Start());
  EXPECT_EQ(FromShard(EmbedAll(Attached(engine), texts)), texts.size());

  // And once more: the new engine began a new segment behind the old one.
  const std::vector<std::string> more = NumberedTexts("written by the second engine", 200);
  EmbedAll(Attached(engine), more);
  ASSERT_TRUE(engine.WaitWritten());
  engine.Kill();
  ASSERT_TRUE(engine.Start());
  EXPECT_EQ(FromShard(EmbedAll(Attached(engine), texts)), texts.size());
  EXPECT_EQ(FromShard(EmbedAll(Attached(engine), more)), more.size());
}

// The restart tests above would be blind if an engine without a log passed them too.
TEST_F(EndToEnd, CanaryAnEngineWithoutALogForgetsAtAKill) {
  EngineOptions options;
  options.args = {"--durability", "none"};
  EngineProcess engine(options);
  ASSERT_TRUE(engine.Start());
  const std::vector<std::string> texts = NumberedTexts("memory only", 50);
  EmbedAll(Attached(engine), texts);
  EXPECT_EQ(FromShard(EmbedAll(Attached(engine), texts)), texts.size());
  engine.Kill();
  ASSERT_TRUE(engine.Start());
  EXPECT_EQ(FromShard(EmbedAll(Attached(engine), texts)), 0u);
}

TEST_F(EndToEnd, AnExpiredEntryIsComputedAnew) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const ClientHandle client = Attached(engine);
  sutra_options short_lived = ClientHandle::RequestOptions();
  short_lived.ttl_s = 1;
  const std::string text = "worth a second";
  EXPECT_EQ(client.Embed(text, short_lived).source, SUTRA_SOURCE_MODEL);
  const sutra_options look = ClientHandle::RequestOptions(SUTRA_CACHE_SKIP_STORE);
  // Until the entry expired it is answered from the shard; then never again.
  Reply reply = client.Embed(text, look);
  while (reply.FromCache()) {
    ExpectVector(reply, text);
    reply = client.Embed(text, look);
  }
  ExpectVector(reply, text);
  EXPECT_EQ(reply.source, SUTRA_SOURCE_MODEL);
}

// A faulty batch could mix up cached and computed vectors by using wrong indices.
TEST_F(EndToEnd, AMixedBatchOfHitsMissesDuplicatesAndBadTextsKeepsItsOrder) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const ClientHandle client = Attached(engine);
  std::mt19937_64 random(FreshTestSeed());
  std::vector<std::string> warm;
  while (warm.size() < 300) warm.push_back("warm " + std::to_string(warm.size()) + RandomText(random));
  EmbedAll(client, warm);
  const std::vector<std::string> fresh = NumberedTexts("fresh", 200);
  const std::string invalid = "broken \xC3\x28";

  std::vector<std::string> texts;
  std::set<std::string> computed;
  while (texts.size() < 1000) {
    switch (random() % 8) {
      case 0: texts.push_back(invalid); break;
      case 1: texts.emplace_back(); break;
      case 2:
      case 3:
      case 4:
        texts.push_back(fresh[random() % fresh.size()]);
        computed.insert(texts.back());
        break;
      default: texts.push_back(warm[random() % warm.size()]);
    }
  }
  const uint64_t computed_before = engine.Stats().counter("batch_texts");
  sutra_status status = SUTRA_OK;
  const std::vector<Reply> replies = client.EmbedBatch(texts, &status);
  EXPECT_NE(status, SUTRA_OK);  // some texts have no vector, and the call says so
  std::set<std::string> from_model;
  for (size_t i = 0; i < texts.size(); ++i) {
    if (texts[i].empty()) {
      EXPECT_EQ(replies[i].status, SUTRA_EMPTY_TEXT) << i;
      continue;
    }
    if (texts[i] == invalid) {
      EXPECT_EQ(replies[i].status, SUTRA_INVALID_UTF8) << i;
      continue;
    }
    ExpectVector(replies[i], texts[i]);
    if (texts[i].rfind("warm", 0) == 0) {
      EXPECT_TRUE(replies[i].FromCache()) << i;
    }
    if (replies[i].source == SUTRA_SOURCE_MODEL) {
      EXPECT_TRUE(from_model.insert(texts[i]).second) << "computed twice: " << texts[i];
    }
  }
  EXPECT_EQ(from_model, computed);
  EXPECT_EQ(engine.Stats().counter("batch_texts") - computed_before, computed.size());
}

TEST_F(EndToEnd, AThousandTextsGoThroughALaneOfFourSlots) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  sutra_attach_options options = ClientHandle::DefaultOptions();
  options.slots = 4;
  options.lanes_max = 1;
  ClientHandle client;
  ASSERT_EQ(client.Attach(engine.socket(), options), SUTRA_OK);
  EXPECT_EQ(client.info().slots, 4u);
  std::mt19937_64 random(FreshTestSeed());
  std::vector<std::string> texts;
  while (texts.size() < 1000) texts.push_back(RandomText(random, 2000));
  EmbedAll(client, texts);
}

TEST_F(EndToEnd, EveryThreadGetsItsOwnAnswers) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const ClientHandle client = Attached(engine);
  const uint64_t seed = FreshTestSeed();
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (uint64_t thread = 0; thread < 8; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937_64 random(seed + thread);
      for (int round = 0; round < 30; ++round) {
        std::vector<std::string> texts;
        while (texts.size() < 20) texts.push_back("shared " + std::to_string(random() % 200));
        const std::vector<Reply> replies = client.EmbedBatch(texts);
        for (size_t i = 0; i < texts.size(); ++i) {
          if (!WhatIsWrong(replies[i], texts[i]).empty()) wrong.fetch_add(1);
        }
        const std::string single = RandomText(random);
        if (!WhatIsWrong(client.Embed(single), single).empty()) wrong.fetch_add(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0);
}

TEST_F(EndToEnd, SeveralClientProcessesGetTheirOwnAnswers) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const uint64_t seed = FreshTestSeed();
  std::vector<std::unique_ptr<ChildProcess>> clients;
  for (uint64_t i = 0; i < 4; ++i) {
    clients.push_back(StartClient(engine, "stream", {{"seed", std::to_string(seed + i)}, {"count", "2000"}}));
  }
  for (const auto& client : clients) {
    const std::optional<ExitStatus> status = client->Wait(kWaitMs);
    ASSERT_TRUE(status.has_value());
    EXPECT_TRUE(status->exited && status->code == 0) << ToText(*status) << "\n" << client->Log();
  }
  EXPECT_TRUE(engine.WaitLanes(0));
  const StatsSnapshot stats = engine.Stats();
  EXPECT_GE(stats.counter("replies_ok") + stats.counter("hot_hits"), 8000u) << "each was answered, here or there";
}

// The checker of all client processes must be able to fail.
TEST_F(EndToEnd, CanaryAClientThatGetsADamagedVectorSaysSo) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const auto client = StartClient(engine, "stream", {{"count", "500"}, {"corrupt", "100"}});
  const std::optional<ExitStatus> status = client->Wait(kWaitMs);
  ASSERT_TRUE(status.has_value());
  EXPECT_TRUE(status->exited && status->code == 3) << ToText(*status);
}

// P12: what an attached client has mapped never holds another client's text, not even after the other one is gone and
// its lane is taken down. The text's vector is in the hot table, which all of them map.
TEST_F(EndToEnd, AClientCannotReadAnotherClientsText) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const std::string half1 = "the secret of client one ", half2 = "is 4f1c9a77";
  ClientHandle owner = Attached(engine);
  Reply reply = owner.Embed(half1 + half2);
  while (reply.source != SUTRA_SOURCE_HOT_TABLE) reply = owner.Embed(half1 + half2);
  ExpectVector(reply, half1 + half2);
  for (const bool owner_lives : {true, false}) {
    if (!owner_lives) {
      owner.Detach();
      ASSERT_TRUE(engine.WaitLanes(0));
    }
    const auto scanner = StartClient(engine, "scan", {{"canary1", half1}, {"canary2", half2}});
    const std::optional<ExitStatus> status = scanner->Wait(kWaitMs);
    ASSERT_TRUE(status.has_value());
    EXPECT_TRUE(status->exited && status->code == 0) << ToText(*status) << "\n" << scanner->Log();
  }
  // The scanner can find what it can see: its own text.
  const auto self = StartClient(engine, "scan", {{"canary1", "a harm"}, {"canary2", "less text"}});
  const std::optional<ExitStatus> status = self->Wait(kWaitMs);
  EXPECT_TRUE(status.has_value() && status->exited && status->code == 3) << "the scan is blind";
}

}  // namespace
}  // namespace sutra::test
