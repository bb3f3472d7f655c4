// Texts of megabytes: they share the lane's arena, wait for room in it, and leave it when the engine has answered.
#include <poll.h>

#include <atomic>
#include <thread>

#include "tests/kit/poll_tickets.h"
#include "tests/producer/client_fixture.h"

namespace sutra::test {
namespace {

constexpr size_t kLongBytes = 10'000'000;  // what Sutra admits: one fits into an arena, two do not

std::string LongText(char letter, size_t bytes = kLongBytes) { return std::string(bytes, letter); }

class LongTextTest : public ClientTest {
 protected:
  void SetUp() override {
    ClientTest::SetUp();
    StartEngine();
  }
  static bool IsReadable(int fd) {
    pollfd waiting = {.fd = fd, .events = POLLIN, .revents = 0};
    return poll(&waiting, 1, 0) == 1;
  }
  // Waits for the ticket and releases it.
  static void Finish(const ClientPtr& client, sutra_ticket ticket, const std::string& text) {
    sutra_result result = embed::Result();
    ASSERT_EQ(sutra_wait(client.get(), ticket, 60'000, &result), SUTRA_OK) << sutra_error_text();
    EXPECT_TRUE(IsEchoOf(text, result.vector, result.width));
    sutra_release(client.get(), ticket);
  }
};

TEST_F(LongTextTest, OneOfTheLongestGoesThroughTheDefaultLane) {
  const ClientPtr client = Attach();
  sutra_info info = embed::Info();
  ASSERT_EQ(sutra_get_info(client.get(), &info), SUTRA_OK);
  EXPECT_EQ(info.text_bytes_max, 16u << 20);
  EXPECT_EQ(info.slots, 256u);
  for (const char letter : {'a', 'b'}) EXPECT_EQ(Embed(client, LongText(letter, 16 << 20)), SUTRA_OK);
  EXPECT_EQ(Embed(client, LongText('c', (16 << 20) + 1)), SUTRA_TEXT_TOO_LONG);
}

TEST_F(LongTextTest, ABatchOfManyMixedWithShortOnesGoesThroughOneLane) {
  const ClientPtr client = Attach(16, 1);
  Texts texts;
  for (int i = 0; i < 60; ++i) {
    const char letter = static_cast<char>('a' + i % 26);
    const size_t bytes = i % 10 == 3 ? kLongBytes : i % 10 == 7 ? 3'000'000 : i % 2 == 0 ? 20 : 5000;
    texts.Add(LongText(letter, bytes + static_cast<size_t>(i)));
  }
  texts.Seal();
  std::vector<float> vectors(60 * 16);
  ASSERT_EQ(sutra_embed_batch(client.get(), texts.pointers.data(), texts.sizes.data(), 60, nullptr, nullptr,
                              vectors.data(), nullptr, 0),
            SUTRA_OK)
      << sutra_error_text();
  for (int i = 0; i < 60; ++i) EXPECT_TRUE(IsEchoOf(texts.strings[i], &vectors[i * 16], 16)) << i;
}

TEST_F(LongTextTest, WithoutRoomASubmitSaysFullAndTheDescriptorTellsOfRoom) {
  const ClientPtr client = Attach(16, 1);
  const int event_fd = sutra_event_fd(client.get());
  sutra_ticket first = 0, second = 0, brief = 0;
  const std::string long_one = LongText('a');
  ASSERT_EQ(Submit(client, long_one, &first), SUTRA_OK);
  EXPECT_EQ(Submit(client, LongText('b'), &second), SUTRA_FULL);
  EXPECT_NE(std::string(sutra_error_text()).find("no room for a text of 10000000 bytes: long texts that are under way"),
            std::string::npos)
      << sutra_error_text();
  EXPECT_EQ(Submit(client, "a short one", &brief), SUTRA_OK) << "its place is not in the arena";
  Finish(client, brief, "a short one");
  EXPECT_EQ(Submit(client, LongText('b'), &second), SUTRA_FULL);
  ASSERT_EQ(sutra_wait(client.get(), first, 60'000, nullptr), SUTRA_OK);
  sutra_ticket done[4];
  while (PollTickets(client.get(), done, 4) > 0) {
  }
  sutra_release(client.get(), first);
  EXPECT_TRUE(IsReadable(event_fd)) << "there is room now";
  ASSERT_EQ(Submit(client, LongText('b'), &second), SUTRA_OK);
  Finish(client, second, LongText('b'));
}

TEST_F(LongTextTest, SubmitManyTakesTheTextsBeforeTheFirstWithoutRoom) {
  const ClientPtr client = Attach(16, 1);
  Texts texts;
  texts.Add("short");
  texts.Add(LongText('a'));
  texts.Add(LongText('b'));
  texts.Add("short too");
  texts.Seal();
  sutra_ticket tickets[4];
  size_t submitted = 0;
  EXPECT_EQ(sutra_submit_many(client.get(), texts.pointers.data(), texts.sizes.data(), 4, nullptr, tickets, &submitted),
            SUTRA_FULL);
  EXPECT_EQ(submitted, 2u);
}

TEST_F(LongTextTest, AnotherLaneIsOpenedForTextsThatFindNoRoom) {
  const ClientPtr client = Attach(16, 3);
  std::vector<sutra_ticket> tickets;
  while (tickets.size() < 3) {
    sutra_ticket ticket = 0;
    const sutra_status status = Submit(client, LongText('a'), &ticket);
    if (status == SUTRA_OK) tickets.push_back(ticket);
    ASSERT_TRUE(status == SUTRA_OK || status == SUTRA_FULL) << sutra_error_text();
  }
  EXPECT_EQ(engine_->control().lanes_opened.load(), 3u);
  for (const sutra_ticket ticket : tickets) Finish(client, ticket, LongText('a'));
}

TEST_F(LongTextTest, ThePagesOfAReleasedTextStayUntilTheEngineHasAnswered) {
  const ClientPtr client = Attach(16, 1);
  engine_->control().deaf = 1;
  sutra_ticket ticket = 0;
  ASSERT_EQ(Submit(client, LongText('a'), &ticket), SUTRA_OK);
  sutra_release(client.get(), ticket);
  EXPECT_EQ(Submit(client, LongText('b'), &ticket), SUTRA_FULL) << "the engine may still read the first one";
  engine_->control().deaf = 0;
  while (Submit(client, LongText('b'), &ticket) == SUTRA_FULL) std::this_thread::yield();
  Finish(client, ticket, LongText('b'));
}

TEST_F(LongTextTest, ABlockingCallWaitsForRoomAndIsToldOfIt) {
  const ClientPtr client = Attach(16, 1);
  for (int round = 0; round < 5; ++round) {
    sutra_ticket held = 0;
    ASSERT_EQ(Submit(client, LongText('a'), &held), SUTRA_OK);
    ASSERT_EQ(sutra_wait(client.get(), held, 60'000, nullptr), SUTRA_OK);
    std::atomic<bool> waits = false;
    std::thread caller([&] {
      waits = true;
      EXPECT_EQ(Embed(client, LongText('b')), SUTRA_OK) << sutra_error_text();
    });
    while (!waits) std::this_thread::yield();
    sutra_release(client.get(), held);
    caller.join();
  }
}

// One call waits for pages, another for a slot: what comes free must reach the one that it is enough for.
TEST_F(LongTextTest, ASlotThatIsNoUseToALongTextReachesTheShortOne) {
  const ClientPtr client = Attach(2, 1);
  sutra_ticket held = 0, brief = 0;
  ASSERT_EQ(Submit(client, LongText('a'), &held), SUTRA_OK);
  ASSERT_EQ(Submit(client, "short", &brief), SUTRA_OK);
  ASSERT_EQ(sutra_wait(client.get(), held, 60'000, nullptr), SUTRA_OK);
  ASSERT_EQ(sutra_wait(client.get(), brief, 60'000, nullptr), SUTRA_OK);
  std::thread long_caller([&] { EXPECT_EQ(Embed(client, LongText('b')), SUTRA_OK) << sutra_error_text(); });
  std::thread short_caller([&] { EXPECT_EQ(Embed(client, "waits for a slot"), SUTRA_OK) << sutra_error_text(); });
  sutra_release(client.get(), brief);
  short_caller.join();
  sutra_release(client.get(), held);
  long_caller.join();
}

// Threads that keep the arena full of texts which come and go: the long one that waits gets its turn.
TEST_F(LongTextTest, ALongTextIsNotKeptWaitingForEverByShorterOnes) {
  const ClientPtr client = Attach(64, 1);
  std::atomic<bool> stop = false;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&, i] {
      Texts texts;
      for (int t = 0; t < 32; ++t) texts.Add(LongText(static_cast<char>('a' + i), 500'000));
      texts.Seal();
      std::vector<float> vectors(32 * 16);
      while (!stop) {
        ASSERT_EQ(sutra_embed_batch(client.get(), texts.pointers.data(), texts.sizes.data(), 32, nullptr, nullptr,
                                    vectors.data(), nullptr, 0),
                  SUTRA_OK)
            << sutra_error_text();
      }
    });
  }
  for (const char letter : {'x', 'y'}) EXPECT_EQ(Embed(client, LongText(letter, 16 << 20)), SUTRA_OK);
  stop = true;
  for (std::thread& thread : threads) thread.join();
}

// A ticket that is held keeps its pages; the call that waits for them must not be in the way of one that has room.
TEST_F(LongTextTest, AWaitingCallDoesNotKeepOthersOffForLongerThanItsClaim) {
  const ClientPtr client = Attach(16, 1);
  sutra_ticket held = 0;
  ASSERT_EQ(Submit(client, LongText('a', 5000), &held), SUTRA_OK);
  ASSERT_EQ(sutra_wait(client.get(), held, 60'000, nullptr), SUTRA_OK);
  std::thread waits([&] { EXPECT_EQ(Embed(client, LongText('b', 16 << 20)), SUTRA_OK) << sutra_error_text(); });
  const std::string other = LongText('c', 5000);
  sutra_ticket ticket = 0;
  while (Submit(client, other, &ticket) == SUTRA_OK) Finish(client, ticket, other);  // until the claim is there
  // The held ticket is released only after this.
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Embed(client, other), SUTRA_OK) << sutra_error_text();
  sutra_release(client.get(), held);
  waits.join();
}

}  // namespace
}  // namespace sutra::test
