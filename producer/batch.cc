#include "producer/batch.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "producer/hot_lookup.h"
#include "producer/lane_pool.h"
#include "producer/lane_wait.h"
#include "producer/request_check.h"
#include "producer/slot_end.h"
#include "producer/thread_state.h"
#include "producer/ticket.h"
#include "shm/base/checkpoint.h"

namespace sutra::client {
namespace {

struct Pending {
  size_t text;
  uint32_t slot;
};

uint32_t WidthOf(const sutra_client* client, const Request& request) {
  return request.width != 0 ? request.width : client->info.width;
}

// A batch uses one lane at a time, and returns to choosing one when nothing of it is outstanding. Each pass takes the
// lane's mutex once: it releases what was collected and submits a chunk, so that the engine has work before all of it
// is written, and few slots go round where the engine answers at once. A chunk is one text where answers come at once,
// and grows while they do not: always 64 of them cost a tenth of the cached texts per second between cores that share
// no cache, one at a time a doorbell each before a sleeping engine is awake. It waits only where it can submit nothing.
// A text's deadline counts from its submission; a batch that gets no answer for that long is over. What waits in a lane
// whose engine is gone goes on at the next one, and the batch waits for it.
class Batch {
 public:
  // `pending` and `collected` have room for capacity entries.
  Batch(sutra_client* client, const BatchCall& call, Pending* pending, uint32_t* collected, size_t capacity)
      : client_(client),
        call_(call),
        watch_(client, call.limits, call.request.cancel_epoch, call.count),
        width_(WidthOf(client, call.request)),
        pending_(pending),
        collected_(collected),
        capacity_(capacity) {}

  sutra_status Run() {
    answered_ns_ = CycleNs();
    while (next_ < call_.count || pending_count_ > 0) {
      if (halt_ == SUTRA_OK) Halt(watch_.Look(next_ - pending_count_));
      if (halt_ != SUTRA_OK) {
        EndRest();
        break;
      }
      if (!LockLane()) continue;
      const bool submitted = ReleaseAndSubmitLocked();
      const bool more = next_ < call_.count && pending_count_ < capacity_ && lane_->free_count > 0;
      if (submitted) {
        UnlockAndRing(lane_);
      } else {
        lane_->mutex.Unlock();
      }
      if (pending_count_ > 0) {
        Collect(more && submitted);
      } else {
        lane_ = nullptr;
      }
    }
    ReleaseCollected();
    assert(next_ == call_.count && pending_count_ == 0 && collected_count_ == 0);
    watch_.End();
    return first_failure_ == SUTRA_OK ? SUTRA_OK : Fail(first_failure_, "text %zu: %s", failed_text_, failed_why_);
  }

 private:
  // RETURNS true with the mutex of lane_ held, or false: the loop looks around, or is to end.
  bool LockLane() SUTRA_TRY_ACQUIRE(true, lane_->mutex) {
    if (lane_ != nullptr) {
      lane_->mutex.Lock();
      return true;
    }
    const uint64_t last_ns = answered_ns_ + call_.request.timeout_ns;
    const uint64_t look_ns = watch_.next_ns();
    sutra_status status = SUTRA_OK;
    const LaneWish wish = {NextBytes(), call_.request.fail_fast, call_.request.cancel_epoch};
    if (AcquireLaneWaiting(client_, look_ns < last_ns ? look_ns : last_ns, wish, &lane_, &status)) return true;
    if (look_ns >= last_ns || MonotonicNs() < look_ns) Halt(status);  // else it only waited until the next look
    return false;
  }

  // All texts that are left end with `status`, for the cause that this thread's error text says.
  void Halt(sutra_status status) {
    halt_ = status;
    if (status == SUTRA_OK) return;
    const ThreadState& thread = CurrentThread();
    halt_reason_ = status == SUTRA_ENGINE_GONE ? thread.reason : SUTRA_REASON_NONE;
    snprintf(halt_why_, sizeof(halt_why_), "%s", thread.error_text);
  }
  sutra_status FailHalted() const {
    return halt_ == SUTRA_ENGINE_GONE ? FailGone(halt_reason_, "%s", halt_why_) : Fail(halt_, "%s", halt_why_);
  }

