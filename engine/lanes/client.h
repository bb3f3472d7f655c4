// A client process, as everything in the engine that is fair or bounded knows it: quotas, the loop's turns, the order
// of service. A Client lives as long as anything refers to it: an attach under way, a lane, a text that waits.
//
// Thread rule: the identity does not change. Each group of numbers says who writes it.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "shm/base/unique_fd.h"

namespace sutra {

// What lanes claim.
struct LaneShare {
  uint32_t lanes = 0;
  uint64_t bytes = 0;  // at full size
};

struct Client {
  Client(uint64_t number, uid_t owner, pid_t process, std::string called, UniqueFd process_fd = UniqueFd())
      : id(number), uid(owner), pid(process), name(std::move(called)), pid_fd(std::move(process_fd)) {}

  // As log lines name it.
  std::string Title() const {
    return "uid " + std::to_string(uid) + " pid " + std::to_string(pid) + (name.empty() ? "" : " (" + name + ")");
  }

  const uint64_t id;  // unique within one engine
  const uid_t uid;
  const pid_t pid;         // for display only: 0 or meaningless across PID namespaces
  const std::string name;  // what the client calls itself, made printable
  const UniqueFd pid_fd;   // readable when the process has ended; may be empty

  // The mutex of ClientTable: what its lanes claim, those included that have ended and are not given back yet.
  LaneShare share;
  // Loop thread: its lanes in the LaneTable.
  uint32_t lanes_served = 0;
  bool process_watched = false;  // an event will tell that the process has ended
  uint64_t refusals = 0;         // of its attaches, once it was known who asks

  // Loop thread: bytes that its lanes may still take in this turn; below zero after a text that was larger.
  int64_t turn_bytes = 0;

  // Its texts that wait for the model. Raised by the loop, lowered by a worker; relaxed: only counts.
  std::atomic<uint64_t> queued_texts{0};
  std::atomic<uint64_t> queued_bytes{0};
};

using ClientPtr = std::shared_ptr<Client>;

}  // namespace sutra
