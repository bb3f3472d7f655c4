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

// A client that attaches and is refused a thousand times a second.
TEST(LogBudgets, AFloodOfOneKindHidesNoOther) {
  g_now_ns = 5 * kNsPerSecond;
  std::vector<std::string> lines;
  LogBudgets budgets([&](LogLevel, const std::string& line) { lines.push_back(line); }, Now);
  const KindLog log = budgets.log(), other_part = budgets.log();
  for (int i = 0; i < 1000; ++i) log(LogKind::kAttachRefused, LogLevel::kWarn, "refused");
  other_part(LogKind::kAttachRefused, LogLevel::kWarn, "refused");
  other_part(LogKind::kLaneDied, LogLevel::kWarn, "died");
  log(LogKind::kModelFailed, LogLevel::kError, "failed");
  EXPECT_EQ(lines, (std::vector<std::string>{"refused", "died", "failed"}));
  g_now_ns += kNsPerSecond;
  log(LogKind::kAttachRefused, LogLevel::kWarn, "refused");
  EXPECT_EQ(lines.back(), "refused (1000 lines left out before)");
}

TEST(KindLog, APlainSinkGetsEveryLineAndNoneMayBeThere) {
  std::vector<std::string> lines;
  const KindLog log = [&](LogLevel, const std::string& line) { lines.push_back(line); };
  KindLog copy = log;
  copy(LogKind::kLaneDied, LogLevel::kWarn, "one");
  copy(LogKind::kLaneDied, LogLevel::kWarn, "two");
  EXPECT_EQ(lines, (std::vector<std::string>{"one", "two"}));
  copy = {};
  EXPECT_FALSE(copy);
  copy(LogKind::kLaneDied, LogLevel::kWarn, "nobody reads this");
  EXPECT_FALSE(KindLog(LogLine()));
}

}  // namespace
}  // namespace sutra
