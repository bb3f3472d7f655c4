// What the Hugging Face fast tokenizer's Unicode tables say about a code point: its class, its canonical decomposition
// and its lowercase. The data comes from the library itself (make_unicode_table.py), not from a Unicode release.
//
// The tables are built once, on first use, and are immutable afterwards: every call is thread-safe.
#pragma once

#include <cstdint>
#include <vector>

namespace sutra {

// Bits of CharClass::flags; make_unicode_table.py writes the same numbers.
enum CharFlag : uint8_t {
  kCleanDrop = 1,    // clean_text removes it
  kCleanSpace = 2,   // clean_text turns it into a space
  kWhite = 4,        // splits words and is removed
  kPunctuation = 8,  // forms a word of its own
  kIdeograph = 16,   // handle_chinese_chars puts spaces around it
  kMark = 32,        // strip_accents removes it, after decomposition
  kDecomposes = 64,  // has a canonical decomposition that is not a Hangul syllable's
  kHasLower = 128,
};

struct CharClass {
  uint8_t flags;
  uint8_t order;  // rank of the canonical combining class; 0 for a starter, which is never reordered
};

inline constexpr char32_t kCodePoints = 0x110000;

class UnicodeData {
 public:
  static constexpr unsigned kPartsMax = 4;

  static const UnicodeData& Instance();

  // REQUIRES, for all three: code_point < kCodePoints.
  CharClass Class(char32_t code_point) const { return classes_[class_index_[code_point]]; }
  // Writes up to kPartsMax code points and returns how many; a code point without a mapping maps to itself.
  unsigned Decompose(char32_t code_point, char32_t* parts) const;
  unsigned Lower(char32_t code_point, char32_t* parts) const;

 private:
  UnicodeData();

  std::vector<uint8_t> class_index_;  // one byte per code point; most of its pages are never touched
  const CharClass* classes_;
  std::vector<uint32_t> decomposition_starts_;  // positions of the records in the generated stream, ascending
};

}  // namespace sutra
