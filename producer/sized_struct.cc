#include "producer/sized_struct.h"

#include <assert.h>
#include <string.h>

#include "producer/thread_state.h"

namespace sutra::client {

uint32_t StructBytes(const void* from, uint32_t bytes_first) {
  uint32_t bytes;
  memcpy(&bytes, from, sizeof(bytes));
  return bytes >= bytes_first && bytes <= kStructBytesMax ? bytes : 0;
}

StructRead ReadStruct(const void* from, uint32_t bytes_first, void* to, uint32_t to_bytes) {
  memset(to, 0, to_bytes);
  if (from == nullptr) return StructRead::kOk;
  const uint32_t bytes = StructBytes(from, bytes_first);
  if (bytes == 0) return StructRead::kUnknownSize;
  memcpy(to, from, bytes < to_bytes ? bytes : to_bytes);
  const auto* tail = static_cast<const unsigned char*>(from);
  for (uint32_t i = to_bytes; i < bytes; ++i) {
    if (tail[i] != 0) return StructRead::kUnknownField;
  }
  return StructRead::kOk;
}

void WriteStruct(const void* from, uint32_t from_bytes, void* to, uint32_t to_bytes) {
  assert(to_bytes >= sizeof(uint32_t) && to_bytes <= kStructBytesMax);
  memcpy(to, from, from_bytes < to_bytes ? from_bytes : to_bytes);
  memcpy(to, &to_bytes, sizeof(to_bytes));
  if (to_bytes > from_bytes) memset(static_cast<char*>(to) + from_bytes, 0, to_bytes - from_bytes);
}

bool ResultSink::Open(sutra_result* results, size_t stride) {
  if (results == nullptr) return true;
  bytes_ = StructBytes(results, kResultBytesFirst);
  first_ = reinterpret_cast<char*>(results);
  stride_ = stride;
  in_place_ = bytes_ == sizeof(sutra_result) && reinterpret_cast<uintptr_t>(results) % alignof(sutra_result) == 0 &&
              stride % alignof(sutra_result) == 0;
  return bytes_ != 0 && stride_ >= bytes_;
}

void ResultSink::PutStatus(size_t index, sutra_status status, uint64_t tag) const {
  sutra_result spare;
  sutra_result* result = Fill(index, &spare);
  *result = {};
  result->size = sizeof(*result);
  result->status = status;
  result->reason = status == SUTRA_ENGINE_GONE ? CurrentThread().reason : SUTRA_REASON_NONE;
  result->tag = tag;
  Put(index, result);
}

void ResultSink::Convert(size_t index, const sutra_result& result) const {
  WriteStruct(&result, sizeof(result), first_ + index * stride_, bytes_);
}

}  // namespace sutra::client
