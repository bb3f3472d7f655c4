// The life of a client: what attaching returns, what it refuses before it touches an engine, and detaching.
#include "producer/lane_pool.h"
#include "tests/producer/client_fixture.h"

namespace sutra::test {
namespace {

class ApiAttach : public ClientTest {};

TEST_F(ApiAttach, ReturnsModelLimitsAndGeneration) {
  StartEngine();
  const ClientPtr client = Attach(64);
  sutra_info info = embed::Info();
  ASSERT_EQ(sutra_get_info(client.get(), &info), SUTRA_OK);
  EXPECT_EQ(info.width, 16u);
  EXPECT_EQ(info.slots, 64u);
  EXPECT_EQ(info.text_bytes_max, kTextBytesMaxDefault);
  EXPECT_EQ(info.tokens_max, 256u);
  EXPECT_NE(info.engine_generation, 0u);
  EXPECT_EQ(info.engine_pid, static_cast<uint32_t>(engine_->pid()));
  EXPECT_STREQ(info.model, "echo-model");
  EXPECT_EQ(std::string(info.identity), std::string(64, 'e'));
}

TEST_F(ApiAttach, BadOptionsAreNamedBeforeAnythingIsTouched) {
  sutra_attach_options options = AttachOptions(3);
  EXPECT_EQ(AttachStatus(options), SUTRA_BAD_OPTION);
  options = AttachOptions(kSlotsMax * 2);
  EXPECT_EQ(AttachStatus(options), SUTRA_BAD_OPTION);
  options = AttachOptions();
  options.reserved = 1;
  EXPECT_EQ(AttachStatus(options), SUTRA_BAD_OPTION);
  EXPECT_NE(std::string(sutra_error_text()).find("reserved"), std::string::npos);
  options = AttachOptions();
  options.size = 0;
  EXPECT_EQ(AttachStatus(options), SUTRA_BAD_ARGUMENT);
  EXPECT_NE(std::string(sutra_error_text()).find("size"), std::string::npos);
}

TEST_F(ApiAttach, NoOptionsAreTheDefaultsAndZeroMicrosecondsAreNoSpinning) {
  StartEngine();
  sutra_client* client = nullptr;
  ASSERT_EQ(sutra_attach(path_.c_str(), nullptr, &client), SUTRA_OK);
  EXPECT_EQ(client->spin_ns, SUTRA_SPIN_US_DEFAULT * 1000);
  sutra_detach(client);
  sutra_attach_options options = AttachOptions();
  EXPECT_EQ(Attach(options)->spin_ns, SUTRA_SPIN_US_DEFAULT * 1000);
  options.spin_us = 0;
  const ClientPtr sleeper = Attach(options);
  EXPECT_EQ(sleeper->spin_ns, 0u);
  EXPECT_EQ(Embed(sleeper, "text"), SUTRA_OK);
}

TEST_F(ApiAttach, FieldsOfANewerHeaderAreRefusedUnlessZero) {
  StartEngine();
  struct {
    sutra_attach_options known;
    uint64_t unknown;
  } newer = {AttachOptions(), 0};
  newer.known.size = sizeof(newer);
  EXPECT_EQ(AttachStatus(newer.known), SUTRA_OK) << sutra_error_text();
  newer.unknown = 1;
  EXPECT_EQ(AttachStatus(newer.known), SUTRA_BAD_OPTION);
}

TEST_F(ApiAttach, DetachingNothingIsHarmless) { sutra_detach(nullptr); }

TEST_F(ApiAttach, AFailedAttachLeavesNoClient) {
  sutra_client* client = reinterpret_cast<sutra_client*>(8);
  EXPECT_EQ(sutra_attach(path_.c_str(), nullptr, &client), SUTRA_ENGINE_GONE);
  EXPECT_EQ(client, nullptr);
  client = reinterpret_cast<sutra_client*>(8);
  EXPECT_EQ(sutra_attach(std::string(200, 'p').c_str(), nullptr, &client), SUTRA_REFUSED);
  EXPECT_EQ(client, nullptr);
}

TEST_F(ApiAttach, InfoNamesTheEngineOfTodayAndTheModelOfTheAttach) {
  StartEngine();
  const ClientPtr client = Attach(4);
  engine_->Kill();
  sutra_info gone = embed::Info();
  const sutra_options fail_fast = FailFast();
  EXPECT_EQ(Embed(client, "gone", &fail_fast), SUTRA_ENGINE_GONE);
  ASSERT_EQ(sutra_get_info(client.get(), &gone), SUTRA_OK) << "as of the last attach";
  StartEngine();
  while (Embed(client, "back") != SUTRA_OK) {
  }
  sutra_info back = embed::Info();
  ASSERT_EQ(sutra_get_info(client.get(), &back), SUTRA_OK);
  EXPECT_EQ(back.engine_pid, static_cast<uint32_t>(engine_->pid()));
  EXPECT_NE(back.engine_generation, gone.engine_generation);
  EXPECT_STREQ(back.model, gone.model);
}

}  // namespace
}  // namespace sutra::test
