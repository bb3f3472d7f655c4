// Pages byte by byte: what is written is read again, and nothing else is.
#include "engine/control/cache_page.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "cache/cache_shard.h"
#include "engine/control/control_frame.h"
#include "shm/base/crc32c.h"
#include "shm/layout.h"

namespace sutra {
namespace {

const std::string kIdentity(64, 'e');

CacheEntry Entry(std::string text, uint32_t number) {
  CacheEntry entry;
  entry.text = std::move(text);
  entry.variant = number;
  entry.vector = {0.6f, -0.8f, 0};
  entry.value = {.norm = 2.5f, .token_count = 7 + number, .truncated = number % 2 == 0};
  entry.age_s = 100 + number;
  entry.left_s = 1000 + number;
  entry.hit = number % 3 == 0;
  entry.hot = number % 3 == 1;
  return entry;
}

std::string PageOf(const std::vector<CacheEntry>& entries) {
  CachePageWriter writer(kIdentity, 3);
  for (const CacheEntry& entry : entries) writer.Add(entry);
  return std::move(writer).Take();
}

// Everything in it, or the error.
Result<std::vector<CacheEntry>> ReadAll(std::string_view page) {
  Result<CachePageReader> reader = CachePageReader::Open(page);
  if (!reader.ok()) return reader.status();
  std::vector<CacheEntry> entries;
  for (;;) {
    CacheEntry entry;
    const Result<bool> more = reader->Next(&entry);
    if (!more.ok()) return more.status();
    if (!more.value()) return entries;
    entries.push_back(std::move(entry));
  }
}

// `page` with a header changed by `change`, and the checksum that fits.
template <typename Change>
std::string Forged(std::string page, const Change& change) {
  CachePageHeader header;
  std::memcpy(&header, page.data(), sizeof(header));
  change(&header, &page);
  header.checksum = 0;
  header.checksum = Crc32c(page.data() + sizeof(header), page.size() - sizeof(header), Crc32c(&header, sizeof(header)));
  std::memcpy(page.data(), &header, sizeof(header));
  return page;
}

TEST(CachePage, WhatIsWrittenIsReadAgain) {
  const std::vector<CacheEntry> entries = {Entry("a", 0), Entry(std::string(70'000, 'x'), 1), Entry("\0\xff", 2)};
  const std::string page = PageOf(entries);
  EXPECT_EQ(CachePageReader::PageBytes(page.substr(0, sizeof(CachePageHeader))).value(), page.size());
  const Result<CachePageReader> reader = CachePageReader::Open(page);
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  EXPECT_EQ(reader->identity(), kIdentity);
  EXPECT_EQ(reader->width(), 3u);
  EXPECT_EQ(reader->entries(), 3u);
  const Result<std::vector<CacheEntry>> read = ReadAll(page);
  ASSERT_TRUE(read.ok()) << read.status().message();
  ASSERT_EQ(read->size(), entries.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    EXPECT_EQ((*read)[i].text, entries[i].text);
    EXPECT_EQ((*read)[i].variant, entries[i].variant);
    EXPECT_EQ((*read)[i].vector, entries[i].vector);
    EXPECT_EQ((*read)[i].value.norm, entries[i].value.norm);
    EXPECT_EQ((*read)[i].value.token_count, entries[i].value.token_count);
    EXPECT_EQ((*read)[i].value.truncated, entries[i].value.truncated);
    EXPECT_EQ((*read)[i].age_s, entries[i].age_s);
    EXPECT_EQ((*read)[i].left_s, entries[i].left_s);
    EXPECT_EQ((*read)[i].hit, entries[i].hit);
    EXPECT_EQ((*read)[i].hot, entries[i].hot);
  }
}

TEST(CachePage, AnEmptyPageIsOne) {
  const std::string page = PageOf({});
  EXPECT_EQ(page.size(), sizeof(CachePageHeader));
  EXPECT_EQ(ReadAll(page).value().size(), 0u);
}

TEST(CachePage, TheWriterKnowsHowLongItIs) {
  CachePageWriter writer(kIdentity, 3);
  const CacheEntry entry = Entry("text", 1);
  writer.Add(entry);
  EXPECT_EQ(writer.bytes(), sizeof(CachePageHeader) + CachePageWriter::EntryBytes(entry));
  EXPECT_EQ(writer.entries(), 1u);
}

TEST(CachePage, APageThatIsCutOffIsRefused) {
  const std::string page = PageOf({Entry("some text", 1), Entry("another", 2)});
  for (size_t bytes = 0; bytes < page.size(); ++bytes) {
    EXPECT_EQ(ReadAll(page.substr(0, bytes)).code(), StatusCode::kProtocolViolation) << bytes;
  }
  EXPECT_EQ(ReadAll(page + "x").code(), StatusCode::kProtocolViolation);
}

TEST(CachePage, EveryBitCounts) {
  const std::string page = PageOf({Entry("some text", 1)});
  for (size_t bit = 0; bit < page.size() * 8; ++bit) {
    std::string damaged = page;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    EXPECT_EQ(ReadAll(damaged).code(), StatusCode::kProtocolViolation) << "bit " << bit;
  }
}

TEST(CachePage, AHeaderThatLiesIsRefusedEvenWithAFittingChecksum) {
  const std::string page = PageOf({Entry("some text", 1)});
  const auto refused = [&page](const auto& change) {
    return ReadAll(Forged(page, change)).code() == StatusCode::kProtocolViolation;
  };
  EXPECT_TRUE(ReadAll(Forged(page, [](CachePageHeader*, std::string*) {})).ok());
  EXPECT_TRUE(refused([](CachePageHeader* header, std::string*) { header->version = 2; }));
  EXPECT_TRUE(refused([](CachePageHeader* header, std::string*) { header->width = 0; }));
  EXPECT_TRUE(refused([](CachePageHeader* header, std::string*) { header->width = UINT32_MAX; }));
  EXPECT_TRUE(refused([](CachePageHeader* header, std::string*) { header->width = 4; }));
  EXPECT_TRUE(refused([](CachePageHeader* header, std::string*) { header->entries = 2; }));
  EXPECT_TRUE(refused([](CachePageHeader* header, std::string*) { header->entries = 0; }));
  EXPECT_TRUE(refused([](CachePageHeader* header, std::string*) { header->entries = UINT32_MAX; }));
  EXPECT_TRUE(refused([](CachePageHeader* header, std::string*) { header->bytes = UINT64_MAX; }));
  EXPECT_TRUE(refused([](CachePageHeader* header, std::string*) { header->identity[5] = 'G'; }));
}

TEST(CachePage, AnEntryThatLiesIsRefused) {
  const std::string page = PageOf({Entry("some text", 1)});
  const auto refused = [&page](size_t at, uint32_t value) {
    const std::string forged = Forged(page, [&](CachePageHeader*, std::string* bytes) {
      std::memcpy(bytes->data() + sizeof(CachePageHeader) + at, &value, sizeof(value));
    });
    return ReadAll(forged).code() == StatusCode::kProtocolViolation;
  };
  EXPECT_TRUE(refused(offsetof(CachePageEntry, text_bytes), UINT32_MAX));
  EXPECT_TRUE(refused(offsetof(CachePageEntry, text_bytes), 10));
  EXPECT_TRUE(refused(offsetof(CachePageEntry, text_bytes), 8));
  EXPECT_TRUE(refused(offsetof(CachePageEntry, flags), 8));
  EXPECT_TRUE(refused(offsetof(CachePageEntry, reserved), 1));
}

TEST(CachePage, AnEntryThatGoesBeyondItsPageIsNeverHandedOut) {
  const std::string page = PageOf({Entry("some text", 1)});
  for (const uint32_t text_bytes : {10u, UINT32_MAX}) {
    const std::string forged = Forged(page, [&](CachePageHeader*, std::string* bytes) {
      std::memcpy(bytes->data() + sizeof(CachePageHeader) + offsetof(CachePageEntry, text_bytes), &text_bytes,
                  sizeof(text_bytes));
    });
    Result<CachePageReader> reader = CachePageReader::Open(forged);
    ASSERT_TRUE(reader.ok()) << reader.status().message();
    CacheEntry entry;
    EXPECT_EQ(reader->Next(&entry).code(), StatusCode::kProtocolViolation) << text_bytes;
  }
}

TEST(CachePage, APageLongerThanAnyIsNoneHoweverLongItIs) {
  const std::string page = PageOf({});
  const std::string forged =
      Forged(page, [](CachePageHeader* header, std::string*) { header->bytes = kCachePayloadBytesMax + 1; });
  EXPECT_EQ(CachePageReader::PageBytes(forged).code(), StatusCode::kProtocolViolation);
}

TEST(CheckEntry, RefusesWhatNoEngineWouldStore) {
  const auto code = [](const auto& change) {
    CacheEntry entry = Entry("text", 1);
    change(&entry);
    return CheckEntry(entry).code();
  };
  EXPECT_EQ(code([](CacheEntry*) {}), StatusCode::kOk);
  EXPECT_EQ(code([](CacheEntry* entry) { entry->vector = {0, 0, 0}; }), StatusCode::kOk);
  EXPECT_EQ(code([](CacheEntry* entry) { entry->value.norm = 0; }), StatusCode::kOk);
  EXPECT_EQ(code([](CacheEntry* entry) { entry->left_s = kTtlSecondsMax; }), StatusCode::kOk);
  EXPECT_EQ(code([](CacheEntry* entry) { entry->text = std::string(kTextBytesMaxLimit, 'x'); }), StatusCode::kOk);
  EXPECT_EQ(code([](CacheEntry* entry) { entry->text.clear(); }), StatusCode::kBadOption);
  EXPECT_EQ(code([](CacheEntry* entry) { entry->text = std::string(kTextBytesMaxLimit + 1, 'x'); }),
            StatusCode::kBadOption);
  EXPECT_EQ(code([](CacheEntry* entry) { entry->text = "\xc0\x80"; }), StatusCode::kBadOption);
  EXPECT_EQ(code([](CacheEntry* entry) { entry->vector[1] = std::nanf(""); }), StatusCode::kBadOption);
  EXPECT_EQ(code([](CacheEntry* entry) { entry->vector[1] = std::numeric_limits<float>::infinity(); }),
            StatusCode::kBadOption);
  EXPECT_EQ(code([](CacheEntry* entry) { entry->vector[1] = -0.9f; }), StatusCode::kBadOption);
  EXPECT_EQ(code([](CacheEntry* entry) { entry->vector[1] = 0; }), StatusCode::kBadOption);
  EXPECT_EQ(code([](CacheEntry* entry) { entry->value.norm = -1; }), StatusCode::kBadOption);
  EXPECT_EQ(code([](CacheEntry* entry) { entry->value.norm = std::nanf(""); }), StatusCode::kBadOption);
  EXPECT_EQ(code([](CacheEntry* entry) { entry->left_s = 0; }), StatusCode::kBadOption);
  EXPECT_EQ(code([](CacheEntry* entry) { entry->left_s = kTtlSecondsMax + 1; }), StatusCode::kBadOption);
}

}  // namespace
}  // namespace sutra