  void EndRest() {
    for (size_t i = 0; i < pending_count_; ++i) {
      const Pending item = pending_[i];
      if (SettleSlot(lane_, item.slot, 0) == SUTRA_NOT_READY) {
        EndSlot(lane_, item.slot, halt_ | halt_reason_ << kEndedReasonShift);
      }
      FinishSlot(item, true);
    }
    pending_count_ = 0;
    while (next_ < call_.count) FinishWithout(next_++, FailHalted());
  }

  void ReleaseCollectedLocked() SUTRA_REQUIRES(lane_->mutex) {
    for (size_t i = 0; i < collected_count_; ++i) ReleaseLocked(lane_, collected_[i]);
    collected_count_ = 0;
  }
  void ReleaseCollected() {
    if (collected_count_ == 0) return;
    const MutexLock lock(lane_->mutex);
    ReleaseCollectedLocked();
  }

  // RETURNS whether anything was submitted.
  bool ReleaseAndSubmitLocked() SUTRA_REQUIRES(lane_->mutex) {
    ReleaseCollectedLocked();
    const size_t before = pending_count_;
    if (next_ < call_.count) SubmitChunkLocked();
    return pending_count_ > before;
  }

  // Of the text that a lane is looked for. Too long a one needs none: it fails when it is checked.
  uint32_t NextBytes() const {
    const size_t bytes = next_ < call_.count ? call_.text_bytes[next_] : 0;
    return bytes <= client_->info.text_bytes_max ? static_cast<uint32_t>(bytes) : 0;
  }

  void SubmitChunkLocked() SUTRA_REQUIRES(lane_->mutex) {
    const uint64_t now_ns = CycleNs();
    bool stalled = false;
    if (UsableLocked(lane_, now_ns, &stalled) != SUTRA_OK) return;
    size_t last = next_ + chunk_ < call_.count ? next_ + chunk_ : call_.count;
    size_t hot = 0;
    while (next_ < last && pending_count_ < capacity_) {
      const size_t text = next_;
      const size_t text_bytes = call_.text_bytes[text];  // read once: what was checked is what is submitted
      sutra_status status = CheckText(client_, call_.texts[text], text_bytes);
      uint32_t slot = 0;
      if (status == SUTRA_OK && FinishHotLocked(text, static_cast<uint32_t>(text_bytes), now_ns)) {
        ++next_;
        if (++hot < kChunkMax && last < call_.count) ++last;  // the engine has no work by it
        continue;
      }
      if (status == SUTRA_OK) {
        // Its own answers make room for it: nothing of the batch goes past a text that waits for it.
        if (!HasRoomLocked(lane_, static_cast<uint32_t>(text_bytes), 0)) return;
        status = SubmitLocked(lane_, call_.texts[text], static_cast<uint32_t>(text_bytes), call_.request, now_ns,
                              SlotPhase::kCall, &slot);
      }
      ++next_;
      if (status != SUTRA_OK) {
        FinishWithout(text, status);
        continue;
      }
      pending_[pending_count_++] = {text, slot};
    }
  }

  // RETURNS whether the text was in the hot table: then it is done.
  bool FinishHotLocked(size_t text, uint32_t text_bytes, uint64_t now_ns) SUTRA_REQUIRES(lane_->mutex) {
    float* const vector = call_.vectors + text * width_;
    HotAnswer answer;
    if (!FindHotLocked(lane_, call_.texts[text], text_bytes, call_.request, vector, &answer)) return false;
    answered_ns_ = answer.found_ns;
    sutra_result spare;
    sutra_result* result = call_.results.Fill(text, &spare);
    FillHotResult(answer, call_.request.tag, now_ns, vector, width_, result);
    call_.error_texts.Put(text, "");
    call_.results.Put(text, result);
    return true;
  }

