// Expands and searches the generated tables; see unicode_data.h.
#include "engine/tokenizer/unicode_data.h"

#include <algorithm>
#include <cassert>
#include <iterator>

namespace sutra {
namespace {

using ClassOf = CharClass;

struct LowerRun {
  uint32_t first;
  uint32_t last;
  uint32_t stride;
  int32_t delta;
};

#include "engine/tokenizer/unicode_table.inc"

// Records of kDecompositions and kLowerMany: (code point << 3 | count), then `count` code points.
uint32_t RecordCodePoint(uint32_t head) { return head >> 3; }
uint32_t RecordCount(uint32_t head) { return head & 7; }

constexpr char32_t kHangulFirst = 0xAC00;
constexpr char32_t kHangulCount = 11172;
constexpr char32_t kVowels = 21;
constexpr char32_t kTrails = 28;

unsigned DecomposeHangul(char32_t index, char32_t* parts) {
  parts[0] = 0x1100 + index / (kVowels * kTrails);
  parts[1] = 0x1161 + index % (kVowels * kTrails) / kTrails;
  if (index % kTrails == 0) return 2;
  parts[2] = 0x11A7 + index % kTrails;
  return 3;
}

}  // namespace

const UnicodeData& UnicodeData::Instance() {
  static const UnicodeData data;
  return data;
}

UnicodeData::UnicodeData() : class_index_(kCodePoints), classes_(kClasses) {
  for (size_t run = 0; run < std::size(kClassRuns); ++run) {
    const uint32_t first = kClassRuns[run] >> 8;
    const uint32_t past = run + 1 < std::size(kClassRuns) ? kClassRuns[run + 1] >> 8 : uint32_t{kCodePoints};
    std::fill(class_index_.begin() + first, class_index_.begin() + past, static_cast<uint8_t>(kClassRuns[run] & 0xFF));
  }
  for (uint32_t at = 0; at < std::size(kDecompositions); at += 1 + RecordCount(kDecompositions[at])) {
    decomposition_starts_.push_back(at);
  }
}

unsigned UnicodeData::Decompose(char32_t code_point, char32_t* parts) const {
  const char32_t hangul = code_point - kHangulFirst;
  if (hangul < kHangulCount) return DecomposeHangul(hangul, parts);
  parts[0] = code_point;
  if (!(Class(code_point).flags & kDecomposes)) return 1;
  const auto found = std::lower_bound(
      decomposition_starts_.begin(), decomposition_starts_.end(), code_point,
      [](uint32_t start, char32_t wanted) { return RecordCodePoint(kDecompositions[start]) < wanted; });
  assert(found != decomposition_starts_.end() && RecordCodePoint(kDecompositions[*found]) == code_point);
  const uint32_t* record = kDecompositions + *found;
  const uint32_t count = RecordCount(*record);
  std::copy_n(record + 1, count, parts);
  return count;
}

unsigned UnicodeData::Lower(char32_t code_point, char32_t* parts) const {
  parts[0] = code_point;
  if (!(Class(code_point).flags & kHasLower)) return 1;
  const LowerRun* run = std::lower_bound(std::begin(kLowerRuns), std::end(kLowerRuns), code_point,
                                         [](const LowerRun& each, char32_t wanted) { return each.last < wanted; });
  if (run != std::end(kLowerRuns) && code_point >= run->first && (code_point - run->first) % run->stride == 0) {
    parts[0] = static_cast<char32_t>(static_cast<int32_t>(code_point) + run->delta);
    return 1;
  }
  for (uint32_t at = 0; at < std::size(kLowerMany); at += 1 + RecordCount(kLowerMany[at])) {
    if (RecordCodePoint(kLowerMany[at]) != code_point) continue;
    std::copy_n(kLowerMany + at + 1, RecordCount(kLowerMany[at]), parts);
    return RecordCount(kLowerMany[at]);
  }
  assert(false && "kHasLower without an entry: unicode_table.inc is damaged");
  return 1;
}

}  // namespace sutra
