// The fast first pass over request text: lowercases ASCII and classifies each byte, as bit masks over blocks of 64
// bytes. Bytes other than plain ASCII words, punctuation and white space are `slow`: the exact path decides.
//
// Stateless and thread-safe. SSE2 (part of every x86-64) is enough: the pass costs a few percent of the whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace sutra {

inline constexpr size_t kScanBlockBytes = 64;

// Bit i describes byte i of the block. White space (tab, newline, return, space) has no bit in any mask.
struct ScanMasks {
  uint64_t word = 0;         // 0-9 A-Z a-z
  uint64_t punctuation = 0;  // the other printable characters
  uint64_t slow = 0;         // control characters and everything from 0x80 on
};

#ifdef __SSE2__

// One block of exactly 64 readable bytes; writes 64 bytes to `lowered`. case_bit is 0x20 to lowercase, 0 to keep.
inline ScanMasks ScanBlock(const char* bytes, uint8_t case_bit, char* lowered) {
  const auto up_to = [](__m128i value, char limit) {  // value <= limit, unsigned
    return _mm_cmpeq_epi8(_mm_min_epu8(value, _mm_set1_epi8(limit)), value);
  };
  ScanMasks masks;
  for (unsigned part = 0; part < 4; ++part) {
    const __m128i value = _mm_loadu_si128(static_cast<const __m128i*>(static_cast<const void*>(bytes + 16 * part)));
    const __m128i letter = up_to(_mm_sub_epi8(_mm_or_si128(value, _mm_set1_epi8(0x20)), _mm_set1_epi8('a')), 25);
    const __m128i digit = up_to(_mm_sub_epi8(value, _mm_set1_epi8('0')), 9);
    const __m128i printable = up_to(_mm_sub_epi8(value, _mm_set1_epi8(0x21)), 0x7E - 0x21);
    const __m128i white = _mm_or_si128(
        _mm_or_si128(_mm_cmpeq_epi8(value, _mm_set1_epi8(' ')), _mm_cmpeq_epi8(value, _mm_set1_epi8('\t'))),
        _mm_or_si128(_mm_cmpeq_epi8(value, _mm_set1_epi8('\n')), _mm_cmpeq_epi8(value, _mm_set1_epi8('\r'))));
    const __m128i word = _mm_or_si128(letter, digit);
    const __m128i fold = _mm_and_si128(letter, _mm_set1_epi8(static_cast<char>(case_bit)));
    _mm_storeu_si128(static_cast<__m128i*>(static_cast<void*>(lowered + 16 * part)), _mm_or_si128(value, fold));
    const auto bits = [part](__m128i mask) {
      return static_cast<uint64_t>(static_cast<uint32_t>(_mm_movemask_epi8(mask))) << (16 * part);
    };
    masks.word |= bits(word);
    masks.punctuation |= bits(_mm_andnot_si128(word, printable));
    masks.slow |= bits(_mm_or_si128(printable, white)) ^ (uint64_t{0xFFFF} << (16 * part));
  }
  return masks;
}

#else

inline ScanMasks ScanBlock(const char* bytes, uint8_t case_bit, char* lowered) {
  ScanMasks masks;
  for (unsigned index = 0; index < kScanBlockBytes; ++index) {
    const auto value = static_cast<uint8_t>(bytes[index]);
    const uint64_t bit = uint64_t{1} << index;
    const bool letter = static_cast<uint8_t>((value | 0x20) - 'a') <= 25;
    const bool word = letter || static_cast<uint8_t>(value - '0') <= 9;
    const bool printable = value >= 0x21 && value <= 0x7E;
    const bool white = value == ' ' || value == '\t' || value == '\n' || value == '\r';
    lowered[index] = static_cast<char>(value | (letter ? case_bit : 0));
    if (word) masks.word |= bit;
    if (printable && !word) masks.punctuation |= bit;
    if (!printable && !white) masks.slow |= bit;
  }
  return masks;
}

#endif

// Scans `size` bytes into ceil(size / 64) masks. The last block is padded with spaces, so `lowered` must hold a
// multiple of 64 bytes; nothing past `bytes + size` is read.
inline void ScanAscii(const char* bytes, size_t size, uint8_t case_bit, char* lowered, ScanMasks* masks) {
  size_t at = 0;
  for (; at + kScanBlockBytes <= size; at += kScanBlockBytes) *masks++ = ScanBlock(bytes + at, case_bit, lowered + at);
  if (at == size) return;
  char tail[kScanBlockBytes];
  std::memset(tail, ' ', sizeof(tail));
  std::memcpy(tail, bytes + at, size - at);
  *masks = ScanBlock(tail, case_bit, lowered + at);
}

}  // namespace sutra
