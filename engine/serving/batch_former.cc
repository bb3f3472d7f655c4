// Take, prune, check, tokenise, fit: each step answers the text or passes it on.
#include "engine/serving/batch_former.h"

#include <poll.h>

#include <algorithm>
#include <cassert>
#include <new>
#include <utility>

#include "engine/lanes/lane.h"
#include "engine/serving/text_cost.h"
#include "shm/base/checkpoint.h"
#include "shm/base/time.h"
#include "shm/base/utf8.h"
#include "shm/base/vector_room.h"
#include "shm/layout.h"

namespace sutra {

const Batch* BatchFormer::Next() {
  while (model_.batcher.WaitForText()) {
    try {
      Form();
    } catch (const std::bad_alloc&) {  // what was taken is served; it gives memory back
      if (batch_.texts.empty()) poll(nullptr, 0, RequestBatcher::kMemoryRetryMs);
    }
    if (!batch_.texts.empty()) return &batch_;
  }
  return nullptr;
}

void BatchFormer::Served(uint64_t ns) {
  model_.batcher.CountServed(batch_.cost, ns);
  long_ = full_ && ns > kLongNs;
  batch_.texts.clear();  // they keep their clients, which may be gone before there is another batch
}

void BatchFormer::Form() {
  const RequestBatcher::Limits& limits = model_.batcher.limits();
  batch_.texts.clear();
  batch_.ids.clear();
  batch_.cost = spent_ = 0;
  now_ns_ = MonotonicNs();
  batch_.offsets.assign(1, 0);
  brief_ = !brief_ && long_ && model_.batcher.NewcomerIsNext(arrivals_before_, now_ns_);
  full_ = long_ = false;
  const uint64_t full = std::min<uint64_t>(limits.tokens_max, backend_.round_tokens());
  const uint64_t budget = brief_ ? std::max<uint64_t>(full / kBriefPart, 1) : full;
  // Texts that are dropped count too: a batch does not wait for a queue full of them.
  for (uint32_t count = 0; count < limits.texts_max && spent_ < budget && TakeOne(budget);) ++count;
  full_ |= spent_ >= budget;
  if (full_) model_.batcher.WakeAnother();
  arrivals_before_ = model_.batcher.arrivals();
  assert(batch_.cost <= limits.tokens_max || batch_.texts.size() == 1);
  static_cast<void>(SUTRA_CHECKPOINT("batch.formed"));
}

// False when the batch is complete: nothing is queued, or the next text does not fit.
bool BatchFormer::TakeOne(uint64_t budget) {
  MakeRoomForOne(&batch_.texts);
  MakeRoomForOne(&batch_.offsets);
  TakenText taken;
  // A brief batch is for the newcomer: a large text that was put back may take all of it. Any other batch may open with
  // such a text, perhaps another worker's; there it fits, so it is put back only once.
  const bool put_back_too = !brief_ && spent_ == 0;
  if (!model_.batcher.Take(now_ns_, put_back_too, &taken)) return false;
  Computation& computation = *taken.computation;
  const size_t waiters = WaitersLeft(taken.computation);
  if (waiters == 0) {
    // The least that a text costs, and not nothing: a client that cancels what it submits would always be next.
    model_.batcher.Settle(taken, 1);
    computation.DropText();
    return true;
  }
  const size_t ids_before = batch_.ids.size();
  const bool valid = TokeniseInMemory(taken.computation);
  const uint32_t cost = TextCost(computation.text.size(), computation.token_count, waiters);
  if (valid && spent_ > 0 && spent_ + cost > budget) {
    PutBack(std::move(taken), ids_before);
    full_ = true;
    return false;
  }
  model_.batcher.Settle(taken, cost);
  spent_ += cost;
  if (!valid) {
    computation.DropText();
    batch_.ids.resize(ids_before);
    return true;
  }
  batch_.cost += cost;
  batch_.offsets.push_back(static_cast<int32_t>(batch_.ids.size()));
  batch_.texts.push_back(std::move(taken.computation));
  return true;
}

// Removes waiters that are gone: answers cancelled and late ones, drops those whose lane is closed.
size_t BatchFormer::WaitersLeft(const ComputationPtr& computation) {
  const uint64_t now_ns = now_ns_;
  const auto gone = [now_ns](const Waiter& waiter) {
    return !waiter.lane->open() || waiter.deadline_ns <= now_ns || waiter.lane->Cancelled(waiter.slot, waiter.sequence);
  };
  removed_.clear();
  size_t left = 1;
  try {
    left = model_.in_flight.Prune(computation, gone, &removed_);
  } catch (const std::bad_alloc&) {
    return 1;  // computed for nothing, perhaps
  }
  for (const Waiter& waiter : removed_) {
    Refuse(waiter, waiter.deadline_ns <= now_ns ? StatusCode::kDeadlineExceeded : StatusCode::kCancelled);
  }
  removed_.clear();
  return left;
}

bool BatchFormer::TokeniseInMemory(const ComputationPtr& computation) {
  try {
    return Tokenise(computation);
  } catch (const std::bad_alloc&) {
    model_.stats.Add(Counter::kOutOfMemory);
    return EndWith(computation, StatusCode::kOutOfMemory);
  }
}

// Appends its ids to the batch's. False when the text has ended instead.
bool BatchFormer::Tokenise(const ComputationPtr& computation) {
  std::vector<int32_t>& ids = batch_.ids;
  if (!computation->ids.empty()) {  // it was put back
    ids.insert(ids.end(), computation->ids.begin(), computation->ids.end());
    std::vector<int32_t>().swap(computation->ids);
    return true;
  }
  const uint64_t started_ns = MonotonicNs();
  if (!IsValidUtf8(computation->text)) return EndWith(computation, StatusCode::kInvalidUtf8);
  const Encoded encoded = model_.tokenizer.Encode(computation->text, model_.info.tokens_max, &ids);
  computation->token_count = encoded.token_count;
  computation->tokenised_ns = MonotonicNs();
  computation->tokenising_ns = computation->tokenised_ns - started_ns;
  now_ns_ = computation->tokenised_ns;
  model_.stats.Record(Histogram::kStageTokenise, computation->tokenising_ns);
  if (encoded.token_count == 0) return EndWith(computation, StatusCode::kEmptyText);
  return !encoded.truncated || RefuseTruncation(computation);
}

void BatchFormer::Refuse(const Waiter& waiter, StatusCode code) {
  model_.replies.Refuse(waiter, code);
  model_.replies.Wake(waiter.lane.get());  // at once, because there may be no further batch
}

// Returns false, for short.
bool BatchFormer::EndWith(const ComputationPtr& computation, StatusCode code) {
  for (const Waiter& waiter : model_.in_flight.Finish(computation)) Refuse(waiter, code);
  return false;
}

// Answers those that refuse a truncated text; false when no other is left.
bool BatchFormer::RefuseTruncation(const ComputationPtr& computation) {
  removed_.clear();
  const bool wanted = model_.in_flight.Truncate(computation, &removed_);
  for (const Waiter& waiter : removed_) Refuse(waiter, StatusCode::kTextTooLong);
  removed_.clear();
  return wanted;
}

void BatchFormer::PutBack(TakenText taken, size_t ids_before) {
  const auto first = batch_.ids.begin() + static_cast<std::ptrdiff_t>(ids_before);
  try {
    taken.computation->ids.assign(first, batch_.ids.end());
  } catch (const std::bad_alloc&) {  // it is tokenised again
    taken.computation->ids.clear();
  }
  batch_.ids.resize(ids_before);
  model_.batcher.PutBack(std::move(taken));
}

}  // namespace sutra
