// Structures that cross the C ABI: each starts with its size in bytes as its caller's header has it. A caller may be
// older than this library (its structures end earlier) or newer (they go on).
//
// Thread rule: pure functions over the caller's memory.
// Invariants: no byte of a caller's structure at or beyond its size is read or written; a size that no header can have
// is never accepted.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "producer/include/sutra/embed.h"

namespace sutra::client {

// The structures as of version 1: no caller has shorter ones. A later version adds fields behind these and leaves the
// numbers alone.
#define SUTRA_BYTES_UP_TO(type, field) (offsetof(type, field) + sizeof(type::field))
inline constexpr uint32_t kAttachOptionsBytesFirst = SUTRA_BYTES_UP_TO(sutra_attach_options, client_name);
inline constexpr uint32_t kInfoBytesFirst = SUTRA_BYTES_UP_TO(sutra_info, identity);
inline constexpr uint32_t kOptionsBytesFirst = SUTRA_BYTES_UP_TO(sutra_options, tag);
inline constexpr uint32_t kResultBytesFirst = SUTRA_BYTES_UP_TO(sutra_result, stage_ns);
inline constexpr uint32_t kBatchOptionsBytesFirst = SUTRA_BYTES_UP_TO(sutra_batch_options, error_text_bytes);
#undef SUTRA_BYTES_UP_TO
inline constexpr uint32_t kStructBytesMax = 4096;  // a larger number is not a size: the caller left it unset

// RETURNS the size that the caller wrote at `from`, or 0 if it is below bytes_first or above kStructBytesMax.
uint32_t StructBytes(const void* from, uint32_t bytes_first);

enum class StructRead : uint8_t {
  kOk,
  kUnknownSize,
  kUnknownField,  // a newer caller asks for something that this library does not know: refused, not ignored
};

// Reads an options structure into to_bytes at `to`, the library's own. Fields that an older caller lacks become
// zero, and so do all fields if `from` is NULL.
StructRead ReadStruct(const void* from, uint32_t bytes_first, void* to, uint32_t to_bytes);

// Writes a structure of the library, from_bytes at `from`, into the caller's of to_bytes (as StructBytes returned it).
// Its size becomes to_bytes; what the library does not know becomes zero.
void WriteStruct(const void* from, uint32_t from_bytes, void* to, uint32_t to_bytes);

// Where the results of a call go: one structure of the caller, an array of them, or nowhere.
class ResultSink {
 public:
  // For `results`, which lie `stride` bytes apart; NULL = nowhere. RETURNS false if the size or the stride is invalid.
  bool Open(sutra_result* results, size_t stride);
  bool Open(sutra_result* result) { return Open(result, alignof(sutra_result) * kStructBytesMax); }

  // For the `index`th result. REQUIRES Open. RETURNS what to fill, completely, before Put: the caller's own structure
  // if that is the one of this library, as it usually is, else *spare.
  sutra_result* Fill(size_t index, sutra_result* spare) const {
    return in_place_ ? reinterpret_cast<sutra_result*>(first_ + index * stride_) : spare;
  }
  void Put(size_t index, const sutra_result* filled) const {
    if (!in_place_ && first_ != nullptr) Convert(index, *filled);
  }
  // A result without an answer.
  void PutStatus(size_t index, sutra_status status, uint64_t tag) const;

 private:
  void Convert(size_t index, const sutra_result& result) const;

  char* first_ = nullptr;
  size_t stride_ = 0;
  uint32_t bytes_ = 0;
  bool in_place_ = false;
};

}  // namespace sutra::client
