// Encoding; see wordpiece.h. The rules and their order are those of the Hugging Face fast tokenizer: added tokens on
// the raw text, clean, ideographs, decompose and strip, lowercase, split, longest match.
//
// Why the two paths agree: ASCII white space and punctuation are starters, unchanged by every normalizer step, and
// split words. So the text between two of them can be encoded separately, and if it is pure ASCII letters and digits,
// lowercasing is all that happens to it.
#include "engine/tokenizer/wordpiece.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cassert>
#include <cstring>

#include "engine/tokenizer/ascii_scan.h"
#include "engine/tokenizer/unicode_data.h"
#include "engine/tokenizer/word_scratch.h"
#include "shm/base/utf8.h"

namespace sutra {
namespace {

// Bytes scanned at once. A word that does not fit goes to the exact path, so this only bounds the stack.
constexpr size_t kWindowBytes = 1024;
constexpr size_t kWindowBlocks = kWindowBytes / kScanBlockBytes;

// Of a text whose last tokens count: all of them are computed.
constexpr size_t kNoTokenLimit = uint32_t{1} << 31;

bool AnyBit(const ScanMasks* masks, size_t begin, size_t end) {
  for (size_t at = begin; at < end;) {
    const size_t in_block = at % kScanBlockBytes;
    const size_t span = std::min(end - at, kScanBlockBytes - in_block);
    const uint64_t ones = span == 64 ? ~uint64_t{0} : (uint64_t{1} << span) - 1;
    if (masks[at / kScanBlockBytes].slow & (ones << in_block)) return true;
    at += span;
  }
  return false;
}

bool IsAsciiBreak(char value) {
  const auto byte = static_cast<uint8_t>(value);
  const bool letter = static_cast<uint8_t>((byte | 0x20) - 'a') <= 25;
  const bool printable = byte >= 0x20 && byte <= 0x7E;
  return (printable && !letter && static_cast<uint8_t>(byte - '0') > 9) || byte == '\t' || byte == '\n' || byte == '\r';
}

}  // namespace

// One call of Encode. Ids are written at `cursor_`; at `checkpoint_` the writer must check: the space in the vector
// ends there, or the text has more tokens than fit.
class WordPieceTokenizer::Encoder {
 public:
  Encoder(const WordPieceTokenizer& tokenizer, size_t tokens_max, std::vector<int32_t>* ids)
      : tokenizer_(tokenizer),
        config_(tokenizer.config_),
        unicode_(UnicodeData::Instance()),
        scratch_(ThreadScratch()),
        tokens_max_(tokens_max),
        word_ids_max_(std::max<size_t>(config_.word_chars_max, kCachedIds)),
        first_(ids->size()),
        ids_(ids) {
    if (const size_t bytes = 4 * (size_t{config_.word_chars_max} + 2) + kCachedBytes; scratch_.word.size() < bytes) {
      scratch_.word.resize(bytes);
    }
    scratch_.marks.clear();
  }

  Encoded Run(std::string_view text) {
    Grow(std::min(text.size() / 4, tokens_max_));
    *cursor_++ = config_.cls_id;
    for (size_t at = 0; at < text.size() && !full_;) at += Window(text, at);
    // Everything past the limit is replaced by [SEP].
    const size_t written = static_cast<size_t>(cursor_ - begin_);
    const size_t kept = std::min(written, tokens_max_ - 1);
    begin_[kept] = config_.sep_id;
    ids_->resize(first_ + kept + 1);
    return {static_cast<uint32_t>(kept + 1), written > kept};
  }

 private:
  // Makes room for `more` ids and one more word.
  void Grow(size_t more) {
    const size_t written = static_cast<size_t>(cursor_ - begin_);
    ids_->resize(first_ + written + more + 2 * word_ids_max_ + 2);
    begin_ = ids_->data() + first_;
    cursor_ = begin_ + written;
    const size_t room = ids_->size() - first_ - word_ids_max_ - 1;
    checkpoint_ = begin_ + std::min(room, tokens_max_ - 1);
  }

