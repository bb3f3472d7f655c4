// The lanes that are being served, and how each of them ends: by a goodbye, by the death of its process, or because its
// client broke the protocol. Which of them are polled, and when, is the order's (turn_order.h).
//
// Thread rule: the loop thread.
// Invariants:
//  - A lane is in the table from Add to its end. A lane that ended is closed, counted under its reason, and no longer
//    polled.
//  - A process is dead when its lock is gone or its socket hung up; a pidfd is a hint. The lock is asked only where
//    nothing else would tell: when the pidfd spoke, and at each sweep for lanes whose socket or process is not watched.
//  - No lane is added and none ends during a turn.
//  - A parked lane's socket is watched.
#pragma once

#include <cassert>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/lanes/lane.h"
#include "engine/lanes/turn_order.h"
#include "shm/base/log_line.h"
#include "shm/peer_liveness.h"
#include "shm/stats/stats_writer.h"

namespace sutra {

class LaneTable {
 public:
  struct Options {
    PeerAliveFunction peer_alive = LockHeldBy;
    StatsWriter stats;
    KindLog log;  // rate-limited by the callee
  };
  // The loop watches descriptors on the table's behalf; an event carries the id back. False: it is not watched. A watch
  // ends with its descriptor. A process is watched while it has lanes.
  struct Watcher {
    std::function<bool(int fd, uint64_t lane_id)> watch_socket;
    std::function<bool(int fd, uint64_t client_id)> watch_process;
    std::function<void(int fd)> unwatch;
    // A client's hints about the hot table (ClientLine::hot_hints).
    std::function<void(std::span<const uint32_t> hints)> hinted = [](std::span<const uint32_t>) {};
  };

  LaneTable(Options options, Watcher watcher) : options_(std::move(options)), watcher_(std::move(watcher)) {}

  size_t size() const { return lanes_.size(); }
  size_t parked() const { return lanes_.size() - order_.lanes(); }

  void Add(AttachedLane attached);

  // See TurnOrder::Turn.
  template <typename Take, typename Over>
  bool Turn(const Take& take, const Over& over) {
    in_turn_ = true;
    const bool more = order_.Turn(take, over);
    in_turn_ = false;
    return more;
  }
  // Lanes that were silent since the last call are no longer polled until their client rings.
  void ParkSilent() { order_.ParkSilent(); }

  // The client of this lane broke the protocol; `why` is a literal. The lane ends with EndViolators, after the turn.
  void ReportViolation(const Lane& lane, const char* why) { violators_.emplace_back(lane.id(), why); }
  void EndViolators();

  // The socket of the lane is readable or, with `hung_up`, at its end. Takes a bounded number of doorbells; the lane is
  // polled in the next turn.
  void OnSocket(uint64_t lane_id, bool hung_up);
  // The pidfd of the client is readable: its lanes end, whoever else holds their sockets or locks by now.
  void OnProcessEnd(uint64_t client_id);
  // Asks the locks of lanes whose socket or process is not watched.
  void Sweep();

  // Looks at what the clients of the next kHotLooks lanes say of their hits in the hot table, parked ones as well:
  // whoever finds all there sends nothing.
  void LookAtHotHits(uint64_t now_ns);

  // All lanes, including those added later, accept no further requests.
  void SetDraining();
  // Closes every lane and hangs up; nothing is answered after it.
  void CloseAll(StatusCode reason);

 private:
  // The one that was needed, and one that crossed with the engine's waking up. Of who rings without need, the loop
  // reads no more than that between two turns; epoll tells of the rest, behind the events of others.
  static constexpr int kDoorbellsPerEvent = 2;
  static constexpr int kDoorbellsAtEnd = 1024;  // more than a socket's buffer holds

  static constexpr size_t kHotLooks = 64;  // per tick: two cache lines each

  enum class End { kDetached, kDied, kViolated };
  enum class Heard { kNothingMore, kGoodbye, kHangUp };

  static Heard ReadDoorbells(int socket, bool at_end);
  void EndLane(uint64_t lane_id, End end, const char* why);
  void OnDeath(const AttachedLane& attached);
  void LookAtHotHits(AttachedLane* attached, uint64_t now_ns);

  const Options options_;
  const Watcher watcher_;
  std::unordered_map<uint64_t, AttachedLane> lanes_;  // by id
  TurnOrder order_;                                   // those that are polled
  std::vector<uint64_t> hot_;                         // with the hot table, by id, and of lanes that ended
  size_t hot_next_ = 0;                               // whose report is looked at next
  std::vector<uint64_t> unwatched_;                   // by id; of lanes that ended, ids may remain until the next sweep
  std::vector<std::pair<uint64_t, const char*>> violators_;
  bool in_turn_ = false;
  bool draining_ = false;
};

}  // namespace sutra
