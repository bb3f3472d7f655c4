// Turns outcomes into answers: the vector into the slot, the result descriptor, the counters. The bytes and their order
// are Lane::Publish; waking is left to the caller, once per lane and batch.
//
// Thread-safe (the lane's mutex orders answers of one lane).
#pragma once

#include <span>

#include "engine/lanes/request.h"
#include "shm/base/status.h"
#include "shm/stats/stats_writer.h"

namespace sutra {

// When a computation passed each stage; 0 = not passed.
struct ComputeTimes {
  uint64_t batched_ns = 0;
  uint64_t computed_ns = 0;
  uint64_t tokenised_ns = 0;   // of the text, not of the batch, like the next
  uint64_t tokenising_ns = 0;  // how long that took
};

class ReplyWriter {
 public:
  // `normalizes`: whether a request that asks for neither a normalised nor a raw vector gets a normalised one.
  ReplyWriter(StatsWriter stats, bool normalizes) : stats_(stats), normalizes_(normalizes) {}

  bool WantsUnitLength(uint32_t options) const {
    if ((options & kOptionNormalize) != 0) return true;
    return (options & kOptionRaw) == 0 && normalizes_;
  }

  // An answer without a vector. `retry_after_ms`: the hint of an `overloaded` one. False, and nothing happened, only
  // for the loop thread: a worker has the lane (Lane::Publish).
  bool Refuse(const Waiter& waiter, StatusCode status, uint32_t retry_after_ms = 0) const;

  // The unit vector of the text is already in the waiter's slot (a cache hit). False: as above, but for the vector.
  [[nodiscard]] bool AnswerHit(const Waiter& waiter, float norm, uint32_t token_count, bool truncated) const;

  // `unit` has unit length (or is all zero).
  void AnswerComputed(const Waiter& waiter, std::span<const float> unit, float norm, uint32_t token_count,
                      bool truncated, const ComputeTimes& times) const;

  void Wake(Lane* lane) const;

 private:
  void CountReply(StatusCode status) const;

  const StatsWriter stats_;
  const bool normalizes_;
};

}  // namespace sutra
