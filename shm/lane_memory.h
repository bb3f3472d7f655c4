// The engine's side of shared memory: creates a lane's two sealed memfds and the engine page, and keeps them mapped.
// (The client's side, which maps and verifies them, is producer/lane_mapping.h.)
//
// Thread rule: create and destroy on one thread; the mapped memory follows layout.h.
// Invariants: a lane is a fresh pair of memfds, never handed to a second owner; seals are set before the descriptors
// leave the process; all of a lane except the text tails is allocated at creation, so that no later touch can fail; the
// engine maps the request lane read-only; the engine's lock on the reply lane is held as long as the object lives.
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
  int request_fd() const { return request_fd_.get(); }  // for LockHolderAlive and UntrustedRequest; never dup or close
  int reply_fd() const { return reply_fd_.get(); }      // sent to the client; never dup or close: it carries the lock
  // What counts against quotas: the full size, text tails included.
  uint64_t charged_bytes() const { return geometry_.request_bytes() + geometry_.reply_bytes(); }

 private:
  LaneGeometry geometry_;
  UniqueFd request_fd_, reply_fd_;
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
