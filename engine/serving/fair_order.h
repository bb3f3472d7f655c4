// Which client's text comes next: start-time fair queueing over clients, all classes together. A client's tag says how
// much it has been served; the waiting client with the least tag is next, and what is served is added to its tag at
// that moment, not when texts arrive, so a backlog that is not served costs its client nothing. A client that begins
// to wait starts at the virtual time (the tag of the last client served) or at its own last finish, if that is later:
// idling earns no credit, and a pause forgives no debt. Within a client, ClientQueue decides; classes therefore order
// the texts of one client and gain nothing over another one.
//
// Thread rule: its owner's (the batcher's mutex).
// Invariants: the virtual time never decreases; a text is handed out at most once; while two clients both wait, what
// they are served differs by at most one text of each. Clients without texts and without debt are forgotten: there are
// never more than 64, or twice as many as those.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <unordered_map>

#include "engine/serving/client_queue.h"

namespace sutra {

// Where a text waits: at which client, and where in that client's own order.
struct QueuePlace {
  uint64_t client = 0;
  PriorityClass priority = kClassNormal;
  uint64_t deadline_ns = UINT64_MAX;
};

// A text that was handed out, and who was charged how much for it.
struct TakenText {
  ComputationPtr computation;
  uint64_t client = 0;
  uint32_t charged = 0;
};

class FairOrder {
 public:
  FairOrder() = default;
  FairOrder(const FairOrder&) = delete;
  FairOrder& operator=(const FairOrder&) = delete;

  // Takes over *computation. Out of memory it throws std::bad_alloc, and no text is added or lost.
  void Add(const QueuePlace& place, ComputationPtr* computation);

  // The next text, charged at its estimate; false when there is none.
  bool Take(uint64_t now_ns, TakenText* taken);
  // Charges what the text costs in truth. Call it once, at the latest before the next Take if the order is to be exact.
  void Correct(const TakenText& taken, uint32_t cost);

  bool HasText() { return Head() != nullptr; }
  // Texts that arrived so far. A later ArrivedSince of it tells whether the text that is next belongs to a client that
  // has begun to wait since then, or is a query that arrived since then.
  uint64_t arrivals() const { return arrival_next_; }
  bool HeadArrivedSince(uint64_t arrivals, uint64_t now_ns);

  size_t clients() const { return flows_.size(); }  // known, waiting or not

 private:
  struct Flow;
  struct Earlier {
    bool operator()(const Flow* a, const Flow* b) const;
  };
  using Waiting = std::set<Flow*, Earlier>;
  struct Flow {
    uint64_t client = 0;
    ClientQueue queue;
    uint64_t finish = 0;  // the tag after all that it was served
    uint64_t tag = 0;     // the tag of its next text, while it waits
    uint64_t turn = 0;    // among equal tags the one that has waited longest is first
    uint64_t waits_since = 0;
    bool waits = false;
    Waiting::node_type node;  // while it does not wait, so that waiting again needs no memory
  };

  Flow* Head();
  void Wait(Flow* flow, uint64_t arrival);
  void EndWait(Flow* flow);
  void Retag(Flow* flow, uint64_t tag);
  void Forget();

  static constexpr size_t kForgetAt = 64;

  std::unordered_map<uint64_t, Flow> flows_;
  Waiting waiting_;
  uint64_t virtual_time_ = 0;
  uint64_t finish_max_ = 0;  // of all flows ever
  uint64_t turn_next_ = 0;
  uint64_t arrival_next_ = 0;
  size_t forget_at_ = kForgetAt;
};

}  // namespace sutra
