// Tickets that are done when they are submitted: their vectors came from the hot table, and lie in memory of the
// client's own, one place per slot of the lane, until the ticket is released, whatever engines do meanwhile.
//
// Thread rule: ...Locked functions need the lane's mutex; an answer is read by whoever holds the slot.
// Invariants: a slot with such a ticket is held as any other, and its request has ended (kEndedHot) before the ticket
// is known to anybody; no engine knows of it, so that it is free at its release.
#pragma once

#include <stdint.h>

#include "producer/client_lane.h"
#include "producer/hot_lookup.h"

namespace sutra::client {

class HotTickets {
 public:
  // RETURNS nullptr when out of memory.
  static HotTickets* Make(uint32_t slots, uint32_t width);
  static void Destroy(HotTickets* tickets);

  float* vector(uint32_t slot) { return vectors_ + uint64_t{slot} * stride_floats_; }
  HotAnswer& answer(uint32_t slot) { return entries_[slot].answer; }
  uint32_t width() const { return width_; }

  // A queue of slots for sutra_poll, which no completion ring tells of them; each is in it once at most. A slot that
  // was reported or released meanwhile may still be in it.
  void Push(uint32_t slot);
  bool Pop(uint32_t* slot);

 private:
  struct Entry {
    HotAnswer answer;
    uint16_t queue = 0;  // the queue's ring has its memory here
    bool queued = false;
  };
  HotTickets(uint32_t slots, uint32_t width, float* vectors, Entry* entries)
      : slots_(slots), width_(width), vectors_(vectors), entries_(entries) {
    stride_floats_ = static_cast<uint32_t>(RoundUp(width * sizeof(float), 64) / sizeof(float));
  }

  uint32_t slots_, width_, stride_floats_ = 0;
  float* vectors_;
  Entry* entries_;
  uint32_t queue_first_ = 0, queue_count_ = 0;
};

// If the text is in the hot table: takes a free slot (REQUIRES free_count > 0) for a ticket that is done. RETURNS
// false, and nothing has changed, if it is not.
bool SubmitHotLocked(ClientLane* lane, const char* text, uint32_t text_bytes, const Request& request, uint64_t now_ns,
                     uint32_t* slot) SUTRA_REQUIRES(lane->mutex);

}  // namespace sutra::client
