#include "shm/base/printable.h"

#include <gtest/gtest.h>

namespace sutra {
namespace {

TEST(Printable, ControlCharactersBecomeQuestionMarks) {
  const std::string_view hostile("a\x1b[2J\n\0\x7f~ ", 10);
  EXPECT_EQ(Printable(hostile, HighBytes::kReplace), "a?[2J???~ ");
  EXPECT_EQ(Printable(hostile, HighBytes::kKeep), "a?[2J???~ ");
}

TEST(Printable, HighBytesStayOnlyWhereAsked) {
  EXPECT_EQ(Printable("\xc3\xa4", HighBytes::kKeep), "\xc3\xa4");
  EXPECT_EQ(Printable("\xc3\xa4", HighBytes::kReplace), "??");
}

// U+009B is the start of a terminal's command, as ESC [ is; 8-bit terminals take the bare byte for it.
TEST(Printable, TheControlCharactersBehindDeleteDoNotReachTheTerminal) {
  for (int c = 0x80; c < 0xa0; ++c) {
    const char raw[] = {'a', static_cast<char>(c), '2', 'J'};
    const char utf8[] = {'a', '\xc2', static_cast<char>(c), '2', 'J'};
    EXPECT_EQ(Printable({raw, sizeof(raw)}, HighBytes::kKeep), "a?2J") << c;
    EXPECT_EQ(Printable({utf8, sizeof(utf8)}, HighBytes::kKeep), "a??2J") << c;
    EXPECT_EQ(Printable({utf8, sizeof(utf8)}, HighBytes::kReplace), "a??2J") << c;
  }
  EXPECT_EQ(Printable("\xc2\xa0\xe2\x82\xac\xf0\x9f\x9a\x80", HighBytes::kKeep),
            "\xc2\xa0\xe2\x82\xac\xf0\x9f\x9a\x80");
  EXPECT_EQ(Printable("cut \xe2\x82", HighBytes::kKeep), "cut ??");
}

TEST(Printable, AFieldEndsAtItsFirstZeroOrIsFull) {
  const char cut[4] = {'a', '\0', 'b', '\0'}, full[3] = {'x', 'y', 'z'};
  EXPECT_EQ(FieldView(cut), "a");
  EXPECT_EQ(FieldView(full), "xyz");
}

}  // namespace
}  // namespace sutra
