#include "shm/base/log_line.h"

#include <gtest/gtest.h>

#include <vector>

namespace sutra {
namespace {

uint64_t g_now_ns = 0;
uint64_t Now() { return g_now_ns; }

TEST(LogLimiter, TheFirstLineOfASecondIsPassedOnAndTheRestAreCounted) {
  g_now_ns = 5 * kNsPerSecond;
  std::vector<std::string> lines;
  LogLimiter limiter([&lines](const std::string& line) { lines.push_back(line); }, Now);
  limiter("first");
  for (int i = 0; i < 5; ++i) limiter("more");
  g_now_ns += kNsPerSecond - 1;
  limiter("still too early");
  g_now_ns += 1;
  limiter("next");
  limiter("dropped");
  g_now_ns += kNsPerSecond;
  limiter("last");
  g_now_ns += 2 * kNsPerSecond;
  limiter("nothing was left out");
  EXPECT_EQ(lines, (std::vector<std::string>{"first", "next (6 lines left out before)",
                                             "last (1 lines left out before)", "nothing was left out"}));
}

TEST(LogLimiter, AnEmptySinkDropsTheLines) {
  LogLimiter limiter{LogLine()};
  limiter("nobody reads this");
}

}  // namespace
}  // namespace sutra
