// SHA-256 of a short text in one call, with libc alone: the client library names keys by it, where libcrypto
// (sha256.h) may not be. 100 bytes take 60 ns where the processor has instructions for it. Stateless; thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sutra {

inline constexpr size_t kShaBlockBytes = 64;

struct ShaWords {
  uint64_t words[4] = {};  // the 32 bytes of a digest, as they lie in memory
  bool operator==(const ShaWords&) const = default;
};

// The digest of `prefix`, which is shorter than a block, and the bytes after it.
ShaWords ShortSha256(const void* prefix, size_t prefix_bytes, const void* bytes, size_t byte_count);
// The same without the processor's instructions, for tests and for processors that lack them.
ShaWords ShortSha256Portable(const void* prefix, size_t prefix_bytes, const void* bytes, size_t byte_count);

}  // namespace sutra