  // Collects the oldest outstanding text and all others that are done; waits for the oldest unless `more` can be
  // submitted meanwhile.
  void Collect(bool more) {
    const Pending oldest = pending_[0];
    if (more && SettleSlot(lane_, oldest.slot, 0) == SUTRA_NOT_READY) {
      if (chunk_ < kChunkMax) chunk_ *= 2;
      return;
    }
    chunk_ = 1;
    const uint64_t deadline_ns = lane_->slots[oldest.slot].deadline_ns;
    const uint64_t until_ns = watch_.next_ns() < deadline_ns ? watch_.next_ns() : deadline_ns;
    const WaitEnd end = WaitForSlot(lane_, oldest.slot, until_ns, client_->spin_ns);
    (void)SUTRA_CHECKPOINT("recv.reply_seen");
    if (end == WaitEnd::kDone) answered_ns_ = CycleNs();
    CollectDone(end == WaitEnd::kDone, end == WaitEnd::kTime ? MonotonicNs() : 0);
    (void)SUTRA_CHECKPOINT("recv.copied");
  }

  void CollectDone(bool in_order, uint64_t now_ns) {
    size_t kept = 0, i = 0;
    uint32_t misses = 0;
    // Looking at a result that the engine is about to write costs it a cache miss: stop soon after the first gaps.
    for (; i < pending_count_ && !(in_order && misses >= kMissesMax); ++i) {
      const Pending item = pending_[i];
      if (i + 2 < pending_count_) {  // the next ones travel while this one is copied
        const ReplyLane& reply = HomeOf(lane_, item.slot)->connection.mapping.reply;
        __builtin_prefetch(&reply.result(pending_[i + 2].slot));
        __builtin_prefetch(reply.vector(pending_[i + 1].slot));
      }
      if (SettleSlot(lane_, item.slot, now_ns) == SUTRA_NOT_READY) {
        ++misses;
        pending_[kept++] = item;
        continue;
      }
      FinishSlot(item, false);
    }
    if (kept != i) memmove(&pending_[kept], &pending_[i], (pending_count_ - i) * sizeof(Pending));
    pending_count_ -= i - kept;
  }

  // `halted`: the batch is over, which ended what was not answered.
  void FinishSlot(const Pending& item, bool halted) {
    sutra_result spare;
    sutra_result* result = call_.results.Fill(item.text, &spare);
    FillResult(lane_, item.slot, result);
    if (result->status == SUTRA_OK) {
      CopyVector(width_, call_.vectors + item.text * width_, result);
      call_.error_texts.Put(item.text, "");
    } else {
      // With SUTRA_FAIL_FAST the texts that are left end with the engine too.
      const bool last = halt_ == SUTRA_OK && call_.request.fail_fast && EndedWithEngine(lane_, item.slot);
      if (last || call_.error_texts.wanted() || IsFirstFailure(item.text)) {
        if (halted && result->status == halt_) {
          FailHalted();
        } else {
          ExplainEnd(client_, lane_, item.slot, result->status);
        }
      }
      if (last) Halt(result->status);
      NoteFailure(item.text, result->status);
    }
    call_.results.Put(item.text, result);
    assert(collected_count_ < capacity_);
    collected_[collected_count_++] = item.slot;
  }

  // Of a text that never got a slot; the thread's error text says why.
  void FinishWithout(size_t text, sutra_status status) {
    NoteFailure(text, status);
    call_.results.PutStatus(text, status, call_.request.tag);
  }

  bool IsFirstFailure(size_t text) const { return first_failure_ == SUTRA_OK || text < failed_text_; }
  // The thread's error text says why, if anybody wants to know.
  void NoteFailure(size_t text, sutra_status status) {
    const char* why = CurrentThread().error_text;
    call_.error_texts.Put(text, why);
    if (!IsFirstFailure(text)) return;
    first_failure_ = status;
    failed_text_ = text;
    // Kept, since texts behind it may fail later for another cause.
    snprintf(failed_why_, sizeof(failed_why_), "%s", why);
  }

  static constexpr size_t kChunkMax = 64;  // a power of two
  static constexpr uint32_t kMissesMax = 4;

  sutra_client* client_;
  const BatchCall& call_;
  BatchWatch watch_;
  uint32_t width_;

