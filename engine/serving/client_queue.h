// The texts of one client that wait for the model, in the order in which the client wants them: class (query, normal,
// bulk), then deadline, then arrival. Aging: a text of a lower class at the head of its class that has waited longer
// than kAgingNs gets every fourth turn of its client, so that a client's own queries do not starve its ingest.
//
// A text may stand in several queues, or twice in one, when requests joined it. Whichever entry comes first takes it
// (Computation::taken); the others are dropped when they come to the head, or when room is needed, so there are never
// more than twice as many entries as there are texts that wait.
//
// Thread rule: as the order that owns it (the batcher's mutex).
// Invariant: after DropTaken the head of every class is a text that is not taken.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/lanes/request.h"

namespace sutra {

class ClientQueue {
 public:
  static constexpr uint64_t kAgingNs = 250'000'000;
  static constexpr uint32_t kAgedTurn = 4;  // every how many turns an aged text of a lower class comes first

  struct Head {
    PriorityClass priority;
    uint64_t arrival;
  };

  // Takes over *computation. Out of memory it throws std::bad_alloc and has changed nothing.
  void Add(PriorityClass priority, uint64_t deadline_ns, uint64_t arrival, ComputationPtr* computation);

  // Removes taken texts from the heads. False, and nothing is left, when all were taken.
  bool DropTaken();

  // The next text. REQUIRES: DropTaken returned true, and nothing was taken since.
  Head Next(uint64_t now_ns) const;
  ComputationPtr Pop(uint64_t now_ns);

  bool empty() const;
  size_t entries() const;  // with those that are taken

 private:
  struct Entry {
    uint64_t deadline_ns;
    uint64_t arrival;
    ComputationPtr computation;
  };
  struct Later {
    bool operator()(const Entry& a, const Entry& b) const {
      return a.deadline_ns != b.deadline_ns ? a.deadline_ns > b.deadline_ns : a.arrival > b.arrival;
    }
  };

  PriorityClass Choose(uint64_t now_ns) const;
  ComputationPtr PopHead(PriorityClass priority);

  std::vector<Entry> heaps_[kClassCount];
  uint32_t passed_over_ = 0;  // turns since one was given to an aged text, or a lower class waited
};

}  // namespace sutra
