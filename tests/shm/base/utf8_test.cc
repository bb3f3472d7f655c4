// Exactness of UTF-8 validation, decoding and encoding.
#include "shm/base/utf8.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/kit/seed.h"

namespace sutra {
namespace {

using namespace std::string_literals;

bool IsScalar(uint32_t code_point) { return code_point < 0xD800 || code_point >= 0xE000; }

std::string Utf8(char32_t code_point) {
  char bytes[4];
  return std::string(bytes, EncodeUtf8(code_point, bytes));
}

TEST(Utf8, EveryCodePointSurvivesEncodingAndDecoding) {
  for (uint32_t code_point = 0; code_point < 0x110000; ++code_point) {
    const std::string bytes = Utf8(code_point);
    const char* cursor = bytes.data();
    const char32_t decoded = DecodeUtf8(&cursor, bytes.data() + bytes.size());
    if (IsScalar(code_point)) {
      ASSERT_TRUE(IsValidUtf8(bytes)) << code_point;
      ASSERT_EQ(decoded, code_point);
      ASSERT_EQ(cursor, bytes.data() + bytes.size());
    } else {
      ASSERT_FALSE(IsValidUtf8(bytes)) << code_point;
      ASSERT_EQ(decoded, kReplacementCharacter);
    }
  }
}

TEST(Utf8, EmptyTextAndNulAreValid) {
  EXPECT_TRUE(IsValidUtf8(""));
  EXPECT_TRUE(IsValidUtf8("\0"s));
  EXPECT_TRUE(IsValidUtf8("a\0b"s));
}

TEST(Utf8, OverlongFormsAreRefused) {
  for (const auto& bytes :
       {"\xC0\x80"s, "\xC1\xBF"s, "\xE0\x80\x80"s, "\xE0\x9F\xBF"s, "\xF0\x80\x80\x80"s, "\xF0\x8F\xBF\xBF"s}) {
    EXPECT_FALSE(IsValidUtf8(bytes));
  }
}

TEST(Utf8, SurrogatesAndCodePointsPastTheLastAreRefused) {
  for (const auto& bytes :
       {"\xED\xA0\x80"s, "\xED\xBF\xBF"s, "\xF4\x90\x80\x80"s, "\xF5\x80\x80\x80"s, "\xFF"s, "\xFE"s}) {
    EXPECT_FALSE(IsValidUtf8(bytes));
  }
}

TEST(Utf8, AnyCutOfASequenceIsRefusedAtAnyPlaceInTheText) {
  for (const auto& sequence : {"é"s, "中"s, "😀"s}) {
    for (size_t before = 0; before < 70; ++before) {
      ASSERT_TRUE(IsValidUtf8(std::string(before, 'x') + sequence));
      for (size_t kept = 1; kept < sequence.size(); ++kept) {
        ASSERT_FALSE(IsValidUtf8(std::string(before, 'x') + sequence.substr(0, kept)));
        ASSERT_FALSE(IsValidUtf8(std::string(before, 'x') + sequence.substr(0, kept) + std::string(40, 'y')));
        ASSERT_FALSE(IsValidUtf8(std::string(before, 'x') + sequence.substr(kept)));
      }
    }
  }
}

// The RFC 3629 grammar, written as a table walk that shares nothing with the code under test.
bool ReferenceIsValid(std::string_view text) {
  size_t at = 0;
  const auto in = [&](size_t index, unsigned low, unsigned high) {
    return index < text.size() && static_cast<uint8_t>(text[index]) >= low && static_cast<uint8_t>(text[index]) <= high;
  };
  while (at < text.size()) {
    if (in(at, 0x00, 0x7F))
      at += 1;
    else if (in(at, 0xC2, 0xDF) && in(at + 1, 0x80, 0xBF))
      at += 2;
    else if (((in(at, 0xE0, 0xE0) && in(at + 1, 0xA0, 0xBF)) || (in(at, 0xE1, 0xEC) && in(at + 1, 0x80, 0xBF)) ||
              (in(at, 0xED, 0xED) && in(at + 1, 0x80, 0x9F)) || (in(at, 0xEE, 0xEF) && in(at + 1, 0x80, 0xBF))) &&
             in(at + 2, 0x80, 0xBF))
      at += 3;
    else if (((in(at, 0xF0, 0xF0) && in(at + 1, 0x90, 0xBF)) || (in(at, 0xF1, 0xF3) && in(at + 1, 0x80, 0xBF)) ||
              (in(at, 0xF4, 0xF4) && in(at + 1, 0x80, 0x8F))) &&
             in(at + 2, 0x80, 0xBF) && in(at + 3, 0x80, 0xBF))
      at += 4;
    else
      return false;
  }
  return true;
}

TEST(Utf8, EveryStringOfTwoBytesAndRandomLongerOnesAgreeWithTheGrammar) {
  for (unsigned both = 0; both < 0x10000; ++both) {
    const std::string bytes = {static_cast<char>(both >> 8), static_cast<char>(both & 0xFF)};
    ASSERT_EQ(IsValidUtf8(bytes), ReferenceIsValid(bytes)) << both;
  }
  std::mt19937_64 random(test::TestSeed());
  const uint8_t edges[] = {0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC1,
                           0xC2, 0xDF, 0xE0, 0xED, 0xEF, 0xF0, 0xF4, 0xF5};
  size_t valid = 0;
  for (int round = 0; round < 200'000; ++round) {
    std::string bytes(random() % 5, 'x');
    const size_t size = 1 + random() % 6;
    for (size_t index = 0; index < size; ++index) bytes += static_cast<char>(edges[random() % std::size(edges)]);
    bytes += std::string(random() % 3 * 20, 'y');
    ASSERT_EQ(IsValidUtf8(bytes), ReferenceIsValid(bytes)) << "round " << round;
    valid += ReferenceIsValid(bytes);
  }
  EXPECT_GT(valid, 0u) << "the random strings never tested acceptance";
}

TEST(Utf8, FollowsTheStandard) {
  for (const char* good :
       {"", "a", "\xc2\x80", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(IsValidUtf8(good)) << good;
  }
  for (const char* bad : {"\x80", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2\x41", "\xe0\x9f\xbf", "\xed\xa0\x80",
                          "\xe2\x82", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff"}) {
    EXPECT_FALSE(IsValidUtf8(bad));
  }
}

}  // namespace
}  // namespace sutra
