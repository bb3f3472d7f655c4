// Texts of up to 16 MiB through a real engine with its default limits, beside short ones and from several processes.
#include <sys/stat.h>

#include <filesystem>
#include <sutra/embed.hpp>
#include <thread>

#include "tests/system/system_fixture.h"

namespace sutra::test {
namespace {

constexpr size_t kLongBytes = 10'000'000;  // what Sutra admits

// The memory of the tail files that this process has open.
uint64_t TailMemoryBytes() {
  uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code error;
    const std::string target = std::filesystem::read_symlink(entry.path(), error);
    struct stat info = {};
    if (target.find("sutra-tail-file") == std::string::npos || stat(entry.path().c_str(), &info) != 0) continue;
    bytes += static_cast<uint64_t>(info.st_blocks) * 512;
  }
  return bytes;
}

std::string Words(size_t bytes, int number) {
  std::string text = "text number " + std::to_string(number) + ":";
  while (text.size() < bytes) text += " the storage server admits ten million bytes";
  text.resize(bytes);
  return text;
}

class LongTextSystem : public SystemTest {
 protected:
  // The model reads the first tokens, which the fake one has one a byte of.
  static void ExpectVectorOfItsBeginning(const ClientHandle& client, const Reply& reply, const std::string& text) {
    ExpectVector(reply, text.substr(0, client.info().tokens_max));
    EXPECT_EQ(reply.truncated, text.size() > client.info().tokens_max);
  }

  EngineProcess engine_;
};

TEST_F(LongTextSystem, ABatchOfTextsOfTenMegabytesAndShortOnesIsAnsweredUnderTheDefaultLimits) {
  ASSERT_TRUE(engine_.Start());
  const ClientHandle client = Attached(engine_);
  EXPECT_EQ(client.info().text_bytes_max, 16u << 20);
  std::vector<std::string> texts;
  for (int i = 0; i < 40; ++i) texts.push_back(Words(i % 8 == 3 ? kLongBytes : i % 8 == 5 ? 300'000 : 50, i));
  texts.push_back(Words(16 << 20, 40));
  for (const bool cached : {false, true}) {
    sutra_status status = SUTRA_NOT_READY;
    const std::vector<Reply> replies = client.EmbedBatch(texts, &status);
    ASSERT_EQ(status, SUTRA_OK) << sutra_error_text();
    for (size_t i = 0; i < texts.size(); ++i) {
      ExpectVectorOfItsBeginning(client, replies[i], texts[i]);
      if (cached) {
        EXPECT_TRUE(replies[i].FromCache()) << i;
      }
    }
  }
  EXPECT_LE(TailMemoryBytes(), uint64_t{4} << 20) << "of one lane, when no text is under way";
}

// Two texts that differ in their last byte alone are two keys, though the model reads the same part of both.
TEST_F(LongTextSystem, TheKeyIsTheWholeText) {
  ASSERT_TRUE(engine_.Start());
  const ClientHandle client = Attached(engine_);
  std::string text = Words(kLongBytes, 1);
  EXPECT_EQ(client.Embed(text).source, SUTRA_SOURCE_MODEL);
  EXPECT_TRUE(client.Embed(text).FromCache());
  text.back() ^= 1;
  EXPECT_EQ(client.Embed(text).source, SUTRA_SOURCE_MODEL);
}

// Threads that hold every page of one lane and open others, until the text that they all have is answered.
TEST_F(LongTextSystem, ManyThreadsOfOneClientShareTheArenasOfItsLanes) {
  ASSERT_TRUE(engine_.Start());
  const ClientHandle client = Attached(engine_);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 3; ++round) {
        const std::string text = Words(i % 2 == 0 ? kLongBytes : 400'000, 100 * i + round);
        ExpectVectorOfItsBeginning(client, client.Embed(text), text);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// They wait for the thread that reads them when the signal comes: taken is taken.
TEST_F(LongTextSystem, ADrainAnswersTheLongTextsThatWereTaken) {
  constexpr int kTexts = 6;
  ASSERT_TRUE(engine_.Start());
  embed::Client client;
  ASSERT_EQ(client.Attach(engine_.socket(), embed::AttachOptions()), SUTRA_OK) << sutra_error_text();
  std::vector<std::string> texts;
  std::vector<embed::Ticket> tickets(kTexts);
  for (int i = 0; i < kTexts; ++i) {
    texts.push_back(Words(2'000'000, i));
    ASSERT_EQ(client.Submit(texts.back(), &tickets[static_cast<size_t>(i)], embed::RequestOptions()), SUTRA_OK);
  }
  ASSERT_TRUE(engine_.WaitStats([](const StatsSnapshot& s) { return s.counter("texts") == kTexts; }));
  engine_.process().Signal(SIGTERM);
  for (embed::Ticket& ticket : tickets) {
    const sutra_result result = ticket.Wait(60'000);
    EXPECT_EQ(result.status, SUTRA_OK) << sutra_status_text(result.status);
    EXPECT_EQ(result.source, SUTRA_SOURCE_MODEL);
    ticket.Release();
  }
  const ExitStatus status = engine_.WaitEnd();
  EXPECT_TRUE(status.exited && status.code == 0) << ToText(status);
}

// Floods of long texts, found or not, do not change what another client gets.
TEST_F(LongTextSystem, EachClientGetsTheVectorsOfItsOwnLongTexts) {
  ASSERT_TRUE(engine_.Start());
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&, i] {
      const ClientHandle client = Attached(engine_);
      for (int round = 0; round < 4; ++round) {
        const std::string own = Words(3'000'000, 10 * i + round), shared = Words(5'000'000, 1000 + round);
        ExpectVectorOfItsBeginning(client, client.Embed(own), own);
        ExpectVectorOfItsBeginning(client, client.Embed(shared), shared);
        ExpectVectorOfItsBeginning(client, client.Embed(own), own);
        std::string invalid = own;
        invalid.back() = '\xff';
        EXPECT_EQ(client.Embed(invalid).status, SUTRA_INVALID_UTF8);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace sutra::test
