// Batches: order, per-text status, any count through any number of slots, many threads on one client.
#include <random>
#include <thread>

#include "tests/kit/seed.h"
#include "tests/producer/client_fixture.h"

namespace sutra::test {
namespace {

class ClientBatch : public ClientTest {
 protected:
  static void ExpectBatch(const ClientPtr& client, const Texts& texts) {
    const size_t count = texts.strings.size();
    std::vector<float> vectors(count * 16);
    std::vector<sutra_result> results(count, embed::Result());
    ASSERT_EQ(sutra_embed_batch(client.get(), texts.pointers.data(), texts.sizes.data(), count, nullptr, nullptr,
                                vectors.data(), results.data(), sizeof(sutra_result)),
              SUTRA_OK)
        << sutra_error_text();
    for (size_t i = 0; i < count; ++i) {
      ASSERT_EQ(results[i].status, SUTRA_OK) << i;
      ASSERT_EQ(results[i].vector, &vectors[i * 16]) << i;
      ASSERT_TRUE(IsEchoOf(texts.strings[i], &vectors[i * 16], 16)) << i;
    }
  }
};

TEST_F(ClientBatch, ThousandTextsThroughTwoSlots) {
  StartEngine();
  ExpectBatch(Attach(2), ManyTexts(1000));
}

TEST_F(ClientBatch, ThousandTextsThroughTheDefaultSlots) {
  StartEngine();
  ExpectBatch(Attach(), ManyTexts(1000, 3));
}

TEST_F(ClientBatch, OrderHoldsWhenAnswersComeInReverse) {
  EchoOptions reverse;
  reverse.reverse = true;
  StartEngine(reverse);
  ExpectBatch(Attach(32), ManyTexts(500));
}

TEST_F(ClientBatch, ZeroTextsAreFine) {
  StartEngine();
  const ClientPtr client = Attach();
  EXPECT_EQ(sutra_embed_batch(client.get(), nullptr, nullptr, 0, nullptr, nullptr, nullptr, nullptr, 0), SUTRA_OK);
}

TEST_F(ClientBatch, BadTextsGetTheirOwnStatusAndTheOthersTheirVector) {
  StartEngine();
  sutra_attach_options attach = AttachOptions(4);
  attach.text_bytes_max = 512;
  const ClientPtr client = Attach(attach);
  Texts texts = ManyTexts(20);
  texts.strings[0].clear();
  texts.strings[7] = std::string(513, 'x');
  texts.strings[19].clear();
  texts.Seal();
  std::vector<float> vectors(20 * 16, -1.0f);
  std::vector<sutra_result> results(20, embed::Result());
  EXPECT_EQ(sutra_embed_batch(client.get(), texts.pointers.data(), texts.sizes.data(), 20, nullptr, nullptr,
                              vectors.data(), results.data(), sizeof(sutra_result)),
            SUTRA_EMPTY_TEXT);  // the first text's
  for (size_t i = 0; i < 20; ++i) {
    const sutra_status expected = i == 0 || i == 19 ? SUTRA_EMPTY_TEXT : i == 7 ? SUTRA_TEXT_TOO_LONG : SUTRA_OK;
    EXPECT_EQ(results[i].status, expected) << i;
    if (expected == SUTRA_OK) {
      EXPECT_TRUE(IsEchoOf(texts.strings[i], &vectors[i * 16], 16)) << i;
    } else {
      EXPECT_EQ(results[i].vector, nullptr);
      EXPECT_EQ(vectors[i * 16], -1.0f) << "a failed text's vector must stay untouched";
    }
  }
}

TEST_F(ClientBatch, BadOptionsGiveEveryTextThatStatus) {
  StartEngine();
  const ClientPtr client = Attach();
  const Texts texts = ManyTexts(3);
  sutra_options options = RequestOptions();
  options.flags = 1u << 30;
  std::vector<float> vectors(3 * 16);
  std::vector<sutra_result> results(3, embed::Result());
  EXPECT_EQ(sutra_embed_batch(client.get(), texts.pointers.data(), texts.sizes.data(), 3, &options, nullptr,
                              vectors.data(), results.data(), sizeof(sutra_result)),
            SUTRA_BAD_OPTION);
  for (const sutra_result& result : results) EXPECT_EQ(result.status, SUTRA_BAD_OPTION);
}

TEST_F(ClientBatch, HeldTicketsLeaveTheBatchFewerSlotsButItEnds) {
  StartEngine();
  const ClientPtr client = Attach(4, 1);
  std::vector<sutra_ticket> held(3);
  for (sutra_ticket& ticket : held) ASSERT_EQ(Submit(client, "held", &ticket), SUTRA_OK);
  ExpectBatch(client, ManyTexts(50));
  sutra_ticket last = 0;
  ASSERT_EQ(Submit(client, "held", &last), SUTRA_OK);
  const Texts texts = ManyTexts(2);
  const sutra_options options = RequestOptions(30);
  float vectors[32];
  sutra_result results[2] = {embed::Result(), embed::Result()};
  sutra_result result = embed::Result();
  for (const sutra_ticket ticket : held) EXPECT_EQ(sutra_wait(client.get(), ticket, 60'000, &result), SUTRA_OK);
  EXPECT_EQ(sutra_embed_batch(client.get(), texts.pointers.data(), texts.sizes.data(), 2, &options, nullptr, vectors,
                              results, sizeof(sutra_result)),
            SUTRA_FULL);
}

TEST_F(ClientBatch, ManyThreadsShareOneClient) {
  StartEngine();
  for (const uint32_t lanes : {1u, 4u}) {
    const ClientPtr client = Attach(8, lanes);
    const auto seed = static_cast<uint32_t>(TestSeed(4711));
    std::vector<std::thread> threads;
    for (uint32_t t = 0; t < 8; ++t) {
      threads.emplace_back([&, t] {
        std::mt19937 random(seed + t);
        for (int i = 0; i < 60; ++i) {
          const std::string text =
              "thread " + std::to_string(t) + " text " + std::to_string(i) + std::string(random() % 700, 'y');
          switch (random() % 4) {
            case 0: ASSERT_EQ(Embed(client, text), SUTRA_OK) << sutra_error_text(); break;
            case 1: {
              Texts texts;
              for (uint32_t k = 0; k < 1 + random() % 20; ++k) texts.Add(text + std::to_string(k));
              texts.Seal();
              ExpectBatch(client, texts);
              break;
            }
            case 2: {
              sutra_ticket ticket = 0;
              const sutra_status status = Submit(client, text, &ticket);
              if (status == SUTRA_FULL) break;
              ASSERT_EQ(status, SUTRA_OK) << sutra_error_text();
              sutra_result result = embed::Result();
              ASSERT_EQ(sutra_wait(client.get(), ticket, 60'000, &result), SUTRA_OK);
              ASSERT_TRUE(IsEchoOf(text, result.vector, result.width));
              sutra_release(client.get(), ticket);
              break;
            }
            default: {
              sutra_ticket ticket = 0;
              if (Submit(client, text, &ticket) == SUTRA_OK) sutra_release(client.get(), ticket);
            }
          }
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  EXPECT_EQ(engine_->control().violations.load(), 0u);
}

}  // namespace
}  // namespace sutra::test
