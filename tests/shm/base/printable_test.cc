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

TEST(Printable, AFieldEndsAtItsFirstZeroOrIsFull) {
  const char cut[4] = {'a', '\0', 'b', '\0'}, full[3] = {'x', 'y', 'z'};
  EXPECT_EQ(FieldView(cut), "a");
  EXPECT_EQ(FieldView(full), "xyz");
}

}  // namespace
}  // namespace sutra
