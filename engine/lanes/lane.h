// The engine's side of one lane: the two mappings, the descriptors behind them, and the private slot table on which the
// engine bases its decisions.
//
// Thread rule: the loop thread owns the reading side (submissions, Hold, the descriptors), and it closes the lane. The
// answering side belongs to `mutex_` inside, and is used by the loop and the workers. A Lane is shared by all holders
// of its requests: the mappings live until the last request is finished, whatever became of the client.
//
// The loop answers without the mutex while it alone can answer: when no slot is held but the one it answers. Only a
// holder publishes, and only the loop makes holders, so no worker is in Publish then, and none enters it meanwhile.
// Cached texts of a client that has nothing at the model cost no locked instruction.
//
// Invariants:
//  - A slot is held from the moment it is taken until its answer is published; a held slot that is submitted again
//    costs the client its lane.
//  - After Close nothing is answered any more. A closed lane is never reopened.
//  - No system call is made under the mutex; the futex word is incremented under it.
//  - The engine has one descriptor of the reply memfd, and it carries the POSIX lock that proves that the engine is
//    alive: it is closed with the lane and never earlier, since closing any descriptor of the file drops the lock.
#pragma once

#include <atomic>
#include <memory>

#include "engine/lanes/client.h"
#include "engine/lanes/hot_report.h"
#include "shm/base/mutex.h"
#include "shm/lane_memory.h"
#include "shm/lane_ring.h"
#include "shm/layout.h"

namespace sutra {

// What an answer carries in addition to the vector, which is in the slot already.
struct Answer {
  StatusCode status = StatusCode::kOk;
  ResultSource source = kSourceNone;
  uint32_t token_count = 0;
  bool truncated = false;
  uint32_t retry_after_ms = 0;  // of an `overloaded` answer
  uint64_t tag = 0;
  uint64_t stage_ns[kStageCount] = {};
};

class Lane {
 public:
  // `event_pipe` is the write end of the event pipe, O_NONBLOCK; it never leaves the engine. `hot`: its client was
  // given the hot table.
  Lane(uint64_t id, ClientPtr client, LaneMemory memory, UniqueFd event_pipe, bool hot = false);

  uint64_t id() const { return id_; }
  const ClientPtr& client() const { return client_; }
  const LaneGeometry& geometry() const { return request_.geometry; }
  const LaneMemory& memory() const { return memory_; }
  bool hot() const { return hot_; }
  const RequestLane& request() const { return request_; }
  const ReplyLane& reply() const { return reply_; }

  // Loop thread.
  SubmissionReader& submissions() { return submissions_; }
  bool Hold(uint32_t slot);  // false: it is held already
  void ShowTaken();          // EngineLine::taken, for observers
  void SetDraining();

  // Any thread.
  bool open() const { return open_.load(std::memory_order_acquire); }
  uint32_t held() const;  // slots taken and not answered; only a count
  bool Cancelled(uint32_t slot, uint64_t sequence) const;
  // Where the vector of a held slot is written; only its holder writes there.
  float* vector(uint32_t slot) const { return reply_.vector(slot); }
  // Publishes the answer of a held slot and releases it. kClosed, and nothing written, after Close. kBusy, and nothing
  // written, only for the loop thread, which does not wait: a worker that answers others has lost its CPU meanwhile.
  enum class Published : uint8_t { kDone, kClosed, kBusy };
  [[nodiscard]] Published Publish(uint32_t slot, uint64_t sequence, const Answer& answer);
  // Wakes the sleepers of this lane, or the first few, who wake the rest (sleep_wake.h): at most one futex call and one
  // byte, both without the mutex. Returns true if there were any.
  bool Wake();
  // Ends answering: reason first, then the state word, then a last wake-up.
  void Close(StatusCode reason);

 private:
  bool IsOwner() const;
  bool OnlyHolder() const;
  bool WriteAnswer(uint32_t slot, uint64_t sequence, const Answer& answer);
  Published PublishLocked(uint32_t slot, uint64_t sequence, const Answer& answer) SUTRA_REQUIRES(mutex_);

  const uint64_t id_;
  const ClientPtr client_;
  const LaneMemory memory_;
  const UniqueFd event_pipe_;
  const bool hot_;
  const RequestLane request_;
  const ReplyLane reply_;
  SubmissionReader submissions_;
  // relaxed accesses: a slot passes from engine to client and back through the rings' release/acquire pairs.
  const std::unique_ptr<std::atomic<uint8_t>[]> slot_held_;
  // The loop thread, once it has taken a slot: the address of a variable that each thread has of its own.
  std::atomic<const void*> owner_{nullptr};
  // Each has one writer at a time (a load and a store, no locked addition). Their difference is what is held.
  std::atomic<uint32_t> taken_{0};                // of the loop
  std::atomic<uint32_t> answered_by_loop_{0};     // of the loop
  std::atomic<uint32_t> answered_by_workers_{0};  // under the mutex
  std::atomic<bool> open_{true};

  // Also guards the words of the reply lane that the answering side writes.
  Mutex mutex_;
  // Under the mutex, or of the loop while it is the only holder: no annotation says that.
  CompletionWriter completions_;
};

// A lane whose client passed the handshake, with the descriptor that reports the client's end.
struct AttachedLane {
  std::shared_ptr<Lane> lane;
  UniqueFd socket;
  HotReport hot_report = {};
};

}  // namespace sutra
