// The texts that wait for the model, from the loop to the workers: bounded (QueueBounds), in fair order (FairOrder),
// handed out one at a time. Batching is natural: a worker takes whatever is queued, up to its token budget
// (BatchFormer), without any artificial delay.
//
// The texts handed out are candidates: the batcher does not know whether they still have waiters, nor what they cost
// before they are tokenised. The worker finds out, and settles each text that it takes: then it no longer waits, and
// its client is charged what it costs. A text that does not fit into the batch is put back and is the first of the
// next one.
//
// Thread rule: ReserveOne, Add and Flush belong to a producer's thread each; Admits and Charge to the loop thread;
// Uncharge and RetryAfterMs to the producers; WaitForText, Take, Settle, PutBack,
// WakeAnother, arrivals, NewcomerIsNext and CountServed to the workers, of which there may be several; Stop and the
// counts to any thread. The loop never takes the mutex. No callback runs and no system call is made under it.
// Invariants: a computation is handed out at most once, unless it is put back; a text counts as queued until it is
// settled; nothing queued is lost by a lack of memory or by Stop.
#pragma once

#include <atomic>
#include <vector>

#include "engine/serving/fair_order.h"
#include "engine/serving/queue_bounds.h"
#include "engine/serving/wake_gate.h"
#include "engine/serving/work_queue.h"
#include "shm/base/mutex.h"

namespace sutra {

class RequestBatcher {
 public:
  // Threads that stage computations.
  enum Producer : uint8_t { kLoop, kLongTexts, kProducers };

  static constexpr uint32_t kWorkersMax = 64;
  static constexpr int kMemoryRetryMs = 10;  // nobody announces that there is memory again

  struct Limits {
    uint32_t tokens_max = 0;  // per batch, like texts_max
    uint32_t texts_max = 0;
    uint32_t queue_texts_max = 0;
    uint64_t queue_bytes_max = 0;
    uint32_t spin_us = 0;  // how long a worker polls before it sleeps
    uint32_t workers = 1;  // at most kWorkersMax
  };

  // REQUIRES: every bound but spin_us is at least 1.
  explicit RequestBatcher(const Limits& limits);

  const Limits& limits() const { return limits_; }
  uint64_t queued_texts() const { return bounds_.texts(); }
  uint64_t queued_bytes() const { return bounds_.bytes(); }
  uint64_t queued_cost() const { return bounds_.cost(); }

  // Whether a text of this client may wait, and if not, when to try again.
  bool Admits(const Client& client, size_t text_bytes) const { return bounds_.Admits(client, text_bytes); }
  uint32_t RetryAfterMs() const { return bounds_.RetryAfterMs(); }
  // A text waits for the model from here on, although it is not staged yet; or waits no longer, and never was staged.
  void Charge(Client* client, size_t text_bytes, uint32_t cost) { bounds_.Add(client, text_bytes, cost); }
  void Uncharge(Client* client, size_t text_bytes, uint32_t cost) { bounds_.Remove(client, text_bytes, cost); }

  // Stages a computation. `again`: it counts as waiting already, because it was charged, or because it is queued and a
  // request that joined it wants it here too; whichever place comes first is charged in the order. Flush makes the
  // computations that this producer staged visible to the workers in one step, and wakes one worker that sleeps.
  // Add cannot fail: ReserveOne before it may (std::bad_alloc). What Flush cannot hand over for want of memory (false),
  // the next Flush does.
  void ReserveOne(Producer producer = kLoop);
  void Add(const ComputationPtr& computation, const QueuePlace& place, bool again, Producer producer = kLoop);
  bool Flush(Producer producer = kLoop);

  // Waits until a text can be taken. False after Stop. Several workers may see the same text.
  bool WaitForText();
  // The next text: the first that was put back, unless `put_back_too` is false, else the next in order. False when
  // there is none. Out of memory it throws std::bad_alloc and has taken nothing.
  bool Take(uint64_t now_ns, bool put_back_too, TakenText* taken);
  void Settle(const TakenText& taken, uint32_t cost);
  void PutBack(TakenText taken);
  // Texts are left for another worker. (One is woken at a time: all at once would find one text, and cost the loop.)
  void WakeAnother() { gate_.Notify(); }

  // A mark of time for NewcomerIsNext: whether the next in order belongs to a client that had nothing queued at that
  // mark, or is a query that arrived since.
  uint64_t arrivals();
  bool NewcomerIsNext(uint64_t arrivals_before, uint64_t now_ns);

  // A batch of this cost took this time: the measure of RetryAfterMs.
  void CountServed(uint64_t cost, uint64_t ns) { bounds_.CountServed(cost, ns); }

  // Makes WaitForText return. Queued texts stay in the queue.
  void Stop();

 private:
  struct Staged {
    ComputationPtr computation;
    QueuePlace place;
  };

  static constexpr size_t kArrivalsMax = 1024;  // moved into the order at a time
  bool HasText();
  void AdmitArrivalsLocked() SUTRA_REQUIRES(mutex_);

  const Limits limits_;
  std::vector<Staged> staged_[kProducers];  // each is its producer's
  WorkQueue<Staged> queue_;
  WakeGate gate_;
  QueueBounds bounds_;
  std::atomic<bool> stopped_{false};

  Mutex mutex_;  // guards the order, and `taken` of each computation
  std::vector<Staged> arrivals_ SUTRA_GUARDED_BY(mutex_);
  size_t admitted_ SUTRA_GUARDED_BY(mutex_) = 0;  // of arrivals_; the rest could not be, for want of memory
  FairOrder order_ SUTRA_GUARDED_BY(mutex_);
  std::vector<TakenText> put_back_ SUTRA_GUARDED_BY(mutex_);  // at most one per worker
};

}  // namespace sutra