  // After each word. Past the limit the rest of the text cannot change the answer, as truncation keeps the first ids.
  void AfterWord() {
    if (cursor_ <= checkpoint_) [[likely]]
      return;
    if (static_cast<size_t>(cursor_ - begin_) > tokens_max_ - 1) {
      full_ = true;
    } else {
      Grow(static_cast<size_t>(cursor_ - begin_));
    }
  }

  // Encodes from text[at]; returns how many bytes were consumed, at least one.
  size_t Window(std::string_view text, size_t at) {
    const char* bytes = text.data() + at;
    const size_t size = std::min(text.size() - at, kWindowBytes);
    alignas(64) char lowered[kWindowBytes + kCachedBytes];
    ScanMasks masks[kWindowBlocks];
    ScanAscii(bytes, size, config_.lowercase ? 0x20 : 0, lowered, masks);
    size_t word_begin = 0;
    uint64_t carry = 0;  // 1: a word is open at the start of the block
    for (size_t block = 0; block * kScanBlockBytes < size; ++block) {
      const uint64_t token = masks[block].word | masks[block].slow;
      const uint64_t before = token << 1 | carry;
      uint64_t starts = token & ~before;
      const uint64_t ends = ~token & before;
      carry = token >> 63;
      for (uint64_t events = ends | masks[block].punctuation; events != 0; events &= events - 1) {
        const auto bit = static_cast<unsigned>(std::countr_zero(events));
        const size_t here = block * kScanBlockBytes + bit;
        if (ends >> bit & 1) {
          if (const uint64_t passed = starts & ((uint64_t{1} << bit) - 1)) {
            word_begin = block * kScanBlockBytes + static_cast<unsigned>(std::countr_zero(passed));
            starts ^= passed;
          }
          Word(bytes, lowered, masks, word_begin, here);
        }
        if (masks[block].punctuation >> bit & 1) {
          if (const size_t literal = full_ ? 0 : Punctuation(text, at + here)) return here + literal;
        }
        if (full_) return size;
      }
      if (starts != 0) word_begin = block * kScanBlockBytes + static_cast<unsigned>(std::countr_zero(starts));
    }
    if (carry == 0 || size % kScanBlockBytes != 0) return size;
    if (at + size == text.size()) {
      Word(bytes, lowered, masks, word_begin, size);
      return size;
    }
    if (word_begin > 0) return word_begin;
    return LongWord(text, at);
  }

  // A stretch without ASCII breaks that is longer than a window.
  size_t LongWord(std::string_view text, size_t at) {
    size_t past = at;
    while (past < text.size() && !IsAsciiBreak(text[past])) ++past;
    Stretch(text.data() + at, text.data() + past);
    return past - at;
  }

  void Word(const char* bytes, const char* lowered, const ScanMasks* masks, size_t begin, size_t end) {
    if (AnyBit(masks, begin, end)) {
      Stretch(bytes + begin, bytes + end);
    } else if (end - begin > config_.word_chars_max) {
      *cursor_++ = tokenizer_.unk_id_;
      AfterWord();
    } else {
      EmitWord(lowered + begin, end - begin, true);
    }
  }

  // One punctuation character, or an added token that starts with it: then returns the token's bytes, else 0.
  size_t Punctuation(std::string_view text, size_t at) {
    const auto byte = static_cast<uint8_t>(text[at]);
    if (tokenizer_.added_token_starts_[byte]) {
      for (const AddedToken& added : config_.added_tokens) {  // longest first
        if (text.compare(at, added.content.size(), added.content) != 0) continue;
        *cursor_++ = added.id;
        AfterWord();
        return added.content.size();
      }
    }
    *cursor_++ = tokenizer_.ascii_char_id_[byte];
    AfterWord();
    return 0;
  }

  // --- The exact path: any bytes without ASCII breaks (which it would handle just as well). ---

