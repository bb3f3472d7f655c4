// The order is computed by the worker; the loop pays for one queue operation.
#include "engine/serving/long_texts.h"

#include <poll.h>

#include <cassert>
#include <new>
#include <utility>

#include "shm/base/time.h"
#include "shm/base/vector_room.h"

namespace sutra {

LongTexts::LongTexts() {
  handed_.reserve(1);
  arrivals_.reserve(kArrivalsMax);
}

void LongTexts::Add(LongRequestPtr request) {
  assert(request->unread.bytes > kLongTextBytes && handed_.empty());
  count_.fetch_add(1, std::memory_order_relaxed);  // relaxed: the loop is the reader that matters
  handed_.push_back(std::move(request));
  if (!queue_.PushAll(&handed_)) {
    handed_.clear();
    count_.fetch_sub(1, std::memory_order_relaxed);  // relaxed: as above
    throw std::bad_alloc();
  }
  gate_.Notify();
}

// Out of memory it throws, and no request is lost.
LongRequestPtr LongTexts::TryNext() {
  do {
    for (; admitted_ < arrivals_.size(); ++admitted_) {
      const Waiter& first = arrivals_[admitted_]->first;
      ComputationPtr request = arrivals_[admitted_];
      order_.Add({.client = request->client->id, .priority = first.priority, .deadline_ns = first.deadline_ns},
                 &request);
    }
    arrivals_.clear();
    admitted_ = 0;
  } while (queue_.PopSome(&arrivals_, kArrivalsMax) != 0);
  TakenText taken;
  if (!order_.Take(MonotonicNs(), &taken)) return nullptr;
  taken.computation->taken = false;  // it may wait once more, in the batcher's order
  return std::static_pointer_cast<LongRequest>(std::move(taken.computation));
}

LongRequestPtr LongTexts::Next() {
  while (!stopped_.load(std::memory_order_seq_cst)) {
    try {
      if (LongRequestPtr next = TryNext(); next != nullptr) return next;
    } catch (const std::bad_alloc&) {
      poll(nullptr, 0, kMemoryRetryMs);
      continue;
    }
    // Announced as asleep, it looks once more at both that Notify reports (wake_gate.h says why).
    const uint32_t epoch = gate_.Prepare();
    if (stopped_.load(std::memory_order_seq_cst) || queue_.PopSome(&arrivals_, kArrivalsMax) != 0) {
      gate_.Cancel();
      continue;
    }
    gate_.Sleep(epoch);
  }
  return nullptr;
}

void LongTexts::Done() {
  // SYNC E6 (release): what became of the text; meets SYNC E6 (acquire) in size.
  [[maybe_unused]] const size_t before = count_.fetch_sub(1, std::memory_order_release);
  assert(before > 0);
}

void LongTexts::Stop() {
  stopped_.store(true, std::memory_order_seq_cst);
  gate_.Notify();
}

void LongTexts::DropAll() {
  try {
    while (TryNext() != nullptr) Done();
  } catch (const std::bad_alloc&) {  // the queue drops the rest at its own end
  }
}

void LongTexts::ReportUnreadable(const std::shared_ptr<Lane>& lane) {
  const MutexLock lock(mutex_);
  MakeRoomForOne(&unreadable_, 1);
  unreadable_.push_back(lane);
  any_unreadable_.store(true, std::memory_order_release);
}

std::vector<std::shared_ptr<Lane>> LongTexts::Unreadable() {
  if (!any_unreadable_.load(std::memory_order_acquire) || !mutex_.TryLockBriefly()) return {};
  const MutexLock lock(mutex_, MutexLock::Held());
  any_unreadable_.store(false, std::memory_order_relaxed);  // relaxed: changed under the lock
  return std::move(unreadable_);
}

}  // namespace sutra
