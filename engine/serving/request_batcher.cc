// The workers compute the order; the loop only stages texts, at the cost of one queue operation per turn.
#include "engine/serving/request_batcher.h"

#include <poll.h>

#include <cassert>
#include <new>
#include <utility>

#include "shm/base/cpu_pause.h"
#include "shm/base/time.h"
#include "shm/base/vector_room.h"

namespace sutra {
RequestBatcher::RequestBatcher(const Limits& limits)
    : limits_(limits), bounds_(limits.queue_texts_max, limits.queue_bytes_max, limits.workers) {
  assert(limits.tokens_max > 0 && limits.texts_max > 0 && limits.workers <= kWorkersMax);
  arrivals_.reserve(kArrivalsMax);
  put_back_.reserve(kWorkersMax);
}

void RequestBatcher::ReserveOne(Producer producer) { MakeRoomForOne(&staged_[producer]); }

void RequestBatcher::Add(const ComputationPtr& computation, const QueuePlace& place, bool again, Producer producer) {
  if (!again) Charge(computation->client.get(), computation->text.size(), computation->cost_estimate);
  ReserveOne(producer);
  staged_[producer].push_back({computation, place});
}

bool RequestBatcher::Flush(Producer producer) {
  if (staged_[producer].empty()) return true;
  if (!queue_.PushAll(&staged_[producer])) return false;
  gate_.Notify();
  return true;
}

void RequestBatcher::Stop() {
  stopped_.store(true, std::memory_order_seq_cst);
  gate_.NotifyAll();
}

// Moves arrivals into the order. Out of memory it throws; what could not be admitted is the first to be next time.
void RequestBatcher::AdmitArrivalsLocked() {
  do {
    for (; admitted_ < arrivals_.size(); ++admitted_) {
      order_.Add(arrivals_[admitted_].place, &arrivals_[admitted_].computation);
    }
    arrivals_.clear();
    admitted_ = 0;
  } while (queue_.PopSome(&arrivals_, kArrivalsMax) != 0);
}

bool RequestBatcher::Take(uint64_t now_ns, bool put_back_too, TakenText* taken) {
  const MutexLock lock(mutex_);
  AdmitArrivalsLocked();
  if (!put_back_too || put_back_.empty()) return order_.Take(now_ns, taken);
  *taken = std::move(put_back_.front());
  put_back_.erase(put_back_.begin());
  return true;
}

void RequestBatcher::Settle(const TakenText& taken, uint32_t cost) {
  const Computation& computation = *taken.computation;
  bounds_.Remove(computation.client.get(), computation.text.size(), computation.cost_estimate);
  const MutexLock lock(mutex_);
  order_.Correct(taken, cost);
}

void RequestBatcher::PutBack(TakenText taken) {
  const MutexLock lock(mutex_);
  assert(put_back_.size() < kWorkersMax);
  put_back_.push_back(std::move(taken));
}

uint64_t RequestBatcher::arrivals() {
  const MutexLock lock(mutex_);
  return order_.arrivals();
}

bool RequestBatcher::NewcomerIsNext(uint64_t arrivals_before, uint64_t now_ns) {
  const MutexLock lock(mutex_);
  AdmitArrivalsLocked();
  return order_.HeadArrivedSince(arrivals_before, now_ns);
}

bool RequestBatcher::HasText() {
  const MutexLock lock(mutex_);
  AdmitArrivalsLocked();
  return !put_back_.empty() || order_.HasText();
}

bool RequestBatcher::WaitForText() {
  const uint64_t spin_ns = uint64_t{limits_.spin_us} * 1000;
  uint64_t spin_until_ns = MonotonicNs() + spin_ns;
  while (!stopped_.load(std::memory_order_seq_cst)) {
    uint32_t epoch = 0;
    bool announced = false;
    try {
      // The count is raised before the text is visible; a text seen late costs one more round.
      if (queued_texts() != 0 && HasText()) return true;
      if (MonotonicNs() < spin_until_ns) {
        CpuPause();
        continue;
      }
      // Announced as asleep, the worker checks once more both conditions that Notify reports (wake_gate.h says why).
      epoch = gate_.Prepare();
      announced = true;
      if (stopped_.load(std::memory_order_seq_cst) || HasText()) {
        gate_.Cancel();
        continue;
      }
    } catch (const std::bad_alloc&) {
      if (announced) gate_.Cancel();
      poll(nullptr, 0, kMemoryRetryMs);
      continue;
    }
    gate_.Sleep(epoch);
    spin_until_ns = MonotonicNs() + spin_ns;
  }
  return false;
}

}  // namespace sutra
