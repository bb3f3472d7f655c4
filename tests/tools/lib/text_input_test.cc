// Lines in, items out: every line gives exactly one item, whatever it holds.
#include "tools/lib/text_input.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <vector>

namespace sutra {
namespace {

class LineReaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = ::testing::TempDir() + "/lines-XXXXXX";
    fd_ = mkstemp(path_.data());
    ASSERT_GE(fd_, 0);
  }
  void TearDown() override {
    close(fd_);
    unlink(path_.c_str());
  }
  std::vector<std::string> Read(const std::string& content) {
    EXPECT_EQ(write(fd_, content.data(), content.size()), static_cast<ssize_t>(content.size()));
    Result<LineReader> reader = LineReader::Open(path_);
    EXPECT_TRUE(reader.ok());
    std::vector<std::string> lines;
    std::string line;
    LineReader::Got got;
    while ((got = reader->Next(&line, -1)) == LineReader::Got::kLine || got == LineReader::Got::kTooLong) {
      lines.push_back(got == LineReader::Got::kTooLong ? "<too long>" : line);
      EXPECT_EQ(reader->line_number(), lines.size());
    }
    EXPECT_EQ(got, LineReader::Got::kEnd);
    EXPECT_EQ(reader->bytes_taken(), content.size());
    return lines;
  }
  std::string path_;
  int fd_ = -1;
};

using Lines = std::vector<std::string>;

TEST_F(LineReaderTest, SplitsAtLineEndsOfBothKinds) { EXPECT_EQ(Read("a\nb\r\n\nc\n"), (Lines{"a", "b", "", "c"})); }
TEST_F(LineReaderTest, ALastLineWithoutAnEndCounts) { EXPECT_EQ(Read("a\nb"), (Lines{"a", "b"})); }
TEST_F(LineReaderTest, NothingIsNoLine) { EXPECT_EQ(Read(""), Lines{}); }
TEST_F(LineReaderTest, KeepsNulAndOtherBytes) {
  EXPECT_EQ(Read(std::string("a\0b\n\xff", 5)), (Lines{std::string("a\0b", 3), "\xff"}));
}
TEST_F(LineReaderTest, LongLinesCrossManyReads) {
  const std::string text(3'000'000, 'x');
  EXPECT_EQ(Read(text + "\nshort\n"), (Lines{text, "short"}));
}
TEST_F(LineReaderTest, ALineBeyondTheBoundIsSkippedAsOne) {
  const std::string text(LineReader::kLineBytesMax + 1'000'000, 'x');
  EXPECT_EQ(Read("a\n" + text + "\nb\n"), (Lines{"a", "<too long>", "b"}));
}
TEST_F(LineReaderTest, AnUnendedLineBeyondTheBoundIsOneToo) {
  EXPECT_EQ(Read(std::string(LineReader::kLineBytesMax + 1'000'000, 'x')), (Lines{"<too long>"}));
}

TEST(LineReader, TellsWhenAPipeHasNoWholeLineYet) {
  int pipe_fds[2];
  ASSERT_EQ(pipe(pipe_fds), 0);
  Result<LineReader> reader = LineReader::Open("/proc/self/fd/" + std::to_string(pipe_fds[0]));
  ASSERT_TRUE(reader.ok());
  std::string line;
  EXPECT_EQ(reader->Next(&line, 0), LineReader::Got::kNotYet);
  ASSERT_EQ(write(pipe_fds[1], "par", 3), 3);
  EXPECT_EQ(reader->Next(&line, 0), LineReader::Got::kNotYet);
  ASSERT_EQ(write(pipe_fds[1], "tial\nnext", 9), 9);
  EXPECT_EQ(reader->Next(&line, 0), LineReader::Got::kLine);
  EXPECT_EQ(line, "partial");
  close(pipe_fds[1]);
  EXPECT_EQ(reader->Next(&line, 0), LineReader::Got::kLine);
  EXPECT_EQ(line, "next");
  EXPECT_EQ(reader->Next(&line, 0), LineReader::Got::kEnd);
  close(pipe_fds[0]);
}

TEST(LineReader, SaysWhatItCannotOpen) {
  EXPECT_NE(LineReader::Open("/nonexistent/x").status().message().find("/nonexistent/x"), std::string::npos);
  EXPECT_NE(LineReader::Open("/").status().message().find("directory"), std::string::npos);
}

InputItem Json(std::string_view line) { return ParseInputLine(InputFormat::kJsonl, line, 7); }

TEST(ParseInputLine, JsonStringsAndObjectsGiveTheirText) {
  EXPECT_EQ(Json("\"a\\u00e9\\n\"").text, "a\xc3\xa9\n");
  EXPECT_EQ(Json("{\"id\": 3, \"text\": \"x\"}").text, "x");
  EXPECT_TRUE(Json("\"\"").error.empty());
}

TEST(ParseInputLine, BadJsonNamesTheLine) {
  for (const char* line :
       {"", "[1", "{\"text\": 3}", "{}", "3", "null", "{\"text\": \"x\"", "\"\xff\"", "\"\\ud800\""}) {
    const InputItem item = Json(line);
    EXPECT_EQ(item.error.rfind("line 7: ", 0), 0u) << line << " -> " << item.error;
    EXPECT_FALSE(item.has_text) << line;
  }
}

TEST(ParseInputLine, HalfOfASurrogatePairIsNamed) {
  for (const char* line : {"\"half \\ud83d end\"", "\"\\ud83d\"", "{\"text\":\"\\udbc0\"}", "\"\\ude00\""}) {
    EXPECT_NE(Json(line).error.find("half of a surrogate pair"), std::string::npos)
        << line << " -> " << Json(line).error;
  }
  EXPECT_EQ(Json("\"\\ud83d\\ude00\"").text, "\xf0\x9f\x98\x80");  // a whole pair
}

TEST(ParseInputLine, BadJsonSaysWhereAndWhy) {
  EXPECT_NE(Json("{\"text\": tru}").error.find("invalid JSON at byte 13: invalid literal"), std::string::npos)
      << Json("{\"text\": tru}").error;
  EXPECT_NE(Json("\"\xff\"").error.find("invalid UTF-8"), std::string::npos);
  for (const char* blank : {"", " ", "\t "}) EXPECT_NE(Json(blank).error.find("blank line"), std::string::npos);
}

TEST(ParseInputLine, DeepNestingIsAnErrorNotACrash) {
  EXPECT_FALSE(Json(std::string(1'000'000, '[')).error.empty());
  EXPECT_FALSE(Json(std::string(500'000, '[') + std::string(500'000, ']')).error.empty());
}

TEST(ParseInputLine, PlainLinesAreTheirBytes) {
  const InputItem item = ParseInputLine(InputFormat::kLines, "  {\"text\"} ", 1);
  EXPECT_EQ(item.text, "  {\"text\"} ");
  EXPECT_TRUE(item.error.empty());
  EXPECT_EQ(ParseInputLine(InputFormat::kLines, "a\xff", 4).error.rfind("line 4: invalid UTF-8", 0), 0u);
}

}  // namespace
}  // namespace sutra
