// Opening lanes for a client: what is kept of the engine, what is refused, and how attempts are paced.
#include "producer/lane_open.h"

#include "producer/resubmission.h"
#include "tests/producer/client_fixture.h"

namespace sutra::test {
namespace {

// A client without a helper thread: the test is the one that opens lanes.
class LaneOpenTest : public ClientTest {
 protected:
  void TearDown() override {
    client::FreeClient(client_, false);
    ClientTest::TearDown();
  }
  sutra_status OpenFirst() {
    sutra_attach_options options = AttachOptions(4, 3);
    HelloMessage hello = {};
    hello.magic = kHandshakeMagic;
    hello.layout_major = kLayoutMajor;
    hello.slots = options.slots;
    client_ = client::NewClient(path_.c_str(), options, hello);
    return client::OpenFirstLane(client_, MonotonicNs() + 60 * kNsPerSecond);
  }
  client::LaneCount Count() { return client::CountLanes(client_, MonotonicNs()); }
  sutra_status AttemptStatus() {
    const MutexLock lock(client_->attempt_mutex);
    return client_->attempt_status;
  }
  std::string AttemptText() {
    const MutexLock lock(client_->attempt_mutex);
    return client_->attempt_text;
  }

  sutra_client* client_ = nullptr;
};

TEST_F(LaneOpenTest, TheFirstLaneSaysWhatTheOthersAskFor) {
  StartEngine();
  ASSERT_EQ(OpenFirst(), SUTRA_OK) << sutra_error_text();
  EXPECT_EQ(client_->info.width, 16u);
  EXPECT_EQ(client_->hello.width, 0u) << "another model is to be told from a refusal";
  EXPECT_EQ(client_->hello.model[0], 0);
  EXPECT_EQ(client_->hello.text_bytes_max, client_->info.text_bytes_max);
  EXPECT_EQ(Count().usable, 1u);
  EXPECT_TRUE(client::OpenLane(client_));
  EXPECT_EQ(Count().usable, 2u);
  EXPECT_EQ(client_->lane_count.load(), 2u);
}

TEST_F(LaneOpenTest, AFailureIsPacedAndExplainedAndASuccessForgetsIt) {
  StartEngine();
  ASSERT_EQ(OpenFirst(), SUTRA_OK) << sutra_error_text();
  engine_->Kill();
  for (int i = 0; i < 8; ++i) {
    const uint64_t before_ns = MonotonicNs();
    client::TellDeath(client_->lanes[0].load());
    EXPECT_FALSE(client::OpenLane(client_));
    EXPECT_GE(client_->open_after_ns.load(), before_ns + client::kBackoffNsMin);
  }
  EXPECT_LE(client_->open_after_ns.load(), MonotonicNs() + client::kBackoffNsMax);
  EXPECT_EQ(AttemptStatus(), SUTRA_ENGINE_GONE);
  EXPECT_NE(AttemptText().find("nothing listens"), std::string::npos) << AttemptText();
  StartEngine();
  while (!client::OpenLane(client_)) {
  }
  EXPECT_EQ(AttemptStatus(), SUTRA_OK);
  const MutexLock lock(client_->attempt_mutex);
  EXPECT_EQ(client_->backoff_ns, client::kBackoffNsMin);
  EXPECT_EQ(client_->engine_pid, static_cast<uint32_t>(engine_->pid()));
}

TEST_F(LaneOpenTest, OtherLanesThanTheFirstAreRefusedWithBothNumbers) {
  StartEngine();
  ASSERT_EQ(OpenFirst(), SUTRA_OK) << sutra_error_text();
  EchoOptions other;
  other.slots_max = 2;
  StartEngine(other);
  do {  // an engine that is slow to answer is no refusal yet
    EXPECT_FALSE(client::OpenLane(client_));
  } while (AttemptStatus() == SUTRA_DEADLINE_EXCEEDED);
  EXPECT_EQ(AttemptStatus(), SUTRA_ENGINE_GONE);
  EXPECT_NE(AttemptText().find("2 slots"), std::string::npos) << AttemptText();
  EXPECT_NE(AttemptText().find("before: 16, 4"), std::string::npos) << AttemptText();
}

}  // namespace
}  // namespace sutra::test
