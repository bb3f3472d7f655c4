// Bytes that one thread writes while others read them without a lock: copied word by word with relaxed atomics, so that
// a reader gets old or new words and never an undefined value. Which of them belong together, a version tells.
//
// Thread rule: any thread. Words behind `bytes` that belong to the last one are written as zeros.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace sutra {

using GuardedWord = std::atomic<uint64_t>;
static_assert(sizeof(GuardedWord) == sizeof(uint64_t) && GuardedWord::is_always_lock_free);

inline constexpr auto kRelaxed = std::memory_order_relaxed;  // of words and fields that a version guards

inline void StoreWords(GuardedWord* to, const void* from, size_t bytes) {
  const char* at = static_cast<const char*>(from);
  for (; bytes >= sizeof(uint64_t); bytes -= sizeof(uint64_t), at += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, at, sizeof(word));
    (to++)->store(word, kRelaxed);
  }
  if (bytes == 0) return;
  uint64_t word = 0;
  std::memcpy(&word, at, bytes);
  to->store(word, kRelaxed);
}

inline void LoadWords(void* to, const GuardedWord* from, size_t bytes) {
  char* at = static_cast<char*>(to);
  for (; bytes >= sizeof(uint64_t); bytes -= sizeof(uint64_t), at += sizeof(uint64_t)) {
    const uint64_t word = (from++)->load(kRelaxed);
    std::memcpy(at, &word, sizeof(word));
  }
  if (bytes == 0) return;
  const uint64_t word = from->load(kRelaxed);
  std::memcpy(at, &word, bytes);
}

inline bool EqualWords(const GuardedWord* words, const void* to, size_t bytes) {
  const char* at = static_cast<const char*>(to);
  for (; bytes >= sizeof(uint64_t); bytes -= sizeof(uint64_t), at += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, at, sizeof(word));
    if ((words++)->load(kRelaxed) != word) return false;
  }
  if (bytes == 0) return true;
  uint64_t word = 0;
  std::memcpy(&word, at, bytes);
  return words->load(kRelaxed) == word;
}

}  // namespace sutra
