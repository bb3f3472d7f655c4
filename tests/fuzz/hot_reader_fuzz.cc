// The reader of the hot table against any bytes in it: it touches nothing outside, it ends, and it believes only a slot
// with the key's digest under an even sequence, as the bytes are then.
#include <algorithm>
#include <memory>
#include <vector>

#include "shm/hot_reader.h"
#include "shm/hot_writer.h"
#include "tests/fuzz/fuzz_target.h"

namespace sutra::fuzz {
namespace {

constexpr uint64_t kNow = 1'000'000'000'000;
constexpr const char* kTexts[] = {"a", "one more text", "a text that is a little longer than the others are"};

// A table exactly as large as its geometry says, so that the address sanitizer sees a look beyond it.
class Table {
 public:
  explicit Table(const HotGeometry& geometry) : geometry_(geometry) {
    base_ = std::unique_ptr<std::byte, void (*)(void*)>(
        static_cast<std::byte*>(std::aligned_alloc(kPageBytes, geometry.bytes())), std::free);
    std::memset(base_.get(), 0, geometry.bytes());
    page_ = std::make_unique<Page>();
    page_->page.heartbeat_ns.store(kNow, std::memory_order_relaxed);
  }
  HotTableView view() const { return {base_.get(), geometry_}; }
  EnginePage* page() const { return &page_->page; }

 private:
  struct Page {
    EnginePage page = {};
  };
  const HotGeometry geometry_;
  std::unique_ptr<std::byte, void (*)(void*)> base_{nullptr, std::free};
  std::unique_ptr<Page> page_;
};

void FillTruthfully(const Table& table) {
  HotWriter writer(table.view());
  for (uint32_t i = 0; i < std::size(kTexts) && i < table.view().geometry.slots; ++i) {
    const std::vector<float> unit(table.view().geometry.width, static_cast<float>(i));
    HotKey key = writer.KeyOf(kTexts[i], 0);
    writer.Write(i, &key, unit, {.norm = 1, .token_count = i, .flags = 0, .expires_ns = UINT64_MAX});
  }
}

void Look(const Table& table, const char* text) {
  const HotReader reader(table.view(), table.page());
  HotKey key = reader.KeyOf(text, 0);
  const HotGeometry& geometry = table.view().geometry;
  const std::unique_ptr<float[]> unit(new float[geometry.width]);
  HotValue value;
  uint32_t slot = 0;
  if (!reader.Find(
          &key, [] { return kNow; }, unit.get(), &value, &slot))
    return;
  FUZZ_CHECK(slot < geometry.slots);
  const HotSlot& found = table.view().slot(slot);
  FUZZ_CHECK(found.sequence.load(std::memory_order_relaxed) % 2 == 0);
  for (int i = 0; i < 4; ++i) FUZZ_CHECK(found.digest[i].load(std::memory_order_relaxed) == key.digest().words[i]);
  FUZZ_CHECK(value.expires_ns > kNow);
  FUZZ_CHECK(table.view().header().closed.load(std::memory_order_relaxed) == 0);
  FUZZ_CHECK(std::memcmp(unit.get(), table.view().vector(slot), geometry.width * sizeof(float)) == 0);
}

}  // namespace

SUTRA_FUZZ_TARGET(hot_reader, 4096) {
  Input input(data, size);
  const HotGeometry geometry = {1 + input.Below(70), 1 + input.Below(20)};
  const Table table(geometry);
  if (input.Below(2) == 0) FillTruthfully(table);
  std::byte* const bytes = table.view().base;
  while (!input.empty()) {
    const uint8_t choice = input.Byte();
    if (choice % 4 == 0) {  // a cell that leads a text somewhere
      HotKey key(kTexts[choice / 4 % std::size(kTexts)], 0, table.view().header().seed);
      const uint64_t cell = uint64_t{key.tag()} << 32 | static_cast<uint32_t>(input.Edge(geometry.slots));
      table.view().bucket(key.bucket(geometry.buckets()))[choice / 16 % kHotCellsPerBucket].store(
          cell, std::memory_order_relaxed);
    } else {  // anything anywhere, but for the seed, of which every reader has a copy
      const uint64_t first = choice % 4 == 1 ? geometry.slots_at() : offsetof(HotHeader, width);
      const uint64_t at = first + input.U32() % (geometry.bytes() - first);
      const uint64_t value = choice % 8 < 4 ? input.Edge(geometry.bytes()) : input.U64();
      std::memcpy(bytes + at, &value, std::min<uint64_t>(8, geometry.bytes() - at));
    }
  }
  for (const char* text : kTexts) Look(table, text);
}

}  // namespace sutra::fuzz
