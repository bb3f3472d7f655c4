// What statuses mean in words.
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "producer/include/sutra/embed.h"
#include "producer/thread_state.h"
#include "shm/base/status.h"

namespace sutra::test {
namespace {

TEST(ApiStatus, StatusTextsCoverAllNumbersAndUnknownOnes) {
  std::set<std::string> texts;
  for (int i = 0; i < kStatusCodeCount; ++i) texts.insert(sutra_status_text(static_cast<sutra_status>(i)));
  EXPECT_EQ(texts.size(), static_cast<size_t>(kStatusCodeCount)) << "every number has words of its own";
  EXPECT_FALSE(texts.contains(""));
  EXPECT_STREQ(sutra_status_text(31), "model error");
  EXPECT_STREQ(sutra_status_text(UINT32_MAX), "model error");
  EXPECT_STREQ(sutra_status_text(SUTRA_FULL), "full");
  EXPECT_STREQ(sutra_status_text(SUTRA_BAD_ARGUMENT), "bad argument");
}

TEST(ApiStatus, TheLibraryThatRunsSaysItsVersion) { EXPECT_EQ(sutra_abi_version(), SUTRA_ABI_VERSION); }

TEST(ApiStatus, ErrorTextIsTheLastFailureOfThisThread) {
  ASSERT_NE(sutra_error_text(), nullptr);
  client::Fail(SUTRA_REFUSED, "first");
  client::Fail(SUTRA_REFUSED, "second");
  EXPECT_STREQ(sutra_error_text(), "second");
}

}  // namespace
}  // namespace sutra::test
