// The lanes that are being served: the order in which they are polled, and how each of them ends: by a goodbye, by the
// death of its process, or because its client broke the protocol.
//
// Thread rule: the loop thread.
// Invariants:
//  - A lane is in the table from Add to its end. A lane that ended is closed, counted under its reason, and no longer
//    polled.
//  - A process is dead when its lock is gone or its socket hung up. A pidfd is a hint; a sweep does not need it.
//  - No lane is added and none ends while a turn visits them.
#pragma once

#include <cassert>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/lanes/lane.h"
#include "shm/base/log_line.h"
#include "shm/peer_liveness.h"
#include "shm/stats/stats_writer.h"

namespace sutra {

class LaneTable {
 public:
  struct Options {
    PeerAliveFunction peer_alive = LockHolderAlive;
    StatsWriter stats;
    KindLog log;  // rate-limited by the callee
  };
  // The loop watches descriptors on the table's behalf; an event carries the id back. A watch ends with its descriptor.
  // A process is watched while it has lanes.
  struct Watcher {
    std::function<void(int fd, uint64_t lane_id)> watch_socket;
    std::function<void(int fd, uint64_t client_id)> watch_process;
    std::function<void(int fd)> unwatch;
  };

  LaneTable(Options options, Watcher watcher) : options_(std::move(options)), watcher_(std::move(watcher)) {}

  size_t size() const { return order_.size(); }

  void Add(AttachedLane attached);

  // Calls visit(const std::shared_ptr<Lane>&) once per lane; each turn begins with the next lane.
  template <typename Visit>
  void VisitInTurn(const Visit& visit) {
    const size_t count = order_.size();
    if (count == 0) return;
    first_ = (first_ + 1) % count;
    in_turn_ = true;
    for (size_t i = 0; i < count; ++i) visit(order_[first_ + i < count ? first_ + i : first_ + i - count]);
    in_turn_ = false;
  }

  // The client of this lane broke the protocol; `why` is a literal. The lane ends with EndViolators, after the turn.
  void ReportViolation(const Lane& lane, const char* why) { violators_.emplace_back(lane.id(), why); }
  void EndViolators();

  // The socket of the lane is readable or, with `hung_up`, at its end. Takes a bounded number of doorbells.
  void OnSocket(uint64_t lane_id, bool hung_up);
  // The pidfd of the client is readable.
  void OnProcessEnd(uint64_t client_id);
  // Checks for every lane whether its process is alive.
  void Sweep();

  // All lanes, including those added later, accept no further requests.
  void SetDraining();
  // Closes every lane and hangs up; nothing is answered after it.
  void CloseAll(StatusCode reason);

 private:
  static constexpr int kDoorbellsPerEvent = 64;

  enum class End { kDetached, kDied, kViolated };

  void EndLane(uint64_t lane_id, End end, const char* why);
  void OnDeath(uint64_t lane_id);

  const Options options_;
  const Watcher watcher_;
  std::unordered_map<uint64_t, AttachedLane> lanes_;  // by id
  std::vector<std::shared_ptr<Lane>> order_;          // the same lanes, in the order of polling
  size_t first_ = 0;                                  // where the last turn began
  std::vector<std::pair<uint64_t, const char*>> violators_;
  bool in_turn_ = false;
  bool draining_ = false;
};

}  // namespace sutra
