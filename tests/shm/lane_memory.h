// A lane in plain memory, both sides through one mapping, as TSan needs it to see races.
#pragma once

#include <cstdlib>
#include <cstring>

#include "shm/layout.h"

namespace sutra::test {

class PlainLane {
 public:
  explicit PlainLane(uint32_t slots, uint32_t width = 4, uint32_t text_bytes_max = kTextHeadBytes) {
    geometry = {slots, text_bytes_max, width};
    request.geometry = reply.geometry = geometry;
    request.base = Zeroed(geometry.request_bytes());
    reply.base = Zeroed(geometry.reply_bytes());
  }
  ~PlainLane() {
    std::free(request.base);
    std::free(reply.base);
  }
  PlainLane(const PlainLane&) = delete;
  PlainLane& operator=(const PlainLane&) = delete;

  LaneGeometry geometry;
  RequestLane request;
  ReplyLane reply;

 private:
  static std::byte* Zeroed(uint64_t bytes) {
    void* memory = std::aligned_alloc(kPageBytes, RoundUp(bytes, kPageBytes));
    std::memset(memory, 0, bytes);
    return static_cast<std::byte*>(memory);
  }
};

}  // namespace sutra::test
