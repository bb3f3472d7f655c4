#include "tools/cache/cache_options.h"

#include <gtest/gtest.h>

#include "tests/tools/cache/cache_tool_fixture.h"

namespace sutra::test {
namespace {

TEST(CacheOptions, DurationsAreSumsOfNumbersWithUnits) {
  EXPECT_EQ(ParseDuration("90").value(), 90u);
  EXPECT_EQ(ParseDuration("90s").value(), 90u);
  EXPECT_EQ(ParseDuration("15m").value(), 900u);
  EXPECT_EQ(ParseDuration("36h").value(), 129'600u);
  EXPECT_EQ(ParseDuration("7d").value(), 604'800u);
  EXPECT_EQ(ParseDuration("2w").value(), 1'209'600u);
  EXPECT_EQ(ParseDuration("1d12h").value(), 129'600u);
  for (const char* wrong :
       {"", "0", "0s", "h", "-1", "1.5h", "1y", "1 h", "99999999999999999999", "4294967296s", "9999999w", "1hh"}) {
    EXPECT_FALSE(ParseDuration(wrong).ok()) << wrong;
  }
}

class CacheUsage : public CacheToolTest {};

TEST_F(CacheUsage, AWrongCallSaysWhatIsMissing) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> calls = {
      {{}, "subcommand"},
      {{"stats"}, "--socket PATH"},
      {{"stats", "--socket", "a", "--data", "b"}, "one of them"},
      {{"get", "--data", "b"}, "name texts"},
      {{"erase", "--data", "b", "--yes"}, "name texts"},
      {{"drop", "--data", "b"}, "drop needs a condition"},
      {{"drop", "--data", "b", "--all", "--never-hit"}, "--all excludes"},
      {{"drop", "--data", "b", "--older-than", "soon"}, "no duration"},
      {{"drop", "--data", "b", "--contains", std::string(kFilterContainsBytesMax + 1, 'x')}, "at most"},
      {{"verify", "--socket", "a"}, "verify reads files"},
      {{"warm", "f", "--data", "b"}, "running engine"},
      {{"export", "--data", "b", "--format", "npy"}, "--output DIR"},
      {{"stats", "--socket", "a", "--identity", "b"}, "--identity"},
  };
  for (const auto& [args, why] : calls) {
    const Finished finished = Run(args);
    EXPECT_EQ(finished.status.code, kCacheError) << (args.empty() ? "" : args[0]);
    EXPECT_NE(finished.errors.find(why), std::string::npos) << finished.errors;
    EXPECT_EQ(finished.output, "");
  }
}

TEST_F(CacheUsage, EveryCommandExplainsItselfWithItsExitCodes) {
  for (const char* command :
       {"stats", "identities", "get", "dump", "export", "import", "warm", "erase", "drop", "compact", "verify"}) {
    const Finished finished = Run({command, "--help"});
    EXPECT_EQ(finished.status.code, 0) << command;
    EXPECT_NE(finished.output.find("Exit codes"), std::string::npos) << command;
    EXPECT_NE(finished.output.find("--data"), std::string::npos) << command;
  }
  EXPECT_NE(Run({"--help"}).output.find("Exit codes"), std::string::npos);
}

}  // namespace
}  // namespace sutra::test
