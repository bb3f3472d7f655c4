// TextHeap: the bytes of texts, end to end in one reserved range, so that threads may read them without a lock: what
// was a text stays readable memory when it is freed.
//
// Blocks of whole words, each with a header of one word that gives its size and its predecessor's. A free block joins
// its free neighbours at once and hangs in the list of its size class; an allocation takes the first block of the
// smallest class that is sure to fit, in constant time (two-level segregated fit, after Masmano et al., "TLSF: a new
// dynamic memory allocator for real-time systems", 2004), and only then new memory at the end.
//
// Thread rule: the owner's lock; any thread may read the words of a block. Invariants:
//  - No two free blocks are neighbours, and the last block is in use.
//  - used_bytes() is the sum over the blocks in use, headers included.
//  - Nothing here needs memory but the pages of the range itself.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "cache/store/guarded_words.h"
#include "cache/store/reserved_memory.h"

namespace sutra {

class TextHeap {
 public:
  static constexpr uint64_t kNone = 0;                     // no block
  static constexpr uint64_t kRangeBytesMax = 16ull << 30;  // sizes are 31 bits of words

  // Address space for `bytes`, at most kRangeBytesMax. Throws std::bad_alloc.
  explicit TextHeap(uint64_t bytes);

  // What a text of this length takes: at most a word more when it gets a block that is not worth dividing.
  static constexpr uint64_t BytesOf(uint64_t text_bytes) { return WordsOf(text_bytes) * sizeof(uint64_t); }
  static constexpr uint64_t kSlackBytes = sizeof(uint64_t);

  // A copy of the text; kNone if the range has no room for it.
  uint64_t Add(std::string_view text);
  void Free(uint64_t block);
  const GuardedWord* At(uint64_t block) const { return words_ + block + 1; }

  uint64_t used_bytes() const { return used_words_ * sizeof(uint64_t); }
  // How much of the range has ever been in use at once: what it takes from the machine.
  uint64_t touched_bytes() const { return touched_ * sizeof(uint64_t); }

 private:
  static constexpr uint64_t kBlockWordsMin = 2;  // a header and the links of a free block
  static constexpr uint32_t kExactClasses = 32;  // sizes below have a class each
  static constexpr uint32_t kClassBits = 3;      // above: so many bits of a size choose its class
  static constexpr uint32_t kClasses = kExactClasses + (32 - 5) * (1u << kClassBits);

  static constexpr uint64_t WordsOf(uint64_t text_bytes) {
    const uint64_t words = 1 + (text_bytes + sizeof(uint64_t) - 1) / sizeof(uint64_t);
    return words < kBlockWordsMin ? kBlockWordsMin : words;
  }
  struct Header {
    uint32_t words = 0;
    uint32_t previous_words = 0;  // 0: it is the first
    bool free = false;
  };
  Header HeaderAt(uint64_t block) const;
  void SetHeader(uint64_t block, const Header& header);
  void SetPreviousWords(uint64_t block, uint32_t words);
  static uint32_t ClassOf(uint64_t words);
  // The smallest class whose blocks all have at least so many words.
  static uint32_t ClassToSearch(uint64_t words);
  uint64_t TakeFree(uint64_t words);
  void Hang(uint64_t block, uint64_t words);
  void Unhang(uint64_t block, uint64_t words);

  ReservedMemory range_;
  GuardedWord* const words_;
  const uint64_t end_;       // of the range, in words
  uint64_t top_ = 1;         // where unused words begin; word 0 is nobody's
  uint32_t last_words_ = 0;  // of the block before top_
  uint64_t touched_ = 1;     // the highest top_
  uint64_t used_words_ = 0;
  std::array<uint32_t, kClasses> lists_ = {};               // the first free block of a class; 0: none
  std::array<uint64_t, (kClasses + 63) / 64> filled_ = {};  // a bit for each class with a block
};

}  // namespace sutra
