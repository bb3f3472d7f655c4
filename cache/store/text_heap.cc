// Division, joining and the lists of classes.
#include "cache/store/text_heap.h"

#include <algorithm>
#include <bit>
#include <cassert>

namespace sutra {

// A header: the size and the "free" bit in the lower half, the predecessor's size in the upper. A free block's second
// word: the next one of its class in the lower half, the previous one in the upper.
namespace {

constexpr uint64_t Pack(uint32_t low, uint32_t high) { return uint64_t{high} << 32 | low; }
constexpr uint32_t Low(uint64_t word) { return static_cast<uint32_t>(word); }
constexpr uint32_t High(uint64_t word) { return static_cast<uint32_t>(word >> 32); }

}  // namespace

TextHeap::TextHeap(uint64_t bytes)
    : range_(std::min(bytes, kRangeBytesMax)),
      words_(range_.as<GuardedWord>()),
      end_(std::min(bytes, kRangeBytesMax) / sizeof(uint64_t)) {}

TextHeap::Header TextHeap::HeaderAt(uint64_t block) const {
  const uint64_t word = words_[block].load(kRelaxed);
  return Header{Low(word) >> 1, High(word), (word & 1) != 0};
}
void TextHeap::SetHeader(uint64_t block, const Header& header) {
  words_[block].store(Pack(header.words << 1 | (header.free ? 1 : 0), header.previous_words), kRelaxed);
}
void TextHeap::SetPreviousWords(uint64_t block, uint32_t words) {
  if (block == top_) {
    last_words_ = words;
  } else {
    words_[block].store(Pack(Low(words_[block].load(kRelaxed)), words), kRelaxed);
  }
}

uint32_t TextHeap::ClassOf(uint64_t words) {
  if (words < kExactClasses) return static_cast<uint32_t>(words);
  const uint32_t log = static_cast<uint32_t>(std::bit_width(words)) - 1;
  const uint32_t next_bits = static_cast<uint32_t>(words >> (log - kClassBits)) & ((1u << kClassBits) - 1);
  return kExactClasses + ((log - 5) << kClassBits) + next_bits;
}
uint32_t TextHeap::ClassToSearch(uint64_t words) {
  if (words < kExactClasses) return static_cast<uint32_t>(words);
  const uint32_t log = static_cast<uint32_t>(std::bit_width(words)) - 1;
  return ClassOf(words + (uint64_t{1} << (log - kClassBits)) - 1);
}

void TextHeap::Hang(uint64_t block, uint64_t words) {
  const uint32_t c = ClassOf(words);
  const uint32_t next = lists_[c];
  words_[block + 1].store(Pack(next, 0), kRelaxed);
  if (next != 0)
    words_[next + 1].store(Pack(Low(words_[next + 1].load(kRelaxed)), static_cast<uint32_t>(block)), kRelaxed);
  lists_[c] = static_cast<uint32_t>(block);
  filled_[c / 64] |= uint64_t{1} << c % 64;
}
void TextHeap::Unhang(uint64_t block, uint64_t words) {
  const uint64_t links = words_[block + 1].load(kRelaxed);
  const uint32_t next = Low(links), previous = High(links);
  if (next != 0) words_[next + 1].store(Pack(Low(words_[next + 1].load(kRelaxed)), previous), kRelaxed);
  if (previous != 0) {
    words_[previous + 1].store(Pack(next, High(words_[previous + 1].load(kRelaxed))), kRelaxed);
    return;
  }
  const uint32_t c = ClassOf(words);
  assert(lists_[c] == block);
  lists_[c] = next;
  if (next == 0) filled_[c / 64] &= ~(uint64_t{1} << c % 64);
}

// A free block of at least so many words, out of its list; kNone if there is none.
uint64_t TextHeap::TakeFree(uint64_t words) {
  const uint32_t first = ClassToSearch(words);
  for (size_t i = first / 64; i < filled_.size(); ++i) {
    uint64_t bits = filled_[i];
    if (i == first / 64) bits &= ~uint64_t{0} << first % 64;
    if (bits == 0) continue;
    const uint64_t block = lists_[64 * i + static_cast<size_t>(std::countr_zero(bits))];
    Unhang(block, HeaderAt(block).words);
    return block;
  }
  return kNone;
}

uint64_t TextHeap::Add(std::string_view text) {
  const uint64_t wanted = WordsOf(text.size());
  uint64_t block = TakeFree(wanted);
  Header header;
  if (block != kNone) {
    header = HeaderAt(block);
    const uint32_t rest = header.words - static_cast<uint32_t>(wanted);
    if (rest >= kBlockWordsMin) {
      header.words = static_cast<uint32_t>(wanted);
      SetPreviousWords(block + header.words + rest, rest);
      SetHeader(block + header.words, Header{rest, header.words, true});
      Hang(block + header.words, rest);
    }
  } else {
    if (wanted > end_ - top_) return kNone;
    block = top_;
    header = Header{static_cast<uint32_t>(wanted), last_words_, false};
    top_ += wanted;
    last_words_ = header.words;
    touched_ = std::max(touched_, top_);
  }
  header.free = false;
  SetHeader(block, header);
  used_words_ += header.words;
  StoreWords(words_ + block + 1, text.data(), text.size());
  return block;
}

void TextHeap::Free(uint64_t block) {
  Header header = HeaderAt(block);
  assert(!header.free && header.words >= kBlockWordsMin && used_words_ >= header.words);
  used_words_ -= header.words;
  if (header.previous_words > 0) {
    const uint64_t before = block - header.previous_words;
    if (const Header other = HeaderAt(before); other.free) {
      Unhang(before, other.words);
      header = Header{other.words + header.words, other.previous_words, true};
      block = before;
    }
  }
  if (const uint64_t behind = block + header.words; behind != top_) {
    if (const Header other = HeaderAt(behind); other.free) {
      Unhang(behind, other.words);
      header.words += other.words;
    }
  }
  if (block + header.words == top_) {
    top_ = block;
    last_words_ = header.previous_words;
    return;
  }
  header.free = true;
  SetHeader(block, header);
  SetPreviousWords(block + header.words, header.words);
  Hang(block, header.words);
}

}  // namespace sutra
