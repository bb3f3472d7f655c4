// The blocking calls: sutra_embed, and sutra_embed_batch, which pipelines any number of texts through the slots.
//
// A batch uses one lane at a time, and returns to choosing one when nothing of it is outstanding. Each pass takes the
// lane's mutex once: it releases what was collected and submits as much as there is room for. A text's deadline counts
// from its submission; a batch that gets no answer for that long is over.
#include <stdlib.h>
#include <string.h>

#include "producer/lane_pool.h"
#include "shm/base/checkpoint.h"

namespace sutra::client {
namespace {

struct Pending {
  size_t text;
  uint64_t sequence;
  uint32_t slot;
};

class Batch {
 public:
  Batch(sutra_client* client, const char* const* texts, const size_t* text_bytes, size_t count, const Request& request,
        float* vectors, const ResultSink& results)
      : client_(client), texts_(texts), text_bytes_(text_bytes), count_(count), request_(request), vectors_(vectors),
        results_(results), width_(request.width != 0 ? request.width : client->info.width) {}

  // `pending` and `collected` have room for capacity entries.
  sutra_status Run(Pending* pending, uint32_t* collected, size_t capacity) {
    pending_ = pending;
    collected_ = collected;
    capacity_ = capacity;
    progress_ns_ = MonotonicNs();
    while (next_ < count_ || pending_count_ > 0 || collected_count_ > 0) {
      if (!LockLane()) continue;
      for (size_t i = 0; i < collected_count_; ++i) ReleaseLocked(lane_, collected_[i]);
      collected_count_ = 0;
      const size_t before = pending_count_;
      if (next_ < count_) SubmitRoomLocked();
      pthread_mutex_unlock(&lane_->mutex);
      if (pending_count_ > before) Ring(lane_);
      if (pending_count_ == 0) lane_ = nullptr;
      else Collect();
    }
    return first_failure_;
  }

 private:
  // RETURNS with the mutex of lane_ held; or false after the texts that are left got their status.
  bool LockLane() {
    if (lane_ != nullptr) {
      pthread_mutex_lock(&lane_->mutex);
      return true;
    }
    sutra_status status = lost_;
    if (lost_ == SUTRA_OK) lane_ = AcquireLaneWaiting(client_, progress_ns_ + request_.timeout_ns, &status);
    if (lane_ != nullptr) return true;
    while (next_ < count_) FinishWithout(next_++, status);
    return false;
  }

  void SubmitRoomLocked() {
    const uint64_t now_ns = MonotonicNs();
    bool stalled = false;
    if (lost_ != SUTRA_OK || lane_->phase.load(std::memory_order_relaxed) != LanePhase::kOpen ||  // under the mutex
        UsableLocked(lane_, now_ns, &stalled) != SUTRA_OK) {
      return;
    }
    while (next_ < count_ && pending_count_ < capacity_ && (lane_->free_count > 0 || ReapLocked(lane_) > 0)) {
      const size_t text = next_++;
      sutra_status status = CheckText(client_, texts_[text], text_bytes_[text]);
      uint32_t slot = 0;
      if (status == SUTRA_OK) {
        status = SubmitLocked(lane_, texts_[text], static_cast<uint32_t>(text_bytes_[text]), request_, now_ns, &slot);
      }
      if (status != SUTRA_OK) {
        FinishWithout(text, status);
        continue;
      }
      // relaxed: written by this thread
      pending_[pending_count_++] = {text, lane_->slots[slot].sequence.load(std::memory_order_relaxed), slot};
    }
  }

  // Waits for the oldest outstanding text, then takes it and what else is done.
  void Collect() {
    const Pending oldest = pending_[0];
    const auto done = [&] { return IsAnswered(lane_, oldest.slot, oldest.sequence); };
    const WaitEnd end = WaitUntil(lane_, lane_->slots[oldest.slot].deadline_ns, client_->spin_ns, done);
    (void)SUTRA_CHECKPOINT("recv.reply_seen");
    const uint64_t now_ns = end == WaitEnd::kTime ? MonotonicNs() : 0;
    if (end == WaitEnd::kDone && request_.timeout_ns < kNsPerSecond * 3600) progress_ns_ = MonotonicNs();
    size_t kept = 0;
    uint32_t misses = 0;
    for (size_t i = 0; i < pending_count_; ++i) {
      const Pending item = pending_[i];
      // Looking at a result that the engine is about to write costs it a cache miss: stop soon after the first gaps.
      const bool look = end != WaitEnd::kDone || misses < 4;
      if (look && i + 2 < pending_count_) {  // the next ones travel while this one is copied
        const ReplyLane& reply = lane_->shared.mapping.reply;
        __builtin_prefetch(&reply.result(pending_[i + 2].slot));
        __builtin_prefetch(reply.vector(pending_[i + 1].slot));
      }
      const sutra_status status = look ? SettleSlot(lane_, item.slot, now_ns) : SUTRA_NOT_READY;
      if (status == SUTRA_NOT_READY) {
        ++misses;
        pending_[kept++] = item;
        continue;
      }
      FinishSlot(item, status);
      collected_[collected_count_++] = item.slot;
    }
    pending_count_ = kept;
    (void)SUTRA_CHECKPOINT("recv.copied");
    // After a death the texts that are left get its status: attaching anew belongs to the caller's next call.
    if (end == WaitEnd::kGone) lost_ = lane_->gone.load(std::memory_order_relaxed);
  }

  void FinishSlot(const Pending& item, sutra_status status) {
    sutra_result result;
    FillResult(lane_, item.slot, status, &result);
    lane_->slots[item.slot].reported.store(1, std::memory_order_relaxed);  // relaxed: only counts
    if (status == SUTRA_OK) {
      const uint32_t width = result.width < width_ ? result.width : width_;
      float* vector = vectors_ + item.text * width_;
      memcpy(vector, result.vector, width * sizeof(float));
      result.vector = vector;
      result.width = width;
    } else if (first_failure_ == SUTRA_OK || item.text < failed_text_) {
      NoteFailure(item.text, status);
    }
    results_.Store(item.text, result);
  }

