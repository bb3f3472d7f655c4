// The engine's side of one lane: the two mappings, the descriptors behind them, and the private slot table on which the
// engine bases its decisions.
//
// Thread rule: the loop thread owns the reading side (submissions, Hold, the descriptors). The answering side belongs
// to `mutex_` inside, and is used by the loop and the workers. A Lane is shared by all holders of its requests: the
// mappings live until the last request is finished, whatever became of the client.
//
// Invariants:
//  - A slot is held from the moment it is taken until its answer is published; a held slot that is submitted again
//    costs the client its lane.
//  - After Close nothing is answered any more. A closed lane is never reopened.
//  - The engine has one descriptor of the reply memfd, and it carries the POSIX lock that proves that the engine is
//    alive: it is closed with the lane and never earlier, since closing any descriptor of the file drops the lock.
#pragma once

#include <atomic>
#include <memory>

#include "engine/lanes/client.h"
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
  // `event_pipe` is the write end of the event pipe, O_NONBLOCK; it never leaves the engine.
  Lane(uint64_t id, ClientPtr client, LaneMemory memory, UniqueFd event_pipe);

  uint64_t id() const { return id_; }
  const ClientPtr& client() const { return client_; }
  const LaneGeometry& geometry() const { return request_.geometry; }
  const LaneMemory& memory() const { return memory_; }
  const RequestLane& request() const { return request_; }
  const ReplyLane& reply() const { return reply_; }

  // Loop thread.
  SubmissionReader& submissions() { return submissions_; }
  bool Hold(uint32_t slot);  // false: it is held already
  void ShowTaken();          // EngineLine::taken, for observers
  void SetDraining();

  // Any thread.
  bool open() const { return open_.load(std::memory_order_acquire); }
  uint32_t held() const { return held_.load(std::memory_order_relaxed); }  // only a count
  bool Cancelled(uint32_t slot, uint64_t sequence) const;
  // Where the vector of a held slot is written; only its holder writes there.
  float* vector(uint32_t slot) const { return reply_.vector(slot); }
  // Publishes the answer of a held slot and releases it; false (and nothing written) after Close.
  bool Publish(uint32_t slot, uint64_t sequence, const Answer& answer);
  // Wakes the sleepers of this lane; at most one futex call and one byte. Returns true if there were any.
  bool Wake();
  // Ends answering: reason first, then the state word, then a last wake-up.
  void Close(StatusCode reason);

 private:
  const uint64_t id_;
  const ClientPtr client_;
  const LaneMemory memory_;
  const UniqueFd event_pipe_;
  const RequestLane request_;
  const ReplyLane reply_;
  SubmissionReader submissions_;
  // relaxed accesses: a slot passes from engine to client and back through the rings' release/acquire pairs.
  const std::unique_ptr<std::atomic<uint8_t>[]> slot_held_;
  std::atomic<uint32_t> held_{0};
  std::atomic<bool> open_{true};

  Mutex mutex_;  // also guards the words of the reply lane that the answering side writes
  CompletionWriter completions_ SUTRA_GUARDED_BY(mutex_);
};

// A lane whose client passed the handshake, with the descriptors that report the client's end.
struct AttachedLane {
  std::shared_ptr<Lane> lane;
  UniqueFd socket;
  UniqueFd pid_fd;  // may be empty: then only the socket and the sweep report its end
};

}  // namespace sutra
