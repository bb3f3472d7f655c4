// The engine's side of shared memory: makes the two sealed memfds of a lane and the engine page, and keeps them mapped.
// (The client's side, which maps and verifies them, is producer/lane_mapping.h.)
//
// Thread rule: make and destroy on one thread; the mapped memory follows layout.h.
// Invariants: a lane is a fresh pair of memfds, never handed to a second owner; seals are set before the descriptors
// leave the process; all of a lane but the text tails is allocated at creation, so that no later touch can fail; the
// engine maps the request lane read-only; the engine's lock on the reply lane is held as long as the object lives.
#pragma once

#include <cstdint>
#include <utility>

#include "shm/layout.h"
#include "shm/base/status.h"

namespace sutra {

// Closes on destruction. Move-only.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~UniqueFd();
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

// munmap on destruction. Move-only.
class Mapping {
 public:
  Mapping() = default;
  Mapping(std::byte* base, uint64_t bytes) : base_(base), bytes_(bytes) {}
  Mapping(Mapping&& other) noexcept
      : base_(std::exchange(other.base_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    std::swap(base_, other.base_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Mapping();
  std::byte* base() const { return base_; }
  uint64_t bytes() const { return bytes_; }

 private:
  std::byte* base_ = nullptr;
  uint64_t bytes_ = 0;
};

struct LaneIdentity {
  uint64_t engine_generation = 0;
  uint64_t lane_id = 0;
  uint8_t boot_id[16] = {};
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
  // What quotas charge: the full size, text tails included.
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

// /proc/sys/kernel/random/boot_id as 16 bytes; zeros if it cannot be read.
void ReadBootId(uint8_t (&boot_id)[16]);

}  // namespace sutra