  void FinishWithout(size_t text, sutra_status status) {
    if (first_failure_ == SUTRA_OK || text < failed_text_) NoteFailure(text, status);
    sutra_result result = {};
    result.status = status;
    result.tag = request_.tag;
    results_.Store(text, result);
  }

  void NoteFailure(size_t text, sutra_status status) {
    first_failure_ = status;
    failed_text_ = text;
  }

  sutra_client* client_;
  const char* const* texts_;
  const size_t* text_bytes_;
  size_t count_;
  Request request_;
  float* vectors_;
  ResultSink results_;
  uint32_t width_;

  Lane* lane_ = nullptr;          // while anything of the batch is outstanding or unreleased in it
  Pending* pending_ = nullptr;    // oldest first
  size_t pending_count_ = 0;
  uint32_t* collected_ = nullptr; // slots to release at the next pass
  size_t collected_count_ = 0;
  size_t capacity_ = 0;
  size_t next_ = 0;               // first text not yet submitted
  size_t failed_text_ = 0;
  uint64_t progress_ns_ = 0;      // last answer
  sutra_status first_failure_ = SUTRA_OK;
  sutra_status lost_ = SUTRA_OK;  // the lane died under the batch
};

}  // namespace
}  // namespace sutra::client

using namespace sutra;          // NOLINT: this file only implements the C functions below
using namespace sutra::client;  // NOLINT

extern "C" sutra_status sutra_embed_batch(sutra_client* client, const char* const* texts, const size_t* text_bytes,
                                          size_t count, const sutra_options* options, float* vectors,
                                          sutra_result* results, size_t result_stride) {
  ResultSink sink;
  if (count > 0 && !sink.Open(results, result_stride)) return FailStruct("sutra_result", StructRead::kUnknownSize);
  Request request = {};
  sutra_status status = CheckClient(client);
  if (status == SUTRA_OK && count > 0 && (texts == nullptr || text_bytes == nullptr || vectors == nullptr)) {
    status = FailNull("texts, text_bytes or vectors");
  }
  if (status == SUTRA_OK) status = CheckRequest(client, options, &request);
  if (status == SUTRA_OK && count == 0) return SUTRA_OK;
  const size_t capacity = status != SUTRA_OK ? 0 : count < client->info.slots ? count : client->info.slots;
  constexpr size_t kOnStack = 16;  // a few texts need no allocation
  Pending pending_small[kOnStack];
  uint32_t collected_small[kOnStack];
  const bool small = capacity <= kOnStack;
  auto* pending = small ? pending_small : static_cast<Pending*>(malloc(capacity * sizeof(Pending)));
  auto* collected = small ? collected_small : static_cast<uint32_t*>(malloc(capacity * sizeof(uint32_t)));
  if (pending == nullptr || collected == nullptr) status = Fail(SUTRA_OUT_OF_MEMORY, "no memory for a batch");
  if (status == SUTRA_OK) {
    status = Batch(client, texts, text_bytes, count, request, vectors, sink).Run(pending, collected, capacity);
  } else {
    sutra_result result = {};
    result.status = status;
    for (size_t i = 0; i < count; ++i) sink.Store(i, result);
  }
  if (!small) {
    free(pending);
    free(collected);
  }
  return status;
}

namespace {

// Everything of sutra_embed but the caller's result.
sutra_status EmbedOne(sutra_client* client, const char* text, size_t text_bytes, const sutra_options* options,
                      float* vector, sutra_result* result) {
  Request request = {};
  sutra_status status = CheckClient(client);
  if (status == SUTRA_OK && vector == nullptr) status = FailNull("vector");
  if (status == SUTRA_OK) status = CheckRequest(client, options, &request);
  if (status == SUTRA_OK) status = CheckText(client, text, text_bytes);
  if (status != SUTRA_OK) return status;
  const uint64_t now_ns = MonotonicNs();
  Lane* lane = AcquireLaneWaiting(client, now_ns + request.timeout_ns, &status);
  if (lane == nullptr) return status;
  uint32_t slot = 0;
  status = SubmitLocked(lane, text, static_cast<uint32_t>(text_bytes), request, now_ns, &slot);
  pthread_mutex_unlock(&lane->mutex);
  if (status != SUTRA_OK) return status;
  Ring(lane);
  status = WaitSlot(client, lane, slot, UINT64_MAX);
  if (status == SUTRA_NOT_READY) status = SUTRA_MODEL_ERROR;  // a broken engine took its answer back
  FillResult(lane, slot, status, result);
  if (status == SUTRA_OK) {
    const uint32_t width = request.width != 0 && request.width < result->width ? request.width : result->width;
    memcpy(vector, result->vector, width * sizeof(float));
    result->vector = vector;
    result->width = width;
  }
  (void)SUTRA_CHECKPOINT("recv.copied");
  pthread_mutex_lock(&lane->mutex);
  ReleaseLocked(lane, slot);
  pthread_mutex_unlock(&lane->mutex);
  return status;
}

}  // namespace

extern "C" sutra_status sutra_embed(sutra_client* client, const char* text, size_t text_bytes,
                                    const sutra_options* options, float* vector, sutra_result* result) {
  ResultSink sink;
  if (!sink.Open(result)) return FailStruct("sutra_result", StructRead::kUnknownSize);
  sutra_result answer = {};
  answer.status = EmbedOne(client, text, text_bytes, options, vector, &answer);
  sink.Store(0, answer);
  return answer.status;
}
