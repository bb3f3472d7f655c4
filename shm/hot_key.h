// The key of a vector in the hot table: where it may be, and the digest that confirms it. Libc only.
//
// Thread rule: one thread per key. The text must outlive it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "shm/base/sha256_short.h"

namespace sutra {

class HotKey {
 public:
  // `seed`: of the table (HotHeader::seed).
  HotKey(std::string_view text, uint32_t variant, uint64_t seed);

  // Of so many buckets, which is not 0.
  uint32_t bucket(uint32_t buckets) const {
    return static_cast<uint32_t>((place_ >> 32) * buckets >> 32);  // as even as a division, and cheaper
  }
  uint32_t tag() const { return tag_; }

  // Computed at the first call: a miss that finds no tag never asks for it. Covers the seed, so that the digests of one
  // table say nothing of another's, and the variant; both have a fixed length, so no two keys have the same input.
  const ShaWords& digest() {
    if (!digested_) Compute();
    return digest_;
  }

 private:
  void Compute();

  std::string_view text_;
  uint64_t seed_ = 0;
  uint64_t place_ = 0;
  uint32_t tag_ = 0;
  uint32_t variant_ = 0;
  bool digested_ = false;
  ShaWords digest_;
};

}  // namespace sutra
