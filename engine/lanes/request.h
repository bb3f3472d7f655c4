// What the engine knows about a text in flight: a Waiter is one request of one lane, a Computation is one text for the
// model, with all its waiters.
//
// Thread rule: a Waiter is a value. A Computation belongs to the thread that starts it (the loop; of a long text, the
// long texts' thread) until it is in InFlight; from then on its fields belong to whom the groups below say.
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
  uint32_t ttl_s = 0;
  PriorityClass priority = kClassNormal;
  bool joined = false;  // waits for a computation that another request started
};

struct Computation {
  // Constant, but for the text: the worker drops that when the computation has ended.
  std::string text;
  uint32_t variant = 0;
  ClientPtr client;            // whose request started it
  uint32_t cost_estimate = 1;  // in the order, until it is tokenised (text_cost.h)
  uint64_t queued_ns = 0;
  uint64_t removals_seen = 0;  // of the cache, before it was looked up (CacheShard::Removals)
  uint64_t hash = 0;           // InFlight's, of text and variant
  bool is_long = false;        // of more than kLongTextBytes; also when the text is dropped

  // InFlight's mutex.
  std::vector<Waiter> waiters;
  uint64_t ttl_s = 0;      // the longest lifetime of the waiters that want it stored
  bool store = false;      // at least one waiter wants it stored
  bool truncated = false;  // the worker found it longer than the model's limit

  // The batcher's mutex; before it is there, of the order of the long texts.
  bool taken = false;

  // The worker that took it; of a long text, before that the thread that tokenised it.
  std::vector<int32_t> ids;  // of a text that is tokenised: a long one, or one that did not fit into its batch
  uint32_t token_count = 0;
  uint64_t tokenised_ns = 0;
  uint64_t tokenising_ns = 0;  // how long that took

  // The thread that starts it, and its joins: where it was queued last.
  uint64_t queued_for = 0;  // a client's number
  PriorityClass queued_class = kClassNormal;

  // When it has ended: an entry of it may lie in the queue of a client that joined it for long after.
  void DropText() { std::string().swap(text); }
};

using ComputationPtr = std::shared_ptr<Computation>;

}  // namespace sutra
