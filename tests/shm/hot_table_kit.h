// A hot table and an engine page in plain memory, and vectors that say which key and which write they are of.
#pragma once

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "shm/hot_reader.h"
#include "shm/hot_writer.h"

namespace sutra::test {

inline constexpr uint64_t kHotNow = 1'000'000'000'000;
inline constexpr uint64_t kHotBootAhead = 5'000'000'000;
inline constexpr uint64_t kHotExpires = kHotNow + kHotBootAhead + 1'000'000'000;

class PlainHotTable {
 public:
  PlainHotTable(uint32_t width, uint32_t slots) : geometry_{width, slots} {
    base_ = Zeroed(geometry_.bytes());
    page_base_ = Zeroed(kPageBytes);
    HotHeader& header = view().header();
    header.seed = 0x5eed;
    header.boot_ahead_ns.store(kHotBootAhead, std::memory_order_relaxed);
    page().heartbeat_ns.store(kHotNow, std::memory_order_relaxed);
  }
  ~PlainHotTable() {
    std::free(base_);
    std::free(page_base_);
  }
  PlainHotTable(const PlainHotTable&) = delete;
  PlainHotTable& operator=(const PlainHotTable&) = delete;

  HotTableView view() const { return {base_, geometry_}; }
  EnginePage& page() const { return EnginePageAt(page_base_); }
  HotWriter writer() const { return HotWriter(view()); }
  HotReader reader() const { return HotReader(view(), &page()); }

 private:
  static std::byte* Zeroed(uint64_t bytes) {
    void* memory = std::aligned_alloc(kPageBytes, RoundUp(bytes, kPageBytes));
    std::memset(memory, 0, bytes);
    return static_cast<std::byte*>(memory);
  }
  HotGeometry geometry_;
  std::byte* base_ = nullptr;
  std::byte* page_base_ = nullptr;
};

// Of a key and a round: every float follows from both, and so does the value, so that a mix of two of them is seen.
inline float HotFloat(uint32_t key, uint32_t round, uint32_t index) {
  return static_cast<float>((key * 7919u + round * 104729u + index * 31u) % 8388593u);
}
inline std::vector<float> HotVector(uint32_t key, uint32_t round, uint32_t width) {
  std::vector<float> vector(width);
  for (uint32_t i = 0; i < width; ++i) vector[i] = HotFloat(key, round, i);
  return vector;
}
inline HotValue HotValueOf(uint32_t key, uint32_t round, uint64_t expires_ns = kHotExpires) {
  return {.norm = HotFloat(key, round, 1u << 20),
          .token_count = key * 16 + round % 16,
          .flags = key % 2,
          .expires_ns = expires_ns};
}
// A key keeps a view of its text, so these texts live as long as the test.
inline const std::string& HotText(uint32_t key) {
  static const std::vector<std::string> texts = [] {
    std::vector<std::string> made;
    for (int i = 0; i < 1000; ++i) made.push_back("the text of key " + std::to_string(i) + ", which nobody reads");
    return made;
  }();
  return texts.at(key);
}

// The round of the vector that was read, or -1: it is no vector of that key.
inline int64_t HotRoundOf(uint32_t key, uint32_t rounds, const std::vector<float>& unit, const HotValue& value) {
  for (uint32_t round = 0; round < rounds; ++round) {
    if (HotVector(key, round, static_cast<uint32_t>(unit.size())) != unit) continue;
    const HotValue expected = HotValueOf(key, round);
    const bool same = value.norm == expected.norm && value.token_count == expected.token_count &&
                      value.flags == expected.flags && value.expires_ns == expected.expires_ns;
    return same ? round : -1;
  }
  return -1;
}

struct HotFound {
  bool hit = false;
  std::vector<float> unit;
  HotValue value;
  uint32_t slot = 0;
};
inline HotFound FindHot(const HotReader& reader, const std::string& text, uint32_t width, uint64_t now_ns = kHotNow,
                        uint32_t variant = 0) {
  HotFound found;
  found.unit.resize(width);
  HotKey key = reader.KeyOf(text, variant);
  found.hit = reader.Find(
      &key, [&] { return now_ns; }, found.unit.data(), &found.value, &found.slot);
  return found;
}

}  // namespace sutra::test
