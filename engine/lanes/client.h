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

namespace sutra {

struct Client {
  Client(uint64_t number, uid_t owner, pid_t process, std::string called)
      : id(number), uid(owner), pid(process), name(std::move(called)) {}

  const uint64_t id;  // unique within one engine
  const uid_t uid;
  const pid_t pid;         // for display only: 0 or meaningless across PID namespaces
  const std::string name;  // what the client calls itself, made printable

  // Loop thread: bytes that its lanes may still take in this turn; below zero after a text that was larger.
  int64_t turn_bytes = 0;

  // Its texts that wait for the model. Raised by the loop, lowered by a worker; relaxed: only counts.
  std::atomic<uint64_t> queued_texts{0};
  std::atomic<uint64_t> queued_bytes{0};
};

using ClientPtr = std::shared_ptr<Client>;

}  // namespace sutra
