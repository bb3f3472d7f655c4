// Orders the texts that wait for the model and hands batches to free workers. Batching is natural: a batch is whatever
// is queued, up to a token budget, without any artificial delay.
//
// Order: class (query, normal, bulk), then fair shares, then arrival. Fair shares are start-time fair queueing by
// client and token: a text's start tag is the later of the batcher's virtual time and its client's last finish tag,
// so a client that queued a thousand texts and one that queued a single text alternate. Aging: a text of a lower
// class that has waited longer than kAgingNs may use up to a quarter of a batch ahead of the higher classes.
//
// The texts handed out are candidates: the batcher does not know whether they still have waiters. The worker prunes
// them outside the batcher's lock and fills the space that this leaves free (TopUp).
//
// Thread rule: Add, Flush and the bound belong to the loop thread; NextBatch and TopUp may be called by several
// workers; Stop by any thread. The loop never takes the mutex. No callback runs and no system call is made under it.
// Invariants: a computation is handed out at most once; a batch has at most `tokens_max` tokens and `texts_max` texts,
// or one text.
#pragma once

#include <atomic>
#include <functional>
#include <unordered_map>
#include <vector>

#include "engine/lanes/request.h"
#include "engine/serving/wake_gate.h"
#include "engine/serving/work_queue.h"
#include "shm/base/mutex.h"

namespace sutra {

class RequestBatcher {
 public:
  struct Limits {
    uint32_t tokens_max = 0;  // per batch, like texts_max
    uint32_t texts_max = 0;
    uint32_t queue_texts_max = 0;
    uint32_t spin_us = 0;  // how long a worker polls before it sleeps
  };
  static constexpr uint64_t kAgingNs = 250'000'000;

  // REQUIRES: every bound but spin_us is at least 1.
  explicit RequestBatcher(const Limits& limits);

  bool full() const { return queued_texts() >= limits_.queue_texts_max; }
  uint64_t queued_texts() const { return queued_texts_.load(std::memory_order_relaxed); }    // only counts
  uint64_t queued_tokens() const { return queued_tokens_.load(std::memory_order_relaxed); }  // only counts

  // Stages a computation; `again` when it was queued before and its class rose. Flush makes staged computations visible
  // to the workers in one step, and wakes one worker if all sleep.
  // Add cannot fail: ReserveOne before it may (std::bad_alloc). What Flush cannot hand over for want of memory, the
  // next Flush does.
  void ReserveOne();
  void Add(const ComputationPtr& computation, PriorityClass priority, bool again);
  void Flush();

  // Waits for work and replaces the contents of `batch` with a batch of it. False, and an empty batch, after Stop.
  bool NextBatch(std::vector<ComputationPtr>* batch);

  // Appends queued texts that fit into the budget along with those already in `batch`; never waits. False when nothing
  // was added. *short_of_memory: texts are queued that could not be ordered or taken; ask again.
  bool TopUp(uint64_t now_ns, std::vector<ComputationPtr>* batch, bool* short_of_memory = nullptr);

  // Makes NextBatch return. Queued texts stay in the queue.
  void Stop();

 private:
  struct Staged {
    ComputationPtr computation;
    PriorityClass priority;
    bool again;
  };
  struct Entry {
    uint64_t start_tag;
    uint64_t arrival;
    ComputationPtr computation;
  };
  struct Later {
    bool operator()(const Entry& a, const Entry& b) const {
      return a.start_tag != b.start_tag ? a.start_tag > b.start_tag : a.arrival > b.arrival;
    }
  };

  static constexpr size_t kArrivalsMax = 1024;
  void AdmitArrivalsLocked() SUTRA_REQUIRES(mutex_);
  void AdmitLocked(Staged* staged) SUTRA_REQUIRES(mutex_);
  void TakeClassesLocked(uint64_t now_ns, std::vector<ComputationPtr>* batch, uint64_t* tokens) SUTRA_REQUIRES(mutex_);
  void TakeLocked(int priority, uint64_t tokens_max, uint64_t aged_before_ns, std::vector<ComputationPtr>* batch,
                  uint64_t* tokens) SUTRA_REQUIRES(mutex_);

  const Limits limits_;
  std::vector<Staged> staged_;  // used by the loop thread only
  WorkQueue<Staged> queue_;
  WakeGate gate_;
  std::atomic<uint64_t> queued_texts_{0};
  std::atomic<uint64_t> queued_tokens_{0};
  std::atomic<bool> stopped_{false};

  Mutex mutex_;  // guards the ordered part, and `taken` of each computation
  std::vector<Staged> arrivals_ SUTRA_GUARDED_BY(mutex_);
  size_t admitted_ SUTRA_GUARDED_BY(mutex_) = 0;  // of arrivals_; the rest could not be, for want of memory
  std::vector<Entry> heaps_[kClassCount] SUTRA_GUARDED_BY(mutex_);
  std::unordered_map<uint64_t, uint64_t> finish_tags_ SUTRA_GUARDED_BY(mutex_);  // by flow
  uint64_t virtual_time_ SUTRA_GUARDED_BY(mutex_) = 0;
  uint64_t arrival_next_ SUTRA_GUARDED_BY(mutex_) = 0;
};

}  // namespace sutra
