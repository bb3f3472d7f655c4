// The engine's side of shared memory: creates a lane's three sealed memfds and the engine page, and maps what it uses.
// (The client's side, which maps and verifies them, is producer/lane_mapping.h.)
//
// Thread rule: one thread at a time; the mapped memory follows layout.h.
// Invariants:
//  - The memfds of a lane are fresh, and never handed to a second owner; their seals are set before they leave the
//    process.
//  - All of a lane except the tail file is allocated at creation, so that no later touch can fail. The engine maps the
//    request lane read-only, and the tail file never: a fault in a mapped page waits while the client punches a hole
//    around it (0.3 s for a large one), a pread does not.
//  - The engine's lock on the reply lane is held as long as the object lives.
#pragma once

#include <cstdint>

#include "shm/base/host.h"
#include "shm/base/status.h"
#include "shm/base/unique_fd.h"
#include "shm/layout.h"

namespace sutra {

struct LaneIdentity {
  uint64_t engine_generation = 0;
  uint64_t lane_id = 0;
  BootId boot_id = {};
};

class LaneMemory {
 public:
  LaneMemory() = default;
  // kOutOfMemory names the bytes asked for; kRefused an invalid geometry.
  static Result<LaneMemory> Create(const LaneGeometry& geometry, const LaneIdentity& identity);

  RequestLane request() const { return {request_map_.base(), geometry_}; }  // PROT_READ
  ReplyLane reply() const { return {reply_map_.base(), geometry_}; }
  int request_fd() const { return request_fd_.get(); }  // for LockHolderAlive; never dup or close
  int reply_fd() const { return reply_fd_.get(); }      // sent to the client; never dup or close: it carries the lock
  int tail_fd() const { return tail_fd_.get(); }        // for UntrustedRequest

  // Gives the pages of what the client wrote back to the system, even if the client keeps the descriptors. (Those of
  // the reply lane are the client's to keep: vectors that were delivered stay readable.)
  void PunchClientFiles() const;

 private:
  LaneGeometry geometry_;
  UniqueFd request_fd_, reply_fd_, tail_fd_;
  Mapping request_map_, reply_map_;
};

class EnginePageMemory {
 public:
  EnginePageMemory() = default;
  static Result<EnginePageMemory> Create(uint64_t engine_generation);
  EnginePage* page() const;
  int fd() const { return fd_.get(); }  // sent to every client

 private:
  UniqueFd fd_;
  Mapping map_;
};

}  // namespace sutra
