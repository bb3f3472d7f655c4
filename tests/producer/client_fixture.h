// What the client tests share: a private directory for sockets, a watchdog, and short spellings of common calls.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "producer/include/sutra/embed.hpp"
#include "tests/kit/echo_engine.h"
#include "tests/kit/temp_dir.h"

namespace sutra::test {

// Destroyed = detached.
struct Detacher {
  void operator()(sutra_client* client) const { sutra_detach(client); }
};
using ClientPtr = std::unique_ptr<sutra_client, Detacher>;

class ClientTest : public testing::Test {
 protected:
  // How long a test's event loop waits to be woken: less than a request's deadline, which would wake it, too.
  static constexpr int kWakeMsMax = 20'000;

  void SetUp() override {
    alarm(100);  // the watchdog: a hang becomes a failure that names the test
  }
  void TearDown() override {
    engine_.reset();
    alarm(0);
  }

  EchoEngine& StartEngine(const EchoOptions& options = {}) {
    engine_.reset();
    engine_ = std::make_unique<EchoEngine>(path_, options);
    return *engine_;
  }

  static sutra_attach_options AttachOptions(uint32_t slots = 0, uint32_t lanes_max = 0) {
    sutra_attach_options options = embed::AttachOptions();
    options.slots = slots;
    options.lanes_max = lanes_max;
    options.timeout_ms = 60'000;  // generous: machines stall, and the tests that want a timeout set their own
    return options;
  }
  static sutra_options RequestOptions(uint32_t timeout_ms = 0) {
    sutra_options options = {};
    options.size = sizeof(options);
    options.timeout_ms = timeout_ms;
    return options;
  }

  static sutra_options FailFast() {
    sutra_options options = RequestOptions();
    options.flags = SUTRA_FAIL_FAST;
    return options;
  }

  ClientPtr Attach(const sutra_attach_options& options) {
    sutra_client* client = nullptr;
    EXPECT_EQ(sutra_attach(path_.c_str(), &options, &client), SUTRA_OK) << sutra_error_text();
    return ClientPtr(client);
  }
  ClientPtr Attach(uint32_t slots = 0, uint32_t lanes_max = 0) { return Attach(AttachOptions(slots, lanes_max)); }
  sutra_status AttachStatus(const sutra_attach_options& options) {
    sutra_client* client = nullptr;
    const sutra_status status = sutra_attach(path_.c_str(), &options, &client);
    EXPECT_EQ(client != nullptr, status == SUTRA_OK);
    sutra_detach(client);
    return status;
  }

  static sutra_status Submit(const ClientPtr& client, const std::string& text, sutra_ticket* ticket,
                             const sutra_options* options = nullptr) {
    return sutra_submit(client.get(), text.data(), text.size(), options, ticket);
  }
  // One embed; checks the vector if it returns SUTRA_OK.
  static sutra_status Embed(const ClientPtr& client, const std::string& text, const sutra_options* options = nullptr) {
    sutra_info info = embed::Info();
    if (sutra_get_info(client.get(), &info) != SUTRA_OK) return SUTRA_FORKED;
    std::vector<float> vector(info.width);
    sutra_result result = embed::Result();
    const sutra_status status = sutra_embed(client.get(), text.data(), text.size(), options, vector.data(), &result);
    EXPECT_EQ(result.status, status);
    if (status == SUTRA_OK) {
      EXPECT_TRUE(IsEchoOf(text, vector.data(), result.width));
    }
    return status;
  }

  const TempDir directory_;
  std::string path_ = directory_ / "socket";
  std::unique_ptr<EchoEngine> engine_;
};

// Texts with their two argument arrays for the batch calls.
struct Texts {
  std::vector<std::string> strings;
  std::vector<const char*> pointers;
  std::vector<size_t> sizes;
  void Add(std::string text) { strings.push_back(std::move(text)); }
  void Seal() {
    pointers.clear();
    sizes.clear();
    for (const std::string& text : strings) {
      pointers.push_back(text.data());
      sizes.push_back(text.size());
    }
  }
};
inline Texts ManyTexts(size_t count, size_t bytes_step = 0) {
  Texts texts;
  for (size_t i = 0; i < count; ++i) texts.Add("text number " + std::to_string(i) + std::string(i * bytes_step, 'x'));
  texts.Seal();
  return texts;
}

}  // namespace sutra::test
