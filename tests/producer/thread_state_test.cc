#include "producer/thread_state.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <thread>

namespace sutra::test {
namespace {

TEST(ThreadState, FailKeepsTheTextAndReturnsTheStatus) {
  EXPECT_EQ(client::Fail(SUTRA_FULL, "%s of %d", "slot", 7), SUTRA_FULL);
  EXPECT_STREQ(client::CurrentThread().error_text, "slot of 7");
}

TEST(ThreadState, ALongTextIsCutAndTerminated) {
  client::Fail(SUTRA_REFUSED, "%s", std::string(5000, 'x').c_str());
  const auto& text = client::CurrentThread().error_text;
  EXPECT_EQ(std::strlen(text), sizeof(text) - 1);
}

TEST(ThreadState, EveryThreadHasItsOwn) {
  client::Fail(SUTRA_FULL, "of this thread");
  client::CurrentThread().lane_hint = 3;
  std::thread([] {
    EXPECT_STREQ(client::CurrentThread().error_text, "") << "a new thread has no failure";
    EXPECT_EQ(client::CurrentThread().lane_hint, 0u);
    client::Fail(SUTRA_FULL, "of the other");
  }).join();
  EXPECT_STREQ(client::CurrentThread().error_text, "of this thread");
}

}  // namespace
}  // namespace sutra::test
