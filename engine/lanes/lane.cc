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
namespace {

constinit thread_local char this_thread = 0;  // its address tells threads apart

// Of a word with one writer at a time.
void AddOne(std::atomic<uint32_t>* word, std::memory_order order) {
  word->store(word->load(std::memory_order_relaxed) + 1, order);  // relaxed: nobody else writes it meanwhile
}

}  // namespace

Lane::Lane(uint64_t id, ClientPtr client, LaneMemory memory, UniqueFd event_pipe, bool hot)
    : id_(id),
      client_(std::move(client)),
      memory_(std::move(memory)),
      event_pipe_(std::move(event_pipe)),
      hot_(hot),
      request_(memory_.request()),
      reply_(memory_.reply()),
      submissions_(request_),
      slot_held_(new std::atomic<uint8_t>[request_.geometry.slots]()),
      completions_(reply_) {}

bool Lane::IsOwner() const {
  return owner_.load(std::memory_order_relaxed) == &this_thread;  // relaxed: equal only to what this thread stored
}

bool Lane::Hold(uint32_t slot) {
  // SYNC E1 (acquire): the answering side is done with the slot's vector; pairs with SYNC E1 (release) in WriteAnswer.
  if (slot_held_[slot].load(std::memory_order_acquire) != 0) return false;
  owner_.store(&this_thread, std::memory_order_relaxed);  // relaxed: a worker only finds that it is another's
  slot_held_[slot].store(1, std::memory_order_relaxed);
  AddOne(&taken_, std::memory_order_relaxed);
  return true;
}

uint32_t Lane::held() const {
  // relaxed: only a count
  return taken_.load(std::memory_order_relaxed) - answered_by_loop_.load(std::memory_order_relaxed) -
         answered_by_workers_.load(std::memory_order_relaxed);
}

// For the owner. True: the slot that it is about to answer is the only one that anybody holds.
bool Lane::OnlyHolder() const {
  const uint32_t left = taken_.load(std::memory_order_relaxed) -  // relaxed: its own words
                        answered_by_loop_.load(std::memory_order_relaxed);
  // SYNC E2 (acquire): the workers are done with the completion ring; pairs with SYNC E2 (release) in PublishLocked.
  return left - answered_by_workers_.load(std::memory_order_acquire) == 1;
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

bool Lane::Cancelled(uint32_t slot, uint64_t sequence) const { return IsCancelled(request_, slot, sequence); }

Lane::Published Lane::Publish(uint32_t slot, uint64_t sequence, const Answer& answer) {
  if (!IsOwner()) {
    const MutexLock lock(mutex_);
    return PublishLocked(slot, sequence, answer);
  }
  if (!OnlyHolder()) {
    if (!mutex_.TryLockBriefly()) return Published::kBusy;
    const MutexLock lock(mutex_, MutexLock::Held());
    return PublishLocked(slot, sequence, answer);
  }
  if (!open()) return Published::kClosed;  // only this thread closes it
  if (!WriteAnswer(slot, sequence, answer)) return Published::kClosed;
  AddOne(&answered_by_loop_, std::memory_order_relaxed);  // relaxed: the loop's own
  return Published::kDone;
}

Lane::Published Lane::PublishLocked(uint32_t slot, uint64_t sequence, const Answer& answer) {
  if (!open() || !WriteAnswer(slot, sequence, answer)) return Published::kClosed;
  if (IsOwner()) {
    AddOne(&answered_by_loop_, std::memory_order_relaxed);  // relaxed: the loop's own
  } else {
    // SYNC E2 (release): a loop that sees the count finds the completion ring as we left it; pairs with SYNC E2
    // (acquire) in OnlyHolder.
    AddOne(&answered_by_workers_, std::memory_order_release);
  }
  return Published::kDone;
}

bool Lane::WriteAnswer(uint32_t slot, uint64_t sequence, const Answer& answer) {
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
  completions_.Publish(slot, sequence, answer.status);
  static_cast<void>(SUTRA_CHECKPOINT("reply.index_published"));
  return true;
}

bool Lane::Wake() {
  WakeNeeds needs;
  const auto look = [&] { needs = LookForSleepers(request_); };
  if (!RunGuarded(look) || (!needs.sleepers && !needs.event)) return false;
  if (needs.sleepers) WakeFirstSleepers(reply_, BumpFutexWord(reply_));
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
  uint32_t slept_on;
  {
    const MutexLock lock(mutex_);
    if (!open()) return;
    open_.store(false, std::memory_order_release);
    EngineLine& line = reply_.engine();
    line.close_reason.store(static_cast<uint32_t>(reason), std::memory_order_relaxed);  // ordered by the next store
    line.state.store(kLaneClosed, std::memory_order_release);
    slept_on = BumpFutexWord(reply_);
  }
  WakeFirstSleepers(reply_, slept_on);
  static_cast<void>(SUTRA_CHECKPOINT("lane.recycled"));
}

}  // namespace sutra
