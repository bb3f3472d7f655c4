#include "engine/config_file.h"

#include <gtest/gtest.h>

#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "tests/kit/seed.h"

namespace sutra {
namespace {

Result<std::vector<Setting>> Read(const std::string& text) {
  std::istringstream input(text);
  return ReadSettings(input, "file");
}

// The value of the only setting in `text`, or the error.
std::string ValueIn(const std::string& text) {
  const Result<std::vector<Setting>> settings = Read(text);
  if (!settings.ok()) return settings.status().message();
  if (settings->size() != 1) return std::to_string(settings->size()) + " settings";
  return settings->front().value;
}

std::string RandomValue(std::mt19937_64& random) {
  constexpr std::string_view kNasty = "\"'\\#;=[]{}%, \t\n\r\x1b\x7fntx0a";
  std::string value(random() % 20, ' ');
  for (char& c : value) {
    c = random() % 2 == 0 ? kNasty[random() % kNasty.size()] : static_cast<char>(1 + random() % 255);
  }
  return value;
}

// How many of `rounds` random values, written by `write` between two other lines, are not read back.
template <typename Write>
int Lost(uint64_t seed, int rounds, Write write) {
  std::mt19937_64 random(seed);
  int lost = 0;
  for (int round = 0; round < rounds; ++round) {
    const std::string value = RandomValue(random);
    const Result<std::vector<Setting>> read = Read("before=1\n" + write("name", value) + "\nafter=2\n");
    const bool same = read.ok() && read->size() == 3 && (*read)[1].name == "name" && (*read)[1].value == value &&
                      (*read)[2].line == 3 && (*read)[2].value == "2";
    lost += !same;
  }
  return lost;
}

TEST(ConfigFile, EveryValueThatIsWrittenIsReadBack) {
  EXPECT_EQ(Lost(test::FreshTestSeed(), 20'000, SettingLine), 0);
  for (int byte = 1; byte < 256; ++byte) {
    const std::string value(1, static_cast<char>(byte));
    EXPECT_EQ(ValueIn(SettingLine("name", value)), value) << byte;
  }
  for (const char* value : {"", "true", "false", "0640", "-3", "Grüße/日本語", "# no comment", "a\\x41", "\\"}) {
    EXPECT_EQ(ValueIn(SettingLine("name", value)), value);
  }
}

TEST(ConfigFile, TheTestOfWrittenValuesNoticesAWriterWithoutEscapes) {
  const auto write = [](const std::string& name, const std::string& value) { return name + "=\"" + value + "\""; };
  EXPECT_GT(Lost(1, 1000, write), 100);
}

TEST(ConfigFile, NumbersAndTruthValuesArePlainAndAllElseIsQuoted) {
  EXPECT_EQ(SettingLine("slots", "64"), "slots=64");
  EXPECT_EQ(SettingLine("no-cache", "true"), "no-cache=true");
  EXPECT_EQ(SettingLine("data", ""), "data=\"\"");
  EXPECT_EQ(SettingLine("data", "a b"), "data=\"a b\"");
  EXPECT_EQ(SettingLine("data", "\"\\\n\t\x1b"), "data=\"\\\"\\\\\\n\\t\\x1b\"");
}

TEST(ConfigFile, BlankLinesCommentsAndLinesOfTheLogArePassedOver) {
  const Result<std::vector<Setting>> settings =
      Read("\xEF\xBB\xBF# \"comment\n\n \t\n  # another = one\n2026-11-26T00:23:17.255Z warn =\"x\n\tname =  a#b;c  ");
  ASSERT_TRUE(settings.ok()) << settings.status().message();
  ASSERT_EQ(settings->size(), 1u);
  EXPECT_EQ(settings->front().line, 6u);
  EXPECT_EQ(settings->front().name, "name");
  EXPECT_EQ(settings->front().value, "a#b;c");
  EXPECT_TRUE(Read("").ok());
}

TEST(ConfigFile, AByteOrderMarkIsPassedOverAtTheBeginningOnly) {
  EXPECT_EQ(ValueIn("\xEF\xBB\xBFname=a\n"), "a");
  const Result<std::vector<Setting>> later = Read(
      "a=1\n\xEF\xBB\xBF"
      "b=2\n");
  ASSERT_TRUE(later.ok());
  EXPECT_NE(later->back().name, "b");  // no option has that name
}

TEST(ConfigFile, AnyOtherLineIsAnErrorThatNamesItsCause) {
  const struct {
    std::string line;
    const char* word;
  } cases[] = {
      {"name", "not name=value"},
      {"++", "not name=value"},
      {"{", "not name=value"},
      {"; comment", "not name=value"},
      {"\xff\xfe", "not name=value"},
      {std::string("\xff\xfes\0l\0", 6), "control character"},
      {"=5", "name before '='"},
      {"[default]", "section"},
      {"name=", "missing"},
      {"name=a b", "blank"},
      {"name=64 # comment", "a line of its own"},
      {"name=d --slots=4", "blank"},
      {"name='a'", "quote"},
      {"name=a\"b", "quote"},
      {"name=\"", "not closed"},
      {"name=\"s", "not closed"},
      {"name=\"s\\\"", "not closed"},
      {"name=\"s\\", "escape"},
      {"name=\"\\q\"", "escape"},
      {"name=\"\\x4\"", "escape"},
      {"name=\"\\x00\"", "escape"},
      {"name=\"\\xAB\"", "escape"},
      {"name=\"a\" b", "closing quote"},
      {"name=\"a\" # comment", "closing quote"},
      {"name=\"a\tb\"", "tab"},
      {"name=\"a\x1b\"", "control character"},
      {"name=a\x7f", "control character"},
      {"name=64\r", "Unix line ends"},
      {"first=2", "line 1"},
  };
  for (const auto& one : cases) {
    const Result<std::vector<Setting>> settings = Read("first=1\n" + one.line + "\nlast=1\n");
    ASSERT_FALSE(settings.ok()) << one.line;
    EXPECT_EQ(settings.code(), StatusCode::kBadOption);
    EXPECT_EQ(settings.status().message().find("file:2: "), 0u) << settings.status().message();
    EXPECT_NE(settings.status().message().find(one.word), std::string::npos) << settings.status().message();
    EXPECT_NE(settings.status().message().find("; "), std::string::npos) << settings.status().message();
  }
}

TEST(ConfigFile, AFileThatCannotBeReadIsNamed) {
  EXPECT_NE(ReadSettingsFile("/no/such/file").status().message().find("/no/such/file"), std::string::npos);
  EXPECT_NE(ReadSettingsFile("/tmp").status().message().find("is it a file"), std::string::npos);
}

}  // namespace
}  // namespace sutra