  void Stretch(const char* cursor, const char* end) {
    while (cursor < end && !full_) {
      const char32_t code_point = DecodeUtf8(&cursor, end);
      if (word_chars_ <= config_.word_chars_max) {
        CodePoint(code_point);
      } else {
        RestOfLongWord(code_point);
      }
    }
    EndWordAndMarks();
  }

  // Of a word that is [UNK] already, only its end matters. A code point that left such a word open leaves every such
  // word open: what it becomes does not depend on those before it, but for the order of marks, which never end a word.
  // So a text that is one word of 16 MiB is normalized once per kind of character, not once per character.
  void RestOfLongWord(char32_t code_point) {
    OpenEnds& open_ends = scratch_.open_ends;
    if (open_ends.owner != tokenizer_.serial_) {
      open_ends.seen.assign(OpenEnds::kCodePoints, false);
      open_ends.owner = tokenizer_.serial_;
    }
    if (open_ends.seen[code_point]) return;
    const size_t before = words_ended_;
    CodePoint(code_point);
    if (words_ended_ == before) open_ends.seen[code_point] = true;
  }

  void CodePoint(char32_t code_point) {
    const uint8_t flags = unicode_.Class(code_point).flags;
    if (config_.clean_text) {
      if (flags & kCleanDrop) return;
      if (flags & kCleanSpace) code_point = ' ';
    }
    const bool alone = config_.handle_chinese_chars && (flags & kIdeograph);
    if (alone) EndWordAndMarks();
    Decompose(code_point);
    if (alone) EndWordAndMarks();
  }

  void Decompose(char32_t code_point) {
    if (!config_.strip_accents) return Lower(code_point);
    char32_t parts[UnicodeData::kPartsMax];
    const unsigned count = unicode_.Decompose(code_point, parts);
    for (unsigned part = 0; part < count; ++part) {
      const CharClass each = unicode_.Class(parts[part]);
      // Canonical order: a starter ends the run of marks before it, even if it is itself stripped.
      if (each.order == 0) EndMarks();
      if (each.flags & kMark) continue;
      if (each.order == 0) {
        Lower(parts[part]);
      } else {
        HoldMark(parts[part], each.order);
      }
    }
  }

  // Keeps a run of combining marks in canonical order. Such marks never end a word, so that more of them than a word
  // may have characters make it [UNK] in any order, and the rest need not be kept.
  void HoldMark(char32_t code_point, uint8_t order) {
    std::vector<CombiningMark>& marks = scratch_.marks;
    if (marks.size() > config_.word_chars_max) return;
    const auto place = std::upper_bound(marks.begin(), marks.end(), order,
                                        [](uint8_t wanted, const CombiningMark& mark) { return wanted < mark.order; });
    marks.insert(place, {code_point, order});
  }

  void EndMarks() {
    for (const CombiningMark& mark : scratch_.marks) Lower(mark.code_point);
    scratch_.marks.clear();
  }

  void Lower(char32_t code_point) {
    if (!config_.lowercase) return Append(code_point);
    char32_t parts[UnicodeData::kPartsMax];
    const unsigned count = unicode_.Lower(code_point, parts);
    for (unsigned part = 0; part < count; ++part) Append(parts[part]);
  }

  void Append(char32_t code_point) {
    const uint8_t flags = unicode_.Class(code_point).flags;
    if (flags & (kWhite | kPunctuation)) EndWord();
    if (flags & kWhite) return;
    if (word_chars_ <= config_.word_chars_max) {
      word_bytes_ += EncodeUtf8(code_point, scratch_.word.data() + word_bytes_);
      ++word_chars_;
    }
    if (flags & kPunctuation) EndWord();
  }

  void EndWordAndMarks() {
    EndMarks();
    EndWord();
  }

