// Pages of cache entries: any bytes, and pages with a part changed and the checksum that fits.
// Oracle: nothing is read beyond the bytes; what is read is written again as the same page.
#include <bit>

#include "engine/control/cache_page.h"
#include "engine/control/control_frame.h"
#include "shm/base/crc32c.h"
#include "tests/fuzz/fuzz_target.h"

namespace sutra::fuzz {
namespace {

std::string WithChecksum(std::string page) {
  CachePageHeader header = {};
  if (!BodyFrom(std::string_view(page).substr(0, sizeof(header)), &header)) return page;
  header.checksum = 0;
  const std::string_view entries = std::string_view(page).substr(sizeof(header));
  header.checksum = Crc32c(entries.data(), entries.size(), Crc32c(&header, sizeof(header)));
  page.replace(0, sizeof(header), BytesOf(header));
  return page;
}

std::string PageFrom(Input* input) {
  const uint32_t width = 1 + input->Below(8);
  CachePageWriter writer(std::string(64, 'c'), width);
  for (uint32_t left = input->Below(5); left > 0; --left) {
    CacheEntry entry;
    entry.text = input->Take(input->Below(40));
    entry.variant = input->Byte();
    for (uint32_t i = 0; i < width; ++i) entry.vector.push_back(std::bit_cast<float>(input->U32()));
    entry.value.norm = std::bit_cast<float>(input->U32());
    entry.value.token_count = input->U32();
    entry.value.truncated = input->Below(2) == 0;
    entry.hit = input->Below(2) == 0;
    entry.age_s = input->U64();
    entry.left_s = input->Edge(86'400);
    writer.Add(entry);
  }
  std::string page = std::move(writer).Take();
  for (uint32_t left = input->Below(4); left > 0; --left) {
    page[input->U16() % page.size()] = static_cast<char>(input->Byte());
  }
  if (input->Below(4) == 0) page.resize(input->U16() % (page.size() + 1));
  if (input->Below(4) == 0) page += input->Take(input->Below(50));
  return input->Below(8) == 0 ? page : WithChecksum(std::move(page));
}

void Read(std::string_view page) {
  const Result<uint64_t> bytes = CachePageReader::PageBytes(page);
  Result<CachePageReader> reader = CachePageReader::Open(page);
  FUZZ_CHECK(!reader.ok() || bytes.value() == page.size());
  if (!reader.ok()) return;
  CachePageWriter again(reader->identity(), reader->width());
  uint32_t count = 0;
  for (CacheEntry entry;;) {
    const Result<bool> more = reader->Next(&entry);
    if (!more.ok()) return;
    if (!more.value()) break;
    FUZZ_CHECK(++count <= reader->entries() && entry.vector.size() == reader->width());
    Touch(entry.text);
    static_cast<void>(CheckEntry(entry));
    again.Add(entry);
  }
  FUZZ_CHECK(count == reader->entries());
  FUZZ_CHECK(std::move(again).Take() == page);
}

}  // namespace

SUTRA_FUZZ_TARGET(cache_page, 4096) {
  Input input(data, size);
  if (input.Below(2) == 0) {
    Read(PageFrom(&input));
  } else {
    Read(WithChecksum(std::string(input.Rest())));
  }
}

}  // namespace sutra::fuzz
