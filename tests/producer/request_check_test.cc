// Checks of what callers pass in, without an engine.
#include "producer/request_check.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <string>

#include "producer/include/sutra/embed.hpp"
#include "producer/lane_pool.h"

namespace sutra::test {
namespace {

class RequestCheckTest : public testing::Test {
 protected:
  RequestCheckTest() {
    client_.info.width = 16;
    client_.info.text_bytes_max = 1000;
    client_.info.tokens_max = 256;
    strcpy(client_.info.model, "a-model");
    strcpy(client_.info.identity, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    client_.fork_detector.pid = getpid();
  }
  sutra_status Check(const sutra_options& options) { return client::CheckRequest(&client_, &options, &request_); }
  sutra_status CheckAttach(const sutra_attach_options& options, const std::string& path = "/run/sutra") {
    hello_ = {};
    return client::CheckAttach(path.c_str(), options, &hello_);
  }
  static bool Explained(const std::string& word) {
    return std::string(sutra_error_text()).find(word) != std::string::npos;
  }

  sutra_client client_;
  client::Request request_ = {};
  HelloMessage hello_ = {};
};

TEST_F(RequestCheckTest, ClientsThatAreMissingOrTheParentsAreNamed) {
  EXPECT_EQ(client::CheckClient(&client_), SUTRA_OK);
  EXPECT_EQ(client::CheckClient(nullptr), SUTRA_BAD_ARGUMENT);
  EXPECT_TRUE(Explained("client is NULL"));
  client_.fork_detector.pid = getpid() + 1;
  EXPECT_EQ(client::CheckClient(&client_), SUTRA_FORKED);
  EXPECT_TRUE(Explained("sutra_attach"));
}

TEST_F(RequestCheckTest, NoOptionsAreTheDefaults) {
  request_ = {.tag = 1, .timeout_ns = 2, .flags = 3, .width = 4, .ttl_s = 5, .priority = 6};
  EXPECT_EQ(client::CheckRequest(&client_, nullptr, &request_), SUTRA_OK);
  EXPECT_EQ(request_.timeout_ns, kRequestTimeoutNsDefault);
  EXPECT_EQ(request_.tag + request_.flags + request_.width + request_.ttl_s + request_.priority, 0u);
  EXPECT_EQ(Check(embed::RequestOptions()), SUTRA_OK);
  EXPECT_EQ(request_.timeout_ns, kRequestTimeoutNsDefault);
}

TEST_F(RequestCheckTest, OptionsArePassedOnAsTheyAre) {
  sutra_options options = embed::RequestOptions();
  options.flags = SUTRA_NORMALIZE | SUTRA_REJECT | SUTRA_CACHE_SKIP_LOOKUP | SUTRA_CACHE_SKIP_STORE;
  options.width = 16;
  options.ttl_s = UINT32_MAX;
  options.priority = SUTRA_PRIORITY_BULK;
  options.timeout_ms = UINT32_MAX;
  options.tag = UINT64_MAX;
  ASSERT_EQ(Check(options), SUTRA_OK) << sutra_error_text();
  EXPECT_EQ(request_.flags, options.flags);
  EXPECT_EQ(request_.width, 16u);
  EXPECT_EQ(request_.ttl_s, UINT32_MAX);
  EXPECT_EQ(request_.priority, SUTRA_PRIORITY_BULK);
  EXPECT_EQ(request_.timeout_ns, uint64_t{UINT32_MAX} * 1'000'000);
  EXPECT_EQ(request_.tag, UINT64_MAX);
}

TEST_F(RequestCheckTest, EachBadOptionIsNamedWithItsValue) {
  for (uint32_t bit = 0; bit < 32; ++bit) {
    sutra_options options = embed::RequestOptions();
    options.flags = 1u << bit;
    EXPECT_EQ(Check(options), bit < 6 ? SUTRA_OK : SUTRA_BAD_OPTION) << bit;
  }
  sutra_options options = embed::RequestOptions();
  options.flags = SUTRA_NORMALIZE | SUTRA_RAW;
  EXPECT_EQ(Check(options), SUTRA_BAD_OPTION);
  options = embed::RequestOptions();
  options.width = 17;
  EXPECT_EQ(Check(options), SUTRA_BAD_OPTION);
  EXPECT_TRUE(Explained("17") && Explained("16"));
  options = embed::RequestOptions();
  options.priority = SUTRA_PRIORITY_BULK + 1;
  EXPECT_EQ(Check(options), SUTRA_BAD_OPTION);
  options = embed::RequestOptions();
  options.size = client::kOptionsBytesFirst - 1;
  EXPECT_EQ(Check(options), SUTRA_BAD_ARGUMENT);
}

TEST_F(RequestCheckTest, OptionsThatAreNotServedYetAreRefusedByName) {
  const struct {
    const char* topic;
    std::function<void(sutra_options*)> set;
  } cases[] = {
      {"model", [](sutra_options* options) { options->model = "another"; }},
      {"model", [](sutra_options* options) { options->model = "0123456"; }},  // too short for a prefix
      {"model", [](sutra_options* options) { options->model = "0123456789abcdee"; }},
      {"data_type", [](sutra_options* options) { options->data_type = SUTRA_DATA_F16; }},
      {"data_type", [](sutra_options* options) { options->data_type = SUTRA_DATA_INT8; }},
      {"data_type", [](sutra_options* options) { options->data_type = SUTRA_DATA_BINARY; }},
      {"data_type", [](sutra_options* options) { options->data_type = UINT32_MAX; }},
      {"truncate_side", [](sutra_options* options) { options->truncate_side = SUTRA_TRUNCATE_START; }},
      {"tokens_max", [](sutra_options* options) { options->tokens_max = 255; }},
      {"near_threshold", [](sutra_options* options) { options->near_threshold = 0.9F; }},
      {"near_threshold", [](sutra_options* options) { options->near_threshold = std::nanf(""); }},
      {"prompt_name", [](sutra_options* options) { options->prompt_name = "query"; }},
      {"prompt:", [](sutra_options* options) { options->prompt = ""; }},
  };
  for (const auto& one : cases) {
    sutra_options options = embed::RequestOptions();
    one.set(&options);
    EXPECT_EQ(Check(options), SUTRA_BAD_OPTION) << one.topic;
    EXPECT_TRUE(Explained(one.topic)) << sutra_error_text();
  }
}

TEST_F(RequestCheckTest, ReservedOptionsThatAskForWhatIsServedAnywayAreTaken) {
  for (const char* model : {"", "a-model", "01234567", static_cast<const char*>(client_.info.identity)}) {
    sutra_options options = embed::RequestOptions();
    options.model = model;
    options.tokens_max = 256;
    options.near_threshold = -0.0F;
    EXPECT_EQ(Check(options), SUTRA_OK) << sutra_error_text();
  }
}

TEST_F(RequestCheckTest, FailFastIsTheLibrarysOwnAndNothingThatTheEngineSees) {
  sutra_options options = embed::RequestOptions();
  options.flags = SUTRA_FAIL_FAST | SUTRA_RAW;
  ASSERT_EQ(Check(options), SUTRA_OK);
  EXPECT_EQ(request_.flags, SUTRA_RAW);
  EXPECT_TRUE(request_.fail_fast);
  ASSERT_EQ(Check(embed::RequestOptions()), SUTRA_OK);
  EXPECT_FALSE(request_.fail_fast);
}

TEST_F(RequestCheckTest, TextsHaveOneByteToTheLimit) {
  const std::string text(1001, 'x');
  EXPECT_EQ(client::CheckText(&client_, text.data(), 0), SUTRA_EMPTY_TEXT);
  EXPECT_EQ(client::CheckText(&client_, nullptr, 0), SUTRA_EMPTY_TEXT);
  EXPECT_EQ(client::CheckText(&client_, nullptr, 1), SUTRA_BAD_ARGUMENT);
  EXPECT_EQ(client::CheckText(&client_, text.data(), 1), SUTRA_OK);
  EXPECT_EQ(client::CheckText(&client_, text.data(), 1000), SUTRA_OK);
  EXPECT_EQ(client::CheckText(&client_, text.data(), 1001), SUTRA_TEXT_TOO_LONG);
  EXPECT_EQ(client::CheckText(&client_, text.data(), SIZE_MAX), SUTRA_TEXT_TOO_LONG);
}

TEST_F(RequestCheckTest, AttachOptionsBecomeAHello) {
  sutra_attach_options options = embed::AttachOptions();
  options.slots = 64;
  options.width = 384;
  options.text_bytes_max = kTextBytesMaxLimit;
  options.model = "a model";
  options.client_name = "a client";
  ASSERT_EQ(CheckAttach(options), SUTRA_OK);
  EXPECT_EQ(hello_.magic, kHandshakeMagic);
  EXPECT_EQ(hello_.layout_major, kLayoutMajor);
  EXPECT_EQ(hello_.slots, 64u);
  EXPECT_EQ(hello_.width, 384u);
  EXPECT_EQ(hello_.text_bytes_max, kTextBytesMaxLimit);
  EXPECT_STREQ(hello_.model, "a model");
  EXPECT_STREQ(hello_.client_name, "a client");
}

TEST_F(RequestCheckTest, SlotsAreAPowerOfTwoWithinTheLimits) {
  sutra_attach_options options = embed::AttachOptions();
  for (const uint32_t slots : {0u, kSlotsMin, 256u, kSlotsMax}) {
    options.slots = slots;
    EXPECT_EQ(CheckAttach(options), SUTRA_OK) << slots;
  }
  for (const uint32_t slots : {1u, 3u, 257u, kSlotsMax * 2, UINT32_MAX}) {
    options.slots = slots;
    EXPECT_EQ(CheckAttach(options), SUTRA_BAD_OPTION) << slots;
    EXPECT_TRUE(Explained(std::to_string(slots)));
  }
}

TEST_F(RequestCheckTest, LongNamesAreCutWhereTheyAreForDisplayAndRefusedWhereTheyChoose) {
  const std::string name(200, 'n');
  sutra_attach_options options = embed::AttachOptions();
  options.client_name = name.c_str();
  ASSERT_EQ(CheckAttach(options), SUTRA_OK);
  EXPECT_EQ(hello_.client_name, name.substr(0, sizeof(hello_.client_name) - 1));
  options = embed::AttachOptions();
  options.model = name.c_str();
  EXPECT_EQ(CheckAttach(options), SUTRA_BAD_OPTION);
  EXPECT_EQ(CheckAttach(embed::AttachOptions(), "/" + std::string(106, 'p')), SUTRA_OK);
  EXPECT_EQ(CheckAttach(embed::AttachOptions(), "/" + std::string(107, 'p')), SUTRA_REFUSED);
  options = embed::AttachOptions();
  options.text_bytes_max = kTextBytesMaxLimit + 1;
  EXPECT_EQ(CheckAttach(options), SUTRA_BAD_OPTION);
}

}  // namespace
}  // namespace sutra::test
