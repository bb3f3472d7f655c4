#include "shm/base/sha256_short.h"

#include <assert.h>
#include <string.h>

#include <atomic>
#include <bit>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace sutra {
namespace {

constexpr size_t kLengthBytes = 8;  // of the number of bits, at the end of the last block

alignas(16) constexpr uint32_t kRoundConstants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

struct State {
  uint32_t words[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
};

void CompressPortable(State* state, const uint8_t* bytes, size_t blocks) {
  for (; blocks > 0; --blocks, bytes += kShaBlockBytes) {
    uint32_t w[64];
    for (int i = 0; i < 16; ++i) {
      uint32_t word;
      memcpy(&word, bytes + 4 * i, sizeof(word));
      w[i] = __builtin_bswap32(word);
    }
    for (int i = 16; i < 64; ++i) {
      const uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ w[i - 15] >> 3;
      const uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ w[i - 2] >> 10;
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    auto [a, b, c, d, e, f, g, h] = state->words;
    for (int i = 0; i < 64; ++i) {
      const uint32_t t1 = h + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) + ((e & f) ^ (~e & g)) +
                          kRoundConstants[i] + w[i];
      const uint32_t t2 = (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
      h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    const uint32_t sums[8] = {a, b, c, d, e, f, g, h};
    for (int i = 0; i < 8; ++i) state->words[i] += sums[i];
  }
}

#if defined(__x86_64__)
// The instructions take the state as (a, b, e, f) and (c, d, g, h), and do two rounds each.
__attribute__((target("sha,sse4.1"))) void CompressSha(State* state, const uint8_t* bytes, size_t blocks) {
  const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  auto* const words = static_cast<__m128i*>(static_cast<void*>(state->words));
  const __m128i cdab = _mm_shuffle_epi32(_mm_loadu_si128(words), 0xb1);
  const __m128i efgh = _mm_shuffle_epi32(_mm_loadu_si128(words + 1), 0x1b);
  __m128i abef = _mm_alignr_epi8(cdab, efgh, 8);
  __m128i cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);
  for (; blocks > 0; --blocks, bytes += kShaBlockBytes) {
    const __m128i abef_before = abef, cdgh_before = cdgh;
    __m128i w[4];
    for (int i = 0; i < 4; ++i) {
      const auto* const block = static_cast<const __m128i*>(static_cast<const void*>(bytes + 16 * i));
      w[i] = _mm_shuffle_epi8(_mm_loadu_si128(block), swap);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      __m128i& next = w[i & 3];
      if (i >= 4) {
        const __m128i last = w[(i + 3) & 3];
        const __m128i sum =
            _mm_add_epi32(_mm_sha256msg1_epu32(next, w[(i + 1) & 3]), _mm_alignr_epi8(last, w[(i + 2) & 3], 4));
        next = _mm_sha256msg2_epu32(sum, last);
      }
      const auto* const constants = static_cast<const __m128i*>(static_cast<const void*>(kRoundConstants + 4 * i));
      const __m128i input = _mm_add_epi32(next, _mm_load_si128(constants));
      cdgh = _mm_sha256rnds2_epu32(cdgh, abef, input);
      abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(input, 0x0e));
    }
    abef = _mm_add_epi32(abef, abef_before);
    cdgh = _mm_add_epi32(cdgh, cdgh_before);
  }
  const __m128i feba = _mm_shuffle_epi32(abef, 0x1b);
  const __m128i dchg = _mm_shuffle_epi32(cdgh, 0xb1);
  _mm_storeu_si128(words, _mm_blend_epi16(feba, dchg, 0xf0));
  _mm_storeu_si128(words + 1, _mm_alignr_epi8(dchg, feba, 8));
}

// Asked once: CPUID takes microseconds in a virtual machine. relaxed: whoever does not see the answer asks again.
bool HasSha() {
  static constinit std::atomic<uint8_t> known = 0;  // 1 = no, 2 = yes
  const uint8_t answer = known.load(std::memory_order_relaxed);
  if (answer != 0) return answer == 2;
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool sse = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_SSSE3) != 0 && (c & bit_SSE4_1) != 0;
  const bool sha = sse && __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b >> 29 & 1) != 0;
  known.store(sha ? 2 : 1, std::memory_order_relaxed);
  return sha;
}
#endif

using Compress = void (*)(State* state, const uint8_t* bytes, size_t blocks);

ShaWords Digest(Compress compress, const void* prefix, size_t prefix_bytes, const void* bytes, size_t byte_count) {
  assert(prefix_bytes < kShaBlockBytes);
  State state;
  const auto* at = static_cast<const uint8_t*>(bytes);
  size_t left = byte_count;
  uint8_t tail[2 * kShaBlockBytes];
  memcpy(tail, prefix, prefix_bytes);
  size_t filled = prefix_bytes;
  if (filled + left >= kShaBlockBytes) {
    const size_t room = kShaBlockBytes - filled;
    memcpy(tail + filled, at, room);
    compress(&state, tail, 1);
    at += room;
    left -= room;
    const size_t whole = left / kShaBlockBytes;
    if (whole > 0) compress(&state, at, whole);
    at += whole * kShaBlockBytes;
    left -= whole * kShaBlockBytes;
    filled = 0;
  }
  if (left > 0) memcpy(tail + filled, at, left);
  filled += left;
  tail[filled++] = 0x80;
  const size_t blocks = filled + kLengthBytes <= kShaBlockBytes ? 1 : 2;
  memset(tail + filled, 0, blocks * kShaBlockBytes - filled);
  const uint64_t bits = __builtin_bswap64((uint64_t{prefix_bytes} + byte_count) * 8);
  memcpy(tail + blocks * kShaBlockBytes - kLengthBytes, &bits, kLengthBytes);
  compress(&state, tail, blocks);
  for (uint32_t& word : state.words) word = __builtin_bswap32(word);
  ShaWords digest;
  static_assert(sizeof(digest) == sizeof(state));
  memcpy(digest.words, state.words, sizeof(digest.words));
  return digest;
}

}  // namespace

static_assert(std::endian::native == std::endian::little);

ShaWords ShortSha256(const void* prefix, size_t prefix_bytes, const void* bytes, size_t byte_count) {
#if defined(__x86_64__)
  if (HasSha()) return Digest(CompressSha, prefix, prefix_bytes, bytes, byte_count);
#endif
  return ShortSha256Portable(prefix, prefix_bytes, bytes, byte_count);
}

ShaWords ShortSha256Portable(const void* prefix, size_t prefix_bytes, const void* bytes, size_t byte_count) {
  return Digest(CompressPortable, prefix, prefix_bytes, bytes, byte_count);
}

}  // namespace sutra