  ClientLane* lane_ = nullptr;  // while anything of the batch is outstanding or unreleased in it
  Pending* pending_;            // oldest first
  size_t pending_count_ = 0;
  uint32_t* collected_;  // slots to release at the next pass
  size_t collected_count_ = 0;
  size_t capacity_;
  size_t chunk_ = 1;  // texts of the next pass
  size_t next_ = 0;   // first text not yet submitted
  size_t failed_text_ = 0;
  char failed_why_[sizeof(ThreadState::error_text)] = {};
  char halt_why_[sizeof(ThreadState::error_text)] = {};
  uint64_t answered_ns_ = 0;  // the last answer
  sutra_status first_failure_ = SUTRA_OK;
  sutra_status halt_ = SUTRA_OK;  // what the texts that are left end with
  sutra_reason halt_reason_ = SUTRA_REASON_NONE;
};

}  // namespace

void ErrorTexts::Put(size_t index, const char* text) const {
  if (first == nullptr) return;
  size_t length = strlen(text);
  if (length >= bytes) length = bytes - 1;
  while (length > 0 && text[length] != '\0' && (text[length] & 0xc0) == 0x80) --length;  // whole characters
  memcpy(first + index * bytes, text, length);
  first[index * bytes + length] = '\0';
}

sutra_status RunOne(sutra_client* client, const char* text, size_t text_bytes, const Request& request, float* vector,
                    const ResultSink& sink) {
  sutra_status status = SUTRA_OK;
  const uint64_t now_ns = CycleNs();
  ClientLane* lane = nullptr;
  const LaneWish wish = {static_cast<uint32_t>(text_bytes), request.fail_fast, request.cancel_epoch};
  if (!AcquireLaneWaiting(client, now_ns + request.timeout_ns, wish, &lane, &status)) {
    sink.PutStatus(0, status, request.tag);
    return status;
  }
  HotAnswer hot;
  if (FindHotLocked(lane, text, static_cast<uint32_t>(text_bytes), request, vector, &hot)) {
    lane->mutex.Unlock();
    sutra_result spare;
    sutra_result* result = sink.Fill(0, &spare);
    FillHotResult(hot, request.tag, now_ns, vector, WidthOf(client, request), result);
    sink.Put(0, result);
    return SUTRA_OK;
  }
  uint32_t slot = 0;
  status = SubmitLocked(lane, text, static_cast<uint32_t>(text_bytes), request, now_ns, SlotPhase::kCall, &slot);
  if (status != SUTRA_OK) {
    lane->mutex.Unlock();
    sink.PutStatus(0, status, request.tag);
    return status;
  }
  UnlockAndRing(lane);
  if (WaitSlot(client, lane, slot, kUntilDeadline) == SUTRA_NOT_READY) {
    // a broken engine took its answer back
    FailUnanswered(client, EndSlot(lane, slot, SUTRA_MODEL_ERROR), SUTRA_REASON_NONE);
  }
  sutra_result spare;
  sutra_result* result = sink.Fill(0, &spare);
  FillResult(lane, slot, result);
  status = result->status;
  if (status == SUTRA_OK) CopyVector(WidthOf(client, request), vector, result);
  sink.Put(0, result);
  (void)SUTRA_CHECKPOINT("recv.copied");
  const MutexLock lock(lane->mutex);
  ReleaseLocked(lane, slot);
  return status;
}

sutra_status RunBatch(sutra_client* client, const BatchCall& call, size_t in_flight_max) {
  const size_t capacity = call.count < in_flight_max ? call.count : in_flight_max;
  constexpr size_t kOnStack = 16;  // a few texts need no allocation
  Pending pending_small[kOnStack];
  uint32_t collected_small[kOnStack];
  if (capacity <= kOnStack) return Batch(client, call, pending_small, collected_small, capacity).Run();
  auto* pending = static_cast<Pending*>(malloc(capacity * sizeof(Pending)));
  auto* collected = static_cast<uint32_t*>(malloc(capacity * sizeof(uint32_t)));
  const sutra_status status = pending != nullptr && collected != nullptr
                                  ? Batch(client, call, pending, collected, capacity).Run()
                                  : FailBatch(call, Fail(SUTRA_OUT_OF_MEMORY, "no memory for a batch"));
  free(pending);
  free(collected);
  return status;
}

sutra_status FailBatch(const BatchCall& call, sutra_status status) {
  for (size_t i = 0; i < call.count; ++i) {
    call.results.PutStatus(i, status, 0);
    call.error_texts.Put(i, CurrentThread().error_text);
  }
  return status;
}

}  // namespace sutra::client
