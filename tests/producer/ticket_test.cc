// Tickets as numbers: what names a live request, and what does not.
#include "producer/ticket.h"

#include <string>

#include "tests/producer/client_fixture.h"

namespace sutra::test {
namespace {

class TicketTest : public ClientTest {
 protected:
  void SetUp() override {
    ClientTest::SetUp();
    StartEngine();
    client_ = Attach(4, 1);
  }
  void TearDown() override {
    client_.reset();
    ClientTest::TearDown();
  }
  bool Find(sutra_ticket ticket) { return client::FindTicket(client_.get(), ticket, &lane_, &slot_); }
  sutra_ticket Live() {
    sutra_ticket ticket = 0;
    EXPECT_EQ(Submit(client_, "text", &ticket), SUTRA_OK);
    return ticket;
  }

  ClientPtr client_;
  client::ClientLane* lane_ = nullptr;
  uint32_t slot_ = 0;
};

TEST_F(TicketTest, ALiveTicketLeadsToItsSlotUntilItIsReleased) {
  const sutra_ticket first = Live(), second = Live();
  EXPECT_NE(first, second);
  ASSERT_TRUE(Find(first));
  EXPECT_EQ(client::TicketOf(lane_, slot_), first);
  const uint32_t first_slot = slot_;
  ASSERT_TRUE(Find(second));
  EXPECT_NE(slot_, first_slot);
  sutra_release(client_.get(), first);
  EXPECT_FALSE(Find(first));
  EXPECT_TRUE(Find(second));
}

TEST_F(TicketTest, TheNextRequestInTheSlotHasAnotherTicket) {
  const sutra_ticket before = Live();
  sutra_result result = embed::Result();
  ASSERT_EQ(sutra_wait(client_.get(), before, 60'000, &result), SUTRA_OK);
  sutra_release(client_.get(), before);
  const sutra_ticket after = Live();
  EXPECT_EQ(before & client::kSlotMask, after & client::kSlotMask) << "the warm slot is used again";
  EXPECT_NE(before, after);
  EXPECT_FALSE(Find(before));
  EXPECT_TRUE(Find(after));
}

TEST_F(TicketTest, NumbersThatWereNeverGivenOutAreNotFound) {
  const sutra_ticket live = Live();
  EXPECT_FALSE(Find(0));
  EXPECT_FALSE(Find(~sutra_ticket{0}));
  EXPECT_FALSE(Find(live ^ 1));                                       // another slot
  EXPECT_FALSE(Find(live ^ uint64_t{1} << client::kTicketSlotBits));  // another lane
  EXPECT_FALSE(Find(live ^ (client::kSlotMask & ~3u)));               // a slot that the lane does not have
  for (int bit = client::kTicketSlotBits + client::kTicketLaneBits; bit < 64; ++bit) {
    EXPECT_FALSE(Find(live ^ uint64_t{1} << bit)) << bit;  // another sequence
  }
  EXPECT_TRUE(Find(live));
}

TEST_F(TicketTest, ABadTicketIsNamedInHexadecimal) {
  EXPECT_EQ(client::FailTicket(0xabc123), SUTRA_BAD_ARGUMENT);
  EXPECT_NE(std::string(sutra_error_text()).find("abc123"), std::string::npos) << sutra_error_text();
}

TEST_F(TicketTest, AWaitThatLooksOnceLeavesTheTicketAlive) {
  engine_->control().hold = 1;
  ASSERT_TRUE(Find(Live()));
  EXPECT_EQ(client::WaitSlot(client_.get(), lane_, slot_, 0), SUTRA_NOT_READY);
  engine_->control().hold = 0;
  EXPECT_EQ(client::WaitSlot(client_.get(), lane_, slot_, client::kUntilDeadline), SUTRA_OK);
  EXPECT_EQ(client::WaitSlot(client_.get(), lane_, slot_, 0), SUTRA_OK) << "as often as one likes";
}

TEST_F(TicketTest, AFinalStatusIsExplained) {
  engine_->control().hold = 1;
  sutra_ticket ticket = 0;
  const sutra_options fail_fast = FailFast();
  ASSERT_EQ(Submit(client_, "text", &ticket, &fail_fast), SUTRA_OK);
  ASSERT_TRUE(Find(ticket));
  engine_->Kill();
  EXPECT_EQ(client::WaitSlot(client_.get(), lane_, slot_, client::kUntilDeadline), SUTRA_ENGINE_GONE);
  EXPECT_NE(std::string(sutra_error_text()).find("submit again"), std::string::npos) << sutra_error_text();
}

}  // namespace
}  // namespace sutra::test
