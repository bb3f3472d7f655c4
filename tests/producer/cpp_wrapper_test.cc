// embed.hpp: the owners give back what they own. header_cxx17.cc shows that C++17 suffices.
#include "sutra/embed.hpp"

#include "tests/producer/client_fixture.h"

extern "C" const char* sutra_header_c11(void);

namespace sutra::test {
namespace {

class CppWrapper : public ClientTest {};

TEST_F(CppWrapper, EmbedsOneAndMany) {
  StartEngine();
  embed::Client client;
  ASSERT_EQ(client.Attach(path_), SUTRA_OK);
  EXPECT_EQ(client.info().width, 16u);
  const embed::Embedding one = client.Embed("one");
  ASSERT_EQ(one.status, SUTRA_OK);
  EXPECT_TRUE(IsEchoOf("one", one.vector.data(), 16));
  const auto many = client.EmbedBatch({"a", "", "c"});
  ASSERT_EQ(many.size(), 3u);
  EXPECT_TRUE(IsEchoOf("a", many[0].vector.data(), 16));
  EXPECT_EQ(many[1].status, SUTRA_EMPTY_TEXT);
  EXPECT_TRUE(many[1].vector.empty());
  EXPECT_TRUE(IsEchoOf("c", many[2].vector.data(), 16));
}

TEST_F(CppWrapper, TicketsReleaseTheirSlots) {
  StartEngine();
  embed::Client client;
  sutra_attach_options options = embed::AttachOptions();
  options.slots = 2;
  options.lanes_max = 1;
  ASSERT_EQ(client.Attach(path_, options), SUTRA_OK);
  for (int i = 0; i < 10; ++i) {
    embed::Ticket ticket;
    ASSERT_EQ(client.Submit("text", &ticket), SUTRA_OK);
    embed::Ticket moved = std::move(ticket);
    const sutra_result result = moved.Wait(60'000);
    ASSERT_EQ(result.status, SUTRA_OK);
    EXPECT_TRUE(IsEchoOf("text", result.vector, result.width));
  }
}

TEST_F(CppWrapper, ATicketThatWasTakenIsGoneAndOneWithoutRoomStays) {
  StartEngine();
  embed::Client client;
  ASSERT_EQ(client.Attach(path_), SUTRA_OK);
  const size_t free = client.FreeSlots();
  embed::Ticket ticket;
  ASSERT_EQ(client.Submit("text", &ticket), SUTRA_OK);
  float vector[16];
  ASSERT_EQ(ticket.Wait(60'000).status, SUTRA_OK);
  EXPECT_EQ(ticket.Take(vector, 15).status, SUTRA_BAD_ARGUMENT);
  EXPECT_TRUE(ticket);
  EXPECT_EQ(ticket.Take(vector, 16).status, SUTRA_OK);
  EXPECT_TRUE(IsEchoOf("text", vector, 16));
  EXPECT_FALSE(ticket);
  EXPECT_EQ(client.FreeSlots(), free);
}

TEST_F(CppWrapper, ManyTicketsArePolledAndWaitedFor) {
  StartEngine();
  embed::Client client;
  ASSERT_EQ(client.Attach(path_), SUTRA_OK);
  EXPECT_GE(client.EventFd(), 0);
  std::vector<embed::Ticket> tickets(4);
  std::vector<sutra_ticket> ids;
  for (embed::Ticket& ticket : tickets) {
    ASSERT_EQ(client.Submit("text", &ticket), SUTRA_OK);
    ids.push_back(ticket.id());
  }
  size_t index = 99;
  sutra_result result = embed::Result();
  ASSERT_EQ(client.WaitAny(ids, 60'000, &index, &result), SUTRA_OK);
  EXPECT_EQ(result.ticket, ids[index]);
  std::vector<sutra_result> results;
  ASSERT_EQ(client.WaitAll(ids, 60'000, &results), SUTRA_OK);
  EXPECT_EQ(results.size(), 4u);
  EXPECT_EQ(client.Poll(&results), 0u) << "the waits reported them";
  client.CancelAll();
  EXPECT_EQ(client.WaitAll(ids, 60'000, &results), SUTRA_OK) << "what is done stays so";
}

TEST_F(CppWrapper, CHeaderIsUsableFromC) { EXPECT_STREQ(sutra_header_c11(), "ok"); }

}  // namespace
}  // namespace sutra::test
