// The workers compute the order; the loop only stages texts, at the cost of one queue operation per turn.
#include "engine/serving/request_batcher.h"

#include <poll.h>

#include <algorithm>
#include <cassert>
#include <new>

#include "shm/base/checkpoint.h"
#include "shm/base/cpu_pause.h"
#include "shm/base/time.h"
#include "shm/base/vector_room.h"

namespace sutra {
namespace {

constexpr int kMemoryRetryMs = 10;

}  // namespace

RequestBatcher::RequestBatcher(const Limits& limits) : limits_(limits) {
  assert(limits.tokens_max > 0 && limits.texts_max > 0 && limits.queue_texts_max > 0);
  arrivals_.reserve(kArrivalsMax);
}

void RequestBatcher::ReserveOne() { MakeRoomForOne(&staged_); }

void RequestBatcher::Add(const ComputationPtr& computation, PriorityClass priority, bool again) {
  if (!again) {
    // relaxed: the counters only bound and display the queue.
    queued_texts_.fetch_add(1, std::memory_order_relaxed);
    queued_tokens_.fetch_add(computation->token_count(), std::memory_order_relaxed);
  }
  ReserveOne();
  staged_.push_back({computation, priority, again});
}

void RequestBatcher::Flush() {
  if (staged_.empty()) return;
  if (queue_.PushAll(&staged_)) gate_.Notify();
}

void RequestBatcher::Stop() {
  stopped_.store(true, std::memory_order_seq_cst);
  gate_.Notify();
}

// Moves arrivals into the ordered heaps, with the tags that decide their turn. Out of memory it throws; what could not
// be admitted is the first to be next time.
void RequestBatcher::AdmitArrivalsLocked() {
  do {
    for (; admitted_ < arrivals_.size(); ++admitted_) AdmitLocked(&arrivals_[admitted_]);
    arrivals_.clear();
    admitted_ = 0;
  } while (queue_.PopSome(&arrivals_, kArrivalsMax) != 0);
  // A flow whose last finish is in the past has no debt: forgetting it changes nothing.
  if (finish_tags_.size() > 1024) {
    std::erase_if(finish_tags_, [now = virtual_time_](const auto& flow) { return flow.second <= now; });
  }
}

void RequestBatcher::AdmitLocked(Staged* staged) {
  Computation& computation = *staged->computation;
  if (computation.taken) return;  // was queued again when its class rose, and has been served meanwhile
  std::vector<Entry>& heap = heaps_[staged->priority];
  MakeRoomForOne(&heap);
  uint64_t& finish = finish_tags_[computation.client->id];
  const uint64_t start = std::max(virtual_time_, finish);
  // A text that is queued again has been charged already.
  if (!staged->again) finish = start + computation.token_count();
  heap.push_back({staged->again ? virtual_time_ : start, arrival_next_++, std::move(staged->computation)});
  std::push_heap(heap.begin(), heap.end(), Later());
}

// Takes from the head of one class until a limit is reached; `aged_before_ns` stops it at the first younger text.
void RequestBatcher::TakeLocked(int priority, uint64_t tokens_max, uint64_t aged_before_ns,
                                std::vector<ComputationPtr>* batch, uint64_t* tokens) {
  std::vector<Entry>& heap = heaps_[priority];
  while (!heap.empty() && batch->size() < limits_.texts_max) {
    const Entry& head = heap.front();
    const uint64_t head_tokens = head.computation->token_count();
    if (!head.computation->taken) {
      if (head.computation->queued_ns >= aged_before_ns) return;
      if (!batch->empty() && *tokens + head_tokens > tokens_max) return;
    }
    MakeRoomForOne(batch);
    std::pop_heap(heap.begin(), heap.end(), Later());
    Entry entry = std::move(heap.back());
    heap.pop_back();
    if (entry.computation->taken) continue;
    entry.computation->taken = true;
    virtual_time_ = std::max(virtual_time_, entry.start_tag);
    queued_texts_.fetch_sub(1, std::memory_order_relaxed);
    queued_tokens_.fetch_sub(head_tokens, std::memory_order_relaxed);
    *tokens += head_tokens;
    batch->push_back(std::move(entry.computation));
  }
}

void RequestBatcher::TakeClassesLocked(uint64_t now_ns, std::vector<ComputationPtr>* batch, uint64_t* tokens) {
  if (now_ns > kAgingNs) {
    const uint64_t aged_before_ns = now_ns - kAgingNs;
    for (int priority = kClassBulk; priority > kClassQuery; --priority) {
      TakeLocked(priority, limits_.tokens_max / 4, aged_before_ns, batch, tokens);
    }
  }
  for (int priority = kClassQuery; priority < kClassCount; ++priority) {
    TakeLocked(priority, limits_.tokens_max, UINT64_MAX, batch, tokens);
  }
}

bool RequestBatcher::TopUp(uint64_t now_ns, std::vector<ComputationPtr>* batch, bool* short_of_memory) {
  const size_t texts_before = batch->size();
  uint64_t tokens = 0;
  for (const ComputationPtr& computation : *batch) tokens += computation->token_count();
  MutexLock lock(mutex_);
  try {
    AdmitArrivalsLocked();
    TakeClassesLocked(now_ns, batch, &tokens);
  } catch (const std::bad_alloc&) {  // what was taken is served; it gives memory back
    if (short_of_memory != nullptr) *short_of_memory = true;
  }
  lock.Unlock();
  assert(tokens <= limits_.tokens_max || batch->size() == 1);
  assert(batch->size() <= std::max<size_t>(limits_.texts_max, texts_before));
  if (SUTRA_CHECKPOINT("batch.formed")) batch->resize(texts_before);
  return batch->size() > texts_before;
}

bool RequestBatcher::NextBatch(std::vector<ComputationPtr>* batch) {
  batch->clear();
  uint64_t spin_until_ns = MonotonicNs() + uint64_t{limits_.spin_us} * 1000;
  while (!stopped_.load(std::memory_order_seq_cst)) {
    // The counter is incremented before the text is visible; a text seen late costs one more round.
    if (queued_texts() != 0 && TopUp(MonotonicNs(), batch)) return true;
    if (MonotonicNs() < spin_until_ns) {
      CpuPause();
      continue;
    }
    // Announced as asleep, the worker checks once more both conditions that Notify reports (wake_gate.h says why).
    const uint32_t epoch = gate_.Prepare();
    if (stopped_.load(std::memory_order_seq_cst)) {
      gate_.Cancel();
      break;
    }
    bool short_of_memory = false;
    if (TopUp(MonotonicNs(), batch, &short_of_memory)) {
      gate_.Cancel();
      return true;
    }
    if (short_of_memory) {
      gate_.Cancel();
      poll(nullptr, 0, kMemoryRetryMs);  // nobody announces that there is memory again
      continue;
    }
    gate_.Sleep(epoch);
    spin_until_ns = MonotonicNs() + uint64_t{limits_.spin_us} * 1000;
  }
  return false;
}

}  // namespace sutra
