// The vocabulary as a double-array trie with two roots: whole-word starts, and continuations ("##...") without their
// prefix. One 64-bit load per byte finds the longest token at a place.
//
// Immutable after Build: thread-safe. Invariants:
// - A node's children sit at `base ^ byte`, so that all of them share a block of 256 units; no two nodes share a base,
//   so the byte stored in a unit proves that it is the child that was looked for.
// - Base 0 is never assigned to a node: it marks "no children".
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace sutra {

class VocabTrie {
 public:
  using Entry = std::pair<std::string_view, int32_t>;

  static constexpr int32_t kIdMax = (1 << 24) - 2;
  static constexpr size_t kUnitsMax = size_t{1} << 24;

  struct Match {
    int32_t id;
    uint32_t bytes;  // 0: no token starts here
  };

  // Both lists hold unique, non-empty keys in ascending byte order, ids within [0, kIdMax]. Returns false, leaving the
  // trie empty, if the vocabulary needs more than units_max (<= kUnitsMax) units. Work and memory are linear in the
  // bytes of the keys.
  bool Build(const std::vector<Entry>& words, const std::vector<Entry>& continuations, size_t units_max = kUnitsMax);

  Match LongestWord(const char* bytes, size_t size) const { return Longest(word_base_, bytes, size); }
  Match LongestContinuation(const char* bytes, size_t size) const { return Longest(continuation_base_, bytes, size); }

 private:
  class Builder;

  // A unit: bits 0-7 its byte, bit 8 in use, bits 9-32 base of its children, bits 33-56 id + 1 (0: not a token).
  static constexpr uint64_t kUsed = 0x100;

  Match Longest(uint32_t base, const char* bytes, size_t size) const {
    Match match{0, 0};
    for (uint32_t index = 0; index < size; ++index) {
      const auto byte = static_cast<uint8_t>(bytes[index]);
      const uint64_t unit = units_[base ^ byte];
      if ((unit & 0x1FF) != (kUsed | byte)) break;
      if (const auto id_plus_one = static_cast<int32_t>(unit >> 33)) match = {id_plus_one - 1, index + 1};
      base = static_cast<uint32_t>(unit >> 9) & 0xFFFFFF;
    }
    return match;
  }

  std::vector<uint64_t> units_ = std::vector<uint64_t>(256);
  uint32_t word_base_ = 0;
  uint32_t continuation_base_ = 0;
};

}  // namespace sutra