  void EndWord() {
    if (word_chars_ == 0) return;
    ++words_ended_;
    const size_t bytes = word_bytes_;
    const bool too_long = word_chars_ > config_.word_chars_max;
    word_bytes_ = word_chars_ = 0;
    if (full_) return;
    if (too_long) {
      *cursor_++ = tokenizer_.unk_id_;
      AfterWord();
    } else {
      // clean_text removes NUL; without it a word may hold one, and a padded key would be ambiguous.
      EmitWord(scratch_.word.data(), bytes, config_.clean_text);
    }
  }

  // --- A normalized word to ids. ---

  // REQUIRES: kCachedBytes readable bytes at `word`; may_cache only for words without NUL.
  void EmitWord(const char* word, size_t size, bool may_cache) {
    if (size > kCachedBytes || !may_cache) {
      cursor_ += MatchPieces(word, size, cursor_);
      return AfterWord();
    }
    uint64_t key[3];
    LoadKey(word, size, key);
    CachedWord& cached = scratch_.cache[CacheSlot(key)];
    if (cached.owner == tokenizer_.serial_ && std::memcmp(cached.key, key, sizeof(key)) == 0) [[likely]] {
      std::memcpy(cursor_, cached.ids, sizeof(cached.ids));  // always eight: there is space
      cursor_ += cached.count;
      return AfterWord();
    }
    const size_t count = MatchPieces(word, size, cursor_);
    if (count <= kCachedIds) {
      std::memcpy(cached.key, key, sizeof(key));
      std::copy_n(cursor_, count, cached.ids);
      cached.owner = tokenizer_.serial_;
      cached.count = static_cast<uint32_t>(count);
    }
    cursor_ += count;
    AfterWord();
  }

  // Greedy longest match; one position without a match makes the whole word [UNK]. Returns the count of ids written.
  size_t MatchPieces(const char* word, size_t size, int32_t* out) const {
    size_t count = 0;
    for (size_t at = 0; at < size;) {
      const VocabTrie::Match match = at == 0 ? tokenizer_.trie_.LongestWord(word, size)
                                             : tokenizer_.trie_.LongestContinuation(word + at, size - at);
      if (match.bytes == 0) {
        out[0] = tokenizer_.unk_id_;
        return 1;
      }
      out[count++] = match.id;
      at += match.bytes;
    }
    return count;
  }

  const WordPieceTokenizer& tokenizer_;
  const WordPieceConfig& config_;
  const UnicodeData& unicode_;
  Scratch& scratch_;
  const size_t tokens_max_;
  const size_t word_ids_max_;
  const size_t first_;  // where this text's ids begin in the vector
  std::vector<int32_t>* ids_;
  int32_t* begin_ = nullptr;
  int32_t* cursor_ = nullptr;
  int32_t* checkpoint_ = nullptr;
  bool full_ = false;  // more tokens than fit: nothing further is encoded
  size_t word_bytes_ = 0;
  size_t word_chars_ = 0;
  size_t words_ended_ = 0;  // on the exact path
};

WordPieceTokenizer::WordPieceTokenizer(WordPieceConfig config) : config_(std::move(config)) {
  static std::atomic<uint32_t> next_serial{1};
  // Relaxed: only the number has to be unique; the owner hands the object itself to other threads.
  serial_ = next_serial.fetch_add(1, std::memory_order_relaxed);
}

Encoded WordPieceTokenizer::Encode(std::string_view text, uint32_t tokens_max, std::vector<int32_t>* ids) const {
  assert(tokens_max >= 2);
  if (!config_.truncate_left) return Encoder(*this, tokens_max, ids).Run(text);
  const size_t first = ids->size();
  Encoded encoded = Encoder(*this, kNoTokenLimit, ids).Run(text);
  if (encoded.token_count > tokens_max) {
    const auto after_cls = ids->begin() + static_cast<std::ptrdiff_t>(first + 1);
    ids->erase(after_cls, after_cls + static_cast<std::ptrdiff_t>(encoded.token_count - tokens_max));
    encoded = {tokens_max, true};
  }
  return encoded;
}

}  // namespace sutra
