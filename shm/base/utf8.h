// UTF-8: validation of request texts, and the decoding and encoding steps of the tokenizer's exact path.
//
// Stateless and thread-safe. Invariants:
// - IsValidUtf8 accepts exactly what RFC 3629 calls UTF-8: no overlong forms, no surrogates, nothing past U+10FFFF,
//   no truncated sequence; U+0000 is an ordinary character.
// - DecodeUtf8 never reads at or past `end` and always advances; a byte that starts no valid sequence becomes U+FFFD.
#pragma once

#include <cassert>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace sutra {

inline constexpr char32_t kReplacementCharacter = 0xFFFD;

// The length (1 to 4) of the valid sequence at `bytes`, or 0. REQUIRES: `left` > 0 readable bytes. *code_point is set
// when the sequence is valid.
inline unsigned Utf8SequenceLength(const char* bytes, size_t left, char32_t* code_point) {
  const auto byte = [bytes](size_t index) { return static_cast<char32_t>(static_cast<uint8_t>(bytes[index])); };
  const auto continues = [&byte](size_t index) { return (byte(index) & 0xC0) == 0x80; };
  const char32_t first = byte(0);
  if (first < 0x80) {
    *code_point = first;
    return 1;
  }
  if (first < 0xC2) return 0;  // a continuation byte, or an overlong form of ASCII
  if (first < 0xE0) {
    if (left < 2 || !continues(1)) return 0;
    *code_point = (first & 0x1F) << 6 | (byte(1) & 0x3F);
    return 2;
  }
  if (first < 0xF0) {
    if (left < 3 || !continues(1) || !continues(2)) return 0;
    *code_point = (first & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    const bool surrogate = *code_point >= 0xD800 && *code_point < 0xE000;
    return *code_point < 0x800 || surrogate ? 0 : 3;
  }
  if (first > 0xF4 || left < 4 || !continues(1) || !continues(2) || !continues(3)) return 0;
  *code_point = (first & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
  return *code_point < 0x10000 || *code_point > 0x10FFFF ? 0 : 4;
}

// Reads one code point and moves *cursor past it. REQUIRES: *cursor < end.
inline char32_t DecodeUtf8(const char** cursor, const char* end) {
  assert(*cursor < end);
  char32_t code_point = kReplacementCharacter;
  const unsigned length = Utf8SequenceLength(*cursor, static_cast<size_t>(end - *cursor), &code_point);
  if (length == 0) {
    ++*cursor;
    return kReplacementCharacter;
  }
  *cursor += length;
  return code_point;
}

// Writes 1 to 4 bytes to `out` and returns how many. REQUIRES: a code point up to U+10FFFF.
inline unsigned EncodeUtf8(char32_t code_point, char* out) {
  assert(code_point <= 0x10FFFF);
  const auto put = [out](unsigned index, char32_t value) { out[index] = static_cast<char>(value); };
  if (code_point < 0x80) {
    put(0, code_point);
    return 1;
  }
  if (code_point < 0x800) {
    put(0, 0xC0 | code_point >> 6);
    put(1, 0x80 | (code_point & 0x3F));
    return 2;
  }
  if (code_point < 0x10000) {
    put(0, 0xE0 | code_point >> 12);
    put(1, 0x80 | (code_point >> 6 & 0x3F));
    put(2, 0x80 | (code_point & 0x3F));
    return 3;
  }
  put(0, 0xF0 | code_point >> 18);
  put(1, 0x80 | (code_point >> 12 & 0x3F));
  put(2, 0x80 | (code_point >> 6 & 0x3F));
  put(3, 0x80 | (code_point & 0x3F));
  return 4;
}

inline bool IsValidUtf8(std::string_view text) {
  const char* cursor = text.data();
  const char* const end = cursor + text.size();
  while (cursor != end) {
    // Most request text is ASCII: 32 bytes per step until a high bit shows up.
    while (end - cursor >= 32) {
      uint64_t words[4];
      std::memcpy(words, cursor, sizeof(words));
      if ((words[0] | words[1] | words[2] | words[3]) & 0x8080808080808080u) break;
      cursor += 32;
    }
    // Then single sequences, for a stretch long enough that retrying the fast step costs nothing noticeable.
    const char* const stretch = end - cursor < 32 ? end : cursor + 32;
    while (cursor < stretch) {
      char32_t code_point;
      const unsigned length = Utf8SequenceLength(cursor, static_cast<size_t>(end - cursor), &code_point);
      if (length == 0) return false;
      cursor += length;
    }
  }
  return true;
}

}  // namespace sutra
