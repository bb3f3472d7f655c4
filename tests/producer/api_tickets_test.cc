// Tickets: submit, wait, poll, cancel, release; what is checked before a text is taken; the event descriptor.
#include <poll.h>
#include <sys/epoll.h>

#include <set>
#include <thread>

#include "producer/lane_pool.h"
#include "tests/kit/poll_tickets.h"
#include "tests/producer/client_fixture.h"

namespace sutra::test {
namespace {

class ClientTicket : public ClientTest {
 protected:
  // Polls until `want` tickets were reported or the watchdog strikes.
  static std::vector<sutra_ticket> PollAll(const ClientPtr& client, size_t want, size_t at_once) {
    std::vector<sutra_ticket> found;
    while (found.size() < want) {
      std::vector<sutra_ticket> some(at_once);
      some.resize(PollTickets(client.get(), some.data(), some.size()));
      found.insert(found.end(), some.begin(), some.end());
      if (some.empty()) std::this_thread::yield();
    }
    return found;
  }
};

TEST_F(ClientTicket, ResultIsReadInPlaceAlignedAndEchoesTheTag) {
  StartEngine();
  const ClientPtr client = Attach();
  sutra_options options = RequestOptions();
  options.tag = 0xfeedfacecafebeef;
  sutra_ticket ticket = 0;
  ASSERT_EQ(Submit(client, "a text", &ticket, &options), SUTRA_OK);
  EXPECT_NE(ticket, 0u);
  sutra_result result = embed::Result();
  ASSERT_EQ(sutra_wait(client.get(), ticket, 60'000, &result), SUTRA_OK);
  EXPECT_EQ(result.status, SUTRA_OK);
  EXPECT_EQ(result.source, SUTRA_SOURCE_MODEL);
  EXPECT_EQ(result.tag, options.tag);
  EXPECT_EQ(result.width, 16u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(result.vector) % 64, 0u);
  EXPECT_TRUE(IsEchoOf("a text", result.vector, result.width));
  sutra_release(client.get(), ticket);
}

TEST_F(ClientTicket, NarrowerWidthIsPassedOn) {
  StartEngine();
  const ClientPtr client = Attach();
  sutra_options options = RequestOptions();
  options.width = 4;
  EXPECT_EQ(Embed(client, "narrow", &options), SUTRA_OK);
}

TEST_F(ClientTicket, BadInputIsRefusedBeforeATicketExists) {
  StartEngine();
  sutra_attach_options attach = AttachOptions();
  attach.text_bytes_max = 1000;
  const ClientPtr client = Attach(attach);
  sutra_ticket ticket = 0;
  EXPECT_EQ(Submit(client, "", &ticket), SUTRA_EMPTY_TEXT);
  EXPECT_EQ(Submit(client, std::string(1001, 'x'), &ticket), SUTRA_TEXT_TOO_LONG);
  EXPECT_NE(std::string(sutra_error_text()).find("1000"), std::string::npos) << sutra_error_text();
  sutra_options options = RequestOptions();
  options.flags = 1u << 20;
  EXPECT_EQ(Submit(client, "x", &ticket, &options), SUTRA_BAD_OPTION);
  options.flags = SUTRA_NORMALIZE | SUTRA_RAW;
  EXPECT_EQ(Submit(client, "x", &ticket, &options), SUTRA_BAD_OPTION);
  options = RequestOptions();
  options.width = 17;
  EXPECT_EQ(Submit(client, "x", &ticket, &options), SUTRA_BAD_OPTION);
  options = RequestOptions();
  options.priority = 3;
  EXPECT_EQ(Submit(client, "x", &ticket, &options), SUTRA_BAD_OPTION);
  options = RequestOptions();
  options.size = 0;
  EXPECT_EQ(Submit(client, "x", &ticket, &options), SUTRA_BAD_ARGUMENT);
  EXPECT_EQ(ticket, 0u);
  EXPECT_EQ(Embed(client, std::string(1000, 'x')), SUTRA_OK);
  EXPECT_EQ(Embed(client, std::string("nul\0inside", 10)), SUTRA_OK);
}

TEST_F(ClientTicket, TextsOfEveryLengthAroundTheHeadArriveWhole) {
  StartEngine();
  const ClientPtr client = Attach(2);
  for (const size_t bytes : {1u, 7u, 8u, 9u, 255u, 256u, 257u, 264u, 4095u, 4096u, 4352u, 4353u, 65'535u, 65'536u}) {
    std::string text;
    for (size_t i = 0; i < bytes; ++i) text.push_back(static_cast<char>(i * 131 + bytes));
    EXPECT_EQ(Embed(client, text), SUTRA_OK) << bytes;
  }
}

TEST_F(ClientTicket, MemoryOfLongTextsIsGivenBackBeyondABound) {
  StartEngine();
  const ClientPtr client = Attach(256);
  for (int round = 0; round < 3; ++round) {  // 16 MiB per round through every slot; the bound is 4 MiB
    Texts texts;
    for (int i = 0; i < 256; ++i) texts.Add(std::string(65'536, static_cast<char>('a' + i % 26)));
    texts.Seal();
    std::vector<float> vectors(256 * 16);
    ASSERT_EQ(sutra_embed_batch(client.get(), texts.pointers.data(), texts.sizes.data(), 256, nullptr, nullptr,
                                vectors.data(), nullptr, 0),
              SUTRA_OK);
    for (int i = 0; i < 256; ++i) EXPECT_TRUE(IsEchoOf(texts.strings[i], &vectors[i * 16], 16));
  }
}

TEST_F(ClientTicket, FullLaneSaysFullAtOnceAndServesAgainAfterARelease) {
  StartEngine();
  const ClientPtr client = Attach(4, 1);
  std::vector<sutra_ticket> tickets(4);
  for (sutra_ticket& ticket : tickets) ASSERT_EQ(Submit(client, "held", &ticket), SUTRA_OK);
  sutra_ticket extra = 0;
  EXPECT_EQ(Submit(client, "one too many", &extra), SUTRA_FULL);
  sutra_result result = embed::Result();
  EXPECT_EQ(sutra_wait(client.get(), tickets[2], 60'000, &result), SUTRA_OK);
  EXPECT_EQ(Submit(client, "still full: the ticket holds its slot", &extra), SUTRA_FULL);
  sutra_release(client.get(), tickets[2]);
  EXPECT_EQ(Submit(client, "fits", &extra), SUTRA_OK);
  EXPECT_EQ(sutra_wait(client.get(), extra, 60'000, &result), SUTRA_OK);
  EXPECT_TRUE(IsEchoOf("fits", result.vector, result.width));
}

TEST_F(ClientTicket, SubmitManyTakesWhatFits) {
  StartEngine();
  const ClientPtr client = Attach(8, 1);
  const Texts texts = ManyTexts(20);
  std::vector<sutra_ticket> tickets(20);
  size_t submitted = 0;
  EXPECT_EQ(sutra_submit_many(client.get(), texts.pointers.data(), texts.sizes.data(), 20, nullptr, tickets.data(),
                              &submitted),
            SUTRA_FULL);
  EXPECT_EQ(submitted, 8u);
  for (size_t i = 0; i < submitted; ++i) {
    sutra_result result = embed::Result();
    EXPECT_EQ(sutra_wait(client.get(), tickets[i], 60'000, &result), SUTRA_OK);
    EXPECT_TRUE(IsEchoOf(texts.strings[i], result.vector, result.width));
    sutra_release(client.get(), tickets[i]);
  }
}

TEST_F(ClientTicket, SubmitManyStopsAtTheFirstBadText) {
  StartEngine();
  const ClientPtr client = Attach(8);
  Texts texts = ManyTexts(5);
  texts.strings[3].clear();
  texts.Seal();
  std::vector<sutra_ticket> tickets(5);
  size_t submitted = 0;
  EXPECT_EQ(sutra_submit_many(client.get(), texts.pointers.data(), texts.sizes.data(), 5, nullptr, tickets.data(),
                              &submitted),
            SUTRA_EMPTY_TEXT);
  EXPECT_EQ(submitted, 3u);
}

TEST_F(ClientTicket, WaitTimeoutLeavesTheTicketAlive) {
  StartEngine().control().hold = 1;
  const ClientPtr client = Attach();
  sutra_ticket ticket = 0;
  ASSERT_EQ(Submit(client, "slow", &ticket), SUTRA_OK);
  sutra_result result = embed::Result();
  EXPECT_EQ(sutra_wait(client.get(), ticket, 0, &result), SUTRA_NOT_READY);
  EXPECT_EQ(sutra_wait(client.get(), ticket, 20, &result), SUTRA_NOT_READY);
  EXPECT_EQ(result.vector, nullptr);
  engine_->control().hold = 0;
  EXPECT_EQ(sutra_wait(client.get(), ticket, 60'000, &result), SUTRA_OK);
  EXPECT_TRUE(IsEchoOf("slow", result.vector, result.width));
}

TEST_F(ClientTicket, ReleasedOrInventedTicketsAreNamedAndHarmless) {
  StartEngine();
  const ClientPtr client = Attach(2);
  sutra_ticket ticket = 0;
  ASSERT_EQ(Submit(client, "x", &ticket), SUTRA_OK);
  sutra_result result = embed::Result();
  EXPECT_EQ(sutra_wait(client.get(), ticket, 60'000, &result), SUTRA_OK);
  sutra_release(client.get(), ticket);
  sutra_release(client.get(), ticket);
  EXPECT_EQ(sutra_wait(client.get(), ticket, 0, &result), SUTRA_BAD_ARGUMENT);
  for (const sutra_ticket invented : {sutra_ticket{0}, sutra_ticket{1}, ~sutra_ticket{0}, sutra_ticket{1} << 18}) {
    EXPECT_EQ(sutra_wait(client.get(), invented, 0, &result), SUTRA_BAD_ARGUMENT);
    EXPECT_EQ(sutra_cancel(client.get(), invented), SUTRA_BAD_ARGUMENT);
    sutra_release(client.get(), invented);
  }
  EXPECT_EQ(Embed(client, "still fine"), SUTRA_OK);
}

TEST_F(ClientTicket, ATicketKeptOverDetachAndAttachIsABadArgument) {
  StartEngine();
  std::vector<sutra_ticket> old;
  for (int round = 0; round < 3; ++round) {
    const ClientPtr client = Attach(2, 1);
    std::vector<sutra_ticket> own(2);
    for (sutra_ticket& ticket : own) ASSERT_EQ(Submit(client, "x", &ticket), SUTRA_OK);
    sutra_result result = embed::Result();
    for (const sutra_ticket ticket : old) {
      EXPECT_EQ(sutra_wait(client.get(), ticket, 0, &result), SUTRA_BAD_ARGUMENT);
      EXPECT_EQ(result.status, SUTRA_BAD_ARGUMENT);
      EXPECT_EQ(sutra_cancel(client.get(), ticket), SUTRA_BAD_ARGUMENT);
      sutra_release(client.get(), ticket);
    }
    for (const sutra_ticket ticket : own) EXPECT_EQ(sutra_wait(client.get(), ticket, 60'000, &result), SUTRA_OK);
    old.insert(old.end(), own.begin(), own.end());
  }
}

TEST_F(ClientTicket, CancelIsPassedOnAndTheSlotReturns) {
  StartEngine().control().hold = 1;
  const ClientPtr client = Attach(2, 1);
  sutra_ticket ticket = 0;
  ASSERT_EQ(Submit(client, "unwanted", &ticket), SUTRA_OK);
  EXPECT_EQ(sutra_cancel(client.get(), ticket), SUTRA_OK);
  engine_->control().hold = 0;
  sutra_result result = embed::Result();
  EXPECT_EQ(sutra_wait(client.get(), ticket, 60'000, &result), SUTRA_CANCELLED);
  EXPECT_EQ(result.vector, nullptr);
  sutra_release(client.get(), ticket);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Embed(client, "next"), SUTRA_OK);
}

TEST_F(ClientTicket, ReleaseBeforeDoneCancelsAndTheSlotReturnsWhenAnswered) {
  StartEngine().control().hold = 1;
  const ClientPtr client = Attach(2, 1);
  for (int i = 0; i < 2; ++i) {
    sutra_ticket ticket = 0;
    ASSERT_EQ(Submit(client, "dropped", &ticket), SUTRA_OK);
    sutra_release(client.get(), ticket);
  }
  sutra_ticket extra = 0;
  EXPECT_EQ(Submit(client, "no slot while the engine holds both", &extra), SUTRA_FULL);
  engine_->control().hold = 0;
  EXPECT_EQ(Embed(client, "waits for a slot by itself"), SUTRA_OK);
  EXPECT_EQ(engine_->control().cancelled.load(), 2u);
}

TEST_F(ClientTicket, StoppedEngineEndsTicketsAtTheirDeadlineAndALateAnswerIsDropped) {
  StartEngine();
  const ClientPtr client = Attach(2, 1);
  ASSERT_EQ(Embed(client, "warm"), SUTRA_OK);
  engine_->Stop();
  const sutra_options options = RequestOptions(50);
  sutra_ticket ticket = 0;
  ASSERT_EQ(Submit(client, "late", &ticket, &options), SUTRA_OK);
  sutra_result result = embed::Result();
  EXPECT_EQ(sutra_wait(client.get(), ticket, 60'000, &result), SUTRA_DEADLINE_EXCEEDED);
  engine_->Continue();
  EXPECT_EQ(Embed(client, "after"), SUTRA_OK);  // the engine answered the late one first
  EXPECT_EQ(sutra_wait(client.get(), ticket, 60'000, &result), SUTRA_DEADLINE_EXCEEDED);  // a ticket ends once
  EXPECT_EQ(result.vector, nullptr);
  sutra_release(client.get(), ticket);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Embed(client, "all slots are back"), SUTRA_OK);
}

TEST_F(ClientTicket, StoppedEngineEndsBlockingCallsWithDeadlineExceededNotFull) {
  StartEngine();
  const ClientPtr client = Attach(2, 1);
  engine_->Stop();
  const sutra_options options = RequestOptions(30);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Embed(client, "x", &options), SUTRA_DEADLINE_EXCEEDED);
  engine_->Continue();
  EXPECT_EQ(Embed(client, "x"), SUTRA_OK);
}

TEST_F(ClientTicket, PollReportsEachTicketOnce) {
  EchoOptions reverse;
  reverse.reverse = true;
  StartEngine(reverse);
  const ClientPtr client = Attach(16, 1);
  for (int round = 0; round < 10; ++round) {
    std::set<sutra_ticket> expected;
    for (int i = 0; i < 16; ++i) {
      sutra_ticket ticket = 0;
      ASSERT_EQ(Submit(client, "t" + std::to_string(i), &ticket), SUTRA_OK);
      expected.insert(ticket);
    }
    const std::vector<sutra_ticket> found = PollAll(client, 16, 3);
    EXPECT_EQ(std::set<sutra_ticket>(found.begin(), found.end()), expected);
    sutra_ticket none;
    EXPECT_EQ(PollTickets(client.get(), &none, 1), 0u);
    for (const sutra_ticket ticket : found) sutra_release(client.get(), ticket);
  }
}

TEST_F(ClientTicket, PollReportsWholeResultsAStrideApart) {
  StartEngine();
  const ClientPtr client = Attach(4, 1);
  sutra_options options = RequestOptions();
  sutra_ticket tickets[3] = {};
  for (uint64_t i = 0; i < 3; ++i) {
    options.tag = 70 + i;
    ASSERT_EQ(Submit(client, "tagged " + std::to_string(i), &tickets[i], &options), SUTRA_OK);
  }
  struct Record {
    sutra_result result;
    uint64_t canary;
  };
  for (size_t found = 0; found < 3;) {
    Record records[3] = {{embed::Result(), 9}, {{}, 9}, {{}, 9}};  // the first one's size is the size of each
    const size_t count = sutra_poll(client.get(), &records[0].result, sizeof(Record), 3);
    for (size_t i = 0; i < count; ++i, ++found) {
      const sutra_result& result = records[i].result;
      EXPECT_EQ(result.size, sizeof(sutra_result));
      EXPECT_EQ(result.status, SUTRA_OK);
      ASSERT_LT(result.tag - 70, 3u);
      EXPECT_EQ(result.ticket, tickets[result.tag - 70]);
      EXPECT_TRUE(IsEchoOf("tagged " + std::to_string(result.tag - 70), result.vector, result.width));
      EXPECT_EQ(result.data, result.vector);
      EXPECT_EQ(result.data_type, SUTRA_DATA_F32);
      EXPECT_EQ(result.bytes, 16 * sizeof(float));
      EXPECT_EQ(result.approximate, 0u);
    }
    for (const Record& record : records) EXPECT_EQ(record.canary, 9u);
  }
}

TEST_F(ClientTicket, PollAfterManyUnpolledAnswersFindsTheGapAndTheTickets) {
  StartEngine();
  const ClientPtr client = Attach(4, 1);
  for (int i = 0; i < 50; ++i) ASSERT_EQ(Embed(client, "never polled"), SUTRA_OK);  // laps the completion ring
  std::set<sutra_ticket> expected;
  for (int i = 0; i < 4; ++i) {
    sutra_ticket ticket = 0;
    ASSERT_EQ(Submit(client, "polled", &ticket), SUTRA_OK);
    expected.insert(ticket);
  }
  const std::vector<sutra_ticket> found = PollAll(client, 4, 2);
  EXPECT_EQ(std::set<sutra_ticket>(found.begin(), found.end()), expected);
}

TEST_F(ClientTicket, PollDoesNotRepeatWhatWaitReported) {
  StartEngine();
  const ClientPtr client = Attach(4, 1);
  sutra_ticket ticket = 0, polled = 0;
  ASSERT_EQ(Submit(client, "x", &ticket), SUTRA_OK);
  sutra_result result = embed::Result();
  ASSERT_EQ(sutra_wait(client.get(), ticket, 60'000, &result), SUTRA_OK);
  EXPECT_EQ(PollTickets(client.get(), &polled, 1), 0u);
}

class ClientTicketLoop : public ClientTicket, public ::testing::WithParamInterface<uint32_t> {};
INSTANTIATE_TEST_SUITE_P(TriggeredBy, ClientTicketLoop, ::testing::Values(EPOLLIN, EPOLLIN | EPOLLET),
                         [](const auto& test) { return test.param == EPOLLIN ? "Level" : "Edge"; });

TEST_P(ClientTicketLoop, IsWokenByTheEventDescriptor) {
  StartEngine();
  const ClientPtr client = Attach(8, 1);
  const int event_fd = sutra_event_fd(client.get());
  ASSERT_GE(event_fd, 0);
  const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event = {};
  event.events = GetParam();
  ASSERT_EQ(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, event_fd, &event), 0);
  std::vector<sutra_ticket> buffer(9);  // more than there are: every poll returns fewer than it has room for
  EXPECT_EQ(PollTickets(client.get(), buffer.data(), 8), 0u);
  for (int round = 0; round < 50; ++round) {
    for (int i = 0; i < 8; ++i) {
      sutra_ticket ticket = 0;
      ASSERT_EQ(Submit(client, "e" + std::to_string(i), &ticket), SUTRA_OK);
    }
    for (size_t done = 0; done < 8;) {
      ASSERT_EQ(epoll_wait(epoll_fd, &event, 1, 10'000), 1) << "a wake-up was lost in round " << round;
      const size_t found = PollTickets(client.get(), buffer.data(), buffer.size());
      for (size_t i = 0; i < found; ++i) sutra_release(client.get(), buffer[i]);
      done += found;
    }
  }
  close(epoll_fd);
}

// One descriptor for all lanes: of the first, of those that were opened before it was asked for, and of later ones.
TEST_F(ClientTicket, EventDescriptorCoversEveryLane) {
  StartEngine();
  const ClientPtr client = Attach(2, 3);
  const auto fill = [&](size_t count) {
    std::set<sutra_ticket> tickets;
    while (tickets.size() < count) {
      sutra_ticket ticket = 0;
      if (Submit(client, "x", &ticket) == SUTRA_OK) tickets.insert(ticket);
    }
    return tickets;
  };
  engine_->control().hold = 1;
  std::set<sutra_ticket> expected = fill(4);
  const int event_fd = sutra_event_fd(client.get());
  ASSERT_GE(event_fd, 0);
  sutra_ticket none;
  EXPECT_EQ(PollTickets(client.get(), &none, 1), 0u);
  expected.merge(fill(2));
  ASSERT_EQ(client->lane_count.load(), 3u);
  engine_->control().hold = 0;
  sutra_ticket wake = 0;  // the echo engine answers what it held at its next turn
  EXPECT_EQ(Submit(client, "no room", &wake), SUTRA_FULL);
  std::set<sutra_ticket> found;
  while (found.size() < expected.size()) {
    pollfd item = {event_fd, POLLIN, 0};
    ASSERT_EQ(poll(&item, 1, kWakeMsMax), 1);
    sutra_ticket some[8];
    const size_t count = PollTickets(client.get(), some, 8);
    found.insert(some, some + count);
  }
  EXPECT_EQ(found, expected);
}

TEST_F(ClientTicket, EventDescriptorTellsOfADeadlineThoughTheEngineIsStopped) {
  StartEngine();
  const ClientPtr client = Attach(4, 1);
  const int event_fd = sutra_event_fd(client.get());
  ASSERT_GE(event_fd, 0);
  sutra_ticket ticket = 0, done = 0;
  EXPECT_EQ(PollTickets(client.get(), &done, 1), 0u);
  engine_->Stop();
  const sutra_options options = RequestOptions(50);
  ASSERT_EQ(Submit(client, "x", &ticket, &options), SUTRA_OK);
  pollfd item = {event_fd, POLLIN, 0};
  ASSERT_EQ(poll(&item, 1, kWakeMsMax), 1) << "nothing wakes the event loop";
  EXPECT_EQ(PollTickets(client.get(), &done, 1), 1u);
  EXPECT_EQ(done, ticket);
  EXPECT_EQ(sutra_wait(client.get(), ticket, 0, nullptr), SUTRA_DEADLINE_EXCEEDED);
  engine_->Continue();
}

}  // namespace
}  // namespace sutra::test
