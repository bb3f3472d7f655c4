// What is exported reads back bit for bit, whatever the text; and lines of any other kind are refused with the reason.
#include "tools/cache/export_format.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "tests/kit/seed.h"
#include "tools/cache/base64.h"

namespace sutra {
namespace {

CacheEntry EntryOf(std::string text) {
  CacheEntry entry;
  entry.text = std::move(text);
  entry.variant = 3;
  entry.vector = {0.1f, -0.0f, std::numeric_limits<float>::denorm_min(), std::nextafter(1.0f, 0.0f)};
  entry.value.norm = 1.23456789f;
  entry.value.token_count = 77;
  entry.value.truncated = true;
  entry.left_s = 86'000;
  return entry;
}

void ExpectSame(const CacheEntry& entry, bool with_vector) {
  std::string line;
  AppendExportLine(entry, with_vector, &line);
  ASSERT_EQ(line.back(), '\n');
  line.pop_back();
  ASSERT_EQ(line.find('\n'), std::string::npos);
  const Result<CacheEntry> read = ParseExportLine(line, with_vector ? 4 : 0);
  ASSERT_TRUE(read.ok()) << read.status().message() << line.substr(0, 200);
  EXPECT_EQ(read->text, entry.text);
  EXPECT_EQ(read->variant, entry.variant);
  EXPECT_EQ(read->value.norm, entry.value.norm);
  EXPECT_EQ(read->value.token_count, entry.value.token_count);
  EXPECT_EQ(read->value.truncated, entry.value.truncated);
  EXPECT_EQ(read->left_s, entry.left_s);
  if (!with_vector) return;
  ASSERT_EQ(read->vector.size(), entry.vector.size());
  for (size_t i = 0; i < entry.vector.size(); ++i) {
    EXPECT_EQ(std::bit_cast<uint32_t>(read->vector[i]), std::bit_cast<uint32_t>(entry.vector[i])) << i;
  }
}

TEST(ExportFormat, EveryTextReadsBack) {
  std::string every;
  for (int byte = 0; byte < 256; ++byte) every += static_cast<char>(byte);
  const std::string texts[] = {
      "plain", std::string("nul \0 in it", 11),        "line\nline\r\n\ttab \"quoted\" \\", every,
      "",      "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", std::string(1 << 20, 'x'),           "\xff\xfe",
      "\x7f"};
  for (const std::string& text : texts) {
    ExpectSame(EntryOf(text), true);
    ExpectSame(EntryOf(text), false);
  }
}

TEST(ExportFormat, HeaderAndEndReadBack) {
  const Result<ExportHeader> header = ParseExportHeader(ExportHeaderLine({"ab12", "a \"model\"", 384, 1'790'000'000}));
  ASSERT_TRUE(header.ok());
  EXPECT_EQ(header->identity, "ab12");
  EXPECT_EQ(header->model, "a \"model\"");
  EXPECT_EQ(header->width, 384u);
  EXPECT_EQ(header->time_s, 1'790'000'000u);
  const std::optional<ExportEnd> end = ParseExportEnd(ExportEndLine({12, 0xdeadbeef}));
  ASSERT_TRUE(end.has_value());
  EXPECT_EQ(end->entries, 12u);
  EXPECT_EQ(end->vectors_crc32c, 0xdeadbeef);
  EXPECT_FALSE(ParseExportEnd(ExportEndLine({12, std::nullopt}))->vectors_crc32c.has_value());
}

TEST(ExportFormat, AVectorMayBeAnArray) {
  const Result<CacheEntry> entry = ParseExportLine(
      R"({"text":"t","variant":0,"tokens":1,"truncated":false,"norm":1,"left_s":9,"vector":[0.5,-0.5,0.5,0.5]})", 4);
  ASSERT_TRUE(entry.ok()) << entry.status().message();
  EXPECT_EQ(entry->vector, (std::vector<float>{0.5f, -0.5f, 0.5f, 0.5f}));
}

TEST(ExportFormat, WhatIsWrongIsSaid) {
  const std::string rest = R"("variant":0,"tokens":1,"truncated":false,"norm":1,"left_s":9)";
  const std::pair<std::string, std::string> lines[] = {
      {"", "no JSON object"},
      {"[]", "no JSON object"},
      {"{" + rest + "}", "no \"text\""},
      {R"({"text_base64":"?",)" + rest + "}", "no \"text\""},
      {R"({"text":"t","variant":-1,"tokens":1,"truncated":false,"norm":1,"left_s":9})", "\"variant\""},
      {R"({"text":"t","variant":4294967296,"tokens":1,"truncated":false,"norm":1,"left_s":9})", "\"variant\""},
      {R"({"text":"t","variant":0,"tokens":1,"truncated":0,"norm":1,"left_s":9})", "\"truncated\""},
      {R"({"text":"t",)" + rest + "}", "no \"vector_base64\""},
      {R"({"text":"t","vector":[1,2],)" + rest + "}", "2 floats, not 4"},
      {R"({"text":"t","vector":[1,2,3,"4"],)" + rest + "}", "no number"},
      {R"({"text":"t","vector_base64":"AAA=",)" + rest + "}", "no floats"},
  };
  for (const auto& [line, why] : lines) {
    const Result<CacheEntry> entry = ParseExportLine(line, 4);
    ASSERT_FALSE(entry.ok()) << line;
    EXPECT_NE(entry.status().message().find(why), std::string::npos) << entry.status().message();
  }
  EXPECT_NE(ParseExportHeader("{\"text\":\"a\"}").status().message().find("sutra-cache warm"), std::string::npos);
  EXPECT_FALSE(ParseExportHeader(R"({"sutra_cache_export":2,"identity":"a","width":1,"time":1})").ok());
  EXPECT_FALSE(ParseExportHeader(R"({"sutra_cache_export":1,"identity":"a","width":1})").ok());
}

// Whatever a file holds, no line makes it more than an error.
TEST(ExportFormat, AnyBytesGiveAnEntryOrAnError) {
  std::mt19937_64 random(test::TestSeed());
  std::string line;
  AppendExportLine(EntryOf("some text"), true, &line);
  for (int i = 0; i < 20'000; ++i) {
    std::string changed = line;
    for (uint64_t n = random() % 4 + 1; n > 0; --n) changed[random() % changed.size()] = static_cast<char>(random());
    if (random() % 8 == 0) changed.resize(random() % changed.size());
    const Result<CacheEntry> entry = ParseExportLine(changed, 4);
    if (entry.ok()) {
      EXPECT_EQ(entry->vector.size(), 4u);
    }
    static_cast<void>(ParseExportHeader(changed));
    static_cast<void>(ParseExportEnd(changed));
  }
}

TEST(Base64, ReadsBackAndRefusesTheRest) {
  std::string bytes;
  for (int i = 0; i < 300; ++i) {
    EXPECT_EQ(FromBase64(ToBase64(bytes)), bytes) << i;
    bytes += static_cast<char>(i * 7);
  }
  EXPECT_EQ(ToBase64("foob"), "Zm9vYg==");
  EXPECT_EQ(ToBase64("fooba"), "Zm9vYmE=");
  EXPECT_EQ(ToBase64("foobar"), "Zm9vYmFy");
  for (const char* wrong : {"Z", "Zg", "Zg=", "Zh==", "====", "Zm9v!mFy", "Zg==Zg=="}) {
    EXPECT_FALSE(FromBase64(wrong).has_value()) << wrong;
  }
}

}  // namespace
}  // namespace sutra
