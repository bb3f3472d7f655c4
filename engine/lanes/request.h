// What the engine knows about a text in flight: a Waiter is one request of one lane, a Computation is one text for the
// model, with all its waiters.
//
// Thread rule: a Waiter is a value. A Computation is created by the loop thread, and from the moment it is in InFlight
// its `waiters`, `priority` and `ttl_s` belong to InFlight's mutex; `taken` belongs to the batcher's mutex; all else is
// constant.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/lanes/client.h"
#include "engine/lanes/priority_class.h"

namespace sutra {

class Lane;

// A request as the engine keeps it: the engine's own copy of the descriptor, already checked.
struct Waiter {
  std::shared_ptr<Lane> lane;  // keeps the mapping until the request is answered or dropped
  uint32_t slot = 0;
  uint32_t options = 0;
  uint64_t sequence = 0;
  uint64_t tag = 0;
  uint64_t submitted_ns = 0;
  uint64_t deadline_ns = 0;
  uint64_t taken_ns = 0;
  uint64_t tokenised_ns = 0;
  uint32_t ttl_s = 0;
  PriorityClass priority = kClassNormal;
  bool joined = false;  // waits for a computation that another request started
};

struct Computation {
  std::string text;
  uint32_t variant = 0;
  ClientPtr client;  // charged for it in the fair order
  std::vector<int32_t> ids;
  bool truncated = false;
  uint64_t queued_ns = 0;

  std::vector<Waiter> waiters;
  PriorityClass priority = kClassNormal;  // the highest class of its waiters
  uint64_t ttl_s = 0;                     // the longest lifetime of the waiters that want it stored
  bool store = false;                     // at least one waiter wants it stored

  bool taken = false;

  uint32_t token_count() const { return static_cast<uint32_t>(ids.size()); }
};

using ComputationPtr = std::shared_ptr<Computation>;

}  // namespace sutra
