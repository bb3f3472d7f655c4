// The order of the stores that a client watches: result before index, reason before state, all before a wake-up.
#include "engine/lanes/lane.h"

#include <unistd.h>

#include <cassert>
#include <utility>

#include "engine/lanes/sigbus_guard.h"
#include "engine/lanes/untrusted_copy.h"
#include "shm/base/checkpoint.h"
#include "shm/sleep_wake.h"

namespace sutra {

Lane::Lane(uint64_t id, ClientPtr client, LaneMemory memory, UniqueFd event_pipe)
    : id_(id),
      client_(std::move(client)),
      memory_(std::move(memory)),
      event_pipe_(std::move(event_pipe)),
      request_(memory_.request()),
      reply_(memory_.reply()),
      submissions_(request_),
      slot_held_(new std::atomic<uint8_t>[request_.geometry.slots]()),
      completions_(reply_) {}

bool Lane::Hold(uint32_t slot) {
  // SYNC E1 (acquire): the answering side is done with the slot's vector; pairs with SYNC E1 (release) in Publish.
  if (slot_held_[slot].load(std::memory_order_acquire) != 0) return false;
  slot_held_[slot].store(1, std::memory_order_relaxed);
  held_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

void Lane::ShowTaken() {
  reply_.engine().taken.store(submissions_.position(), std::memory_order_relaxed);  // for display only
}

void Lane::SetDraining() {
  const MutexLock lock(mutex_);
  if (!open()) return;
  // release: a client that reads it sees every answer given before
  reply_.engine().state.store(kLaneDraining, std::memory_order_release);
}

bool Lane::Cancelled(uint32_t slot, uint64_t sequence) const {
  return UntrustedRequest(request_, memory_.request_fd(), slot).Cancelled(sequence);
}

bool Lane::Publish(uint32_t slot, uint64_t sequence, const Answer& answer) {
  const MutexLock lock(mutex_);
  if (!open()) return false;
  assert(slot_held_[slot].load(std::memory_order_relaxed) == 1);  // relaxed: the caller holds it
  ResultDescriptor& result = reply_.result(slot);
  result.tag = answer.tag;
  result.source = answer.source;
  result.flags = answer.truncated ? uint32_t{kResultTruncated} : 0;
  result.token_count = answer.token_count;
  result.width = answer.status == StatusCode::kOk ? geometry().width : 0;
  result.retry_after_ms = answer.retry_after_ms;
  for (uint32_t stage = 0; stage < kStageCount; ++stage) result.stage_ns[stage] = answer.stage_ns[stage];
  if (SUTRA_CHECKPOINT("reply.written")) return false;
  // SYNC E1 (release): the vector is written; pairs with SYNC E1 (acquire) in Lane::Hold.
  slot_held_[slot].store(0, std::memory_order_release);
  held_.fetch_sub(1, std::memory_order_relaxed);
  completions_.Publish(slot, sequence, answer.status);
  static_cast<void>(SUTRA_CHECKPOINT("reply.index_published"));
  return true;
}

bool Lane::Wake() {
  WakeNeeds needs;
  const auto look = [&] { needs = LookForSleepers(request_); };
  if (!RunGuarded(look) || (!needs.sleepers && !needs.event)) return false;
  const MutexLock lock(mutex_);  // one thread at a time increments the futex word
  if (needs.sleepers) WakeSleepers(reply_);
  // A full pipe is readable already, and behind a closed one no client waits.
  if (needs.event && event_pipe_) {
    const char byte = 1;
    static_cast<void>(!write(event_pipe_.get(), &byte, 1));
  }
  static_cast<void>(SUTRA_CHECKPOINT("reply.wake_sent"));
  return true;
}

void Lane::Close(StatusCode reason) {
  static_cast<void>(SUTRA_CHECKPOINT("lane.closing"));
  {
    const MutexLock lock(mutex_);
    if (!open()) return;
    open_.store(false, std::memory_order_release);
    EngineLine& line = reply_.engine();
    line.close_reason.store(static_cast<uint32_t>(reason), std::memory_order_relaxed);  // ordered by the next store
    line.state.store(kLaneClosed, std::memory_order_release);
    WakeSleepers(reply_);
  }
  static_cast<void>(SUTRA_CHECKPOINT("lane.recycled"));
}

}  // namespace sutra
