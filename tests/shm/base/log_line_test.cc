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
  LogLevel last = LogLevel::kInfo;
  LogLimiter limiter(
      [&](LogLevel level, const std::string& line) {
        last = level;
        lines.push_back(line);
      },
      Now);
  limiter(LogLevel::kWarn, "first");
  for (int i = 0; i < 5; ++i) limiter(LogLevel::kWarn, "more");
  g_now_ns += kNsPerSecond - 1;
  limiter(LogLevel::kWarn, "still too early");
  g_now_ns += 1;
  limiter(LogLevel::kWarn, "next");
  limiter(LogLevel::kWarn, "dropped");
  g_now_ns += kNsPerSecond;
  limiter(LogLevel::kWarn, "last");
  g_now_ns += 2 * kNsPerSecond;
  limiter(LogLevel::kWarn, "nothing was left out");
  EXPECT_EQ(lines, (std::vector<std::string>{"first", "next (6 lines left out before)",
                                             "last (1 lines left out before)", "nothing was left out"}));
  EXPECT_EQ(last, LogLevel::kWarn);
}

TEST(LogLimiter, AnEmptySinkDropsTheLines) {
  LogLimiter limiter{LogLine()};
  limiter(LogLevel::kWarn, "nobody reads this");
}

}  // namespace
}  // namespace sutra
