// In which order the rings of lanes are looked at, and how much each client may take: surplus round robin over client
// processes, not over lanes. A client gets kQuantumBytes per visit, may exceed them by one text, and is passed over
// until later quanta have paid for it. Its lanes share the quantum; the next visit goes on behind the lane where it
// ended. So between two visits of a client every other client that is busy was visited once, and takes at most a
// quantum and the rest of one text, however many lanes it has.
//
// Lanes that were silent are parked: they leave the order, and the doorbell of their client brings them back
// (sleep_wake.h says why no request is lost). A turn costs what the lanes in the order cost.
//
// Thread rule: the loop thread, which writes Client::turn_bytes here and nowhere else.
// Invariants:
//  - A client is in the order exactly if one of its lanes is, and then once.
//  - Client::turn_bytes is at most a quantum after every visit; nothing is hoarded. A client in debt stays in the
//  order.
//  - No lane is added, removed or parked during a turn.
//  - A lane that is in the order is looked at after its `parked` word was set to 0.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/lanes/lane.h"

namespace sutra {

class TurnOrder {
 public:
  static constexpr int64_t kQuantumBytes = 32 << 10;
  static constexpr int64_t kRequestBytes = 1 << 10;  // what a request costs in addition to the bytes of its text
  static constexpr int64_t kLookBytes = 64;          // what a look at a ring costs

  // The lane's next look comes first in the next turn. A lane that cannot hear a doorbell is not `parkable`. Throws
  // std::bad_alloc and has changed nothing.
  void Add(const std::shared_ptr<Lane>& lane, bool parkable);
  // Nothing happens if it is not in the order.
  void Remove(const Lane* lane);
  void Clear();

  // Visits clients, going on where the last turn stopped, until each was visited once or `over()` is true after one of
  // them. take(lane, bytes) takes requests of a lane until they cost `bytes`, the last one possibly more, or there are
  // none; it returns their cost, 0 for none. RETURNS false if every ring in the order was looked at and was empty.
  template <typename Take, typename Over>
  bool Turn(const Take& take, const Over& over) {
    in_turn_ = true;
    bool more = false;
    size_t left = shares_.size();
    while (left > 0) {
      --left;
      if (next_ >= shares_.size()) next_ = 0;
      more |= Visit(&shares_[next_++], take);
      if (over()) break;
    }
    in_turn_ = false;
    return more || left > 0;
  }

  // Parks the lanes that were looked at since the last call, and nothing was found. RETURNS their number.
  size_t ParkSilent();

  size_t clients() const { return shares_.size(); }
  size_t lanes() const { return lanes_; }

 private:
  enum class Found : uint8_t { kNotLooked, kNothing, kRequest };
  struct Polled {
    std::shared_ptr<Lane> lane;
    bool parkable = true;
    bool parking = false;           // within ParkSilent
    Found found = Found::kRequest;  // since the last call of ParkSilent
  };
  struct Share {  // of one client
    ClientPtr client;
    std::vector<Polled> lanes;
    size_t next = 0;  // the lane that the next visit begins with
  };

  template <typename Take>
  static bool Visit(Share* share, const Take& take) {
    int64_t& bytes = share->client->turn_bytes;
    bytes = std::min(bytes + kQuantumBytes, kQuantumBytes);
    size_t unseen = share->lanes.size();
    bool took = false;
    for (; bytes > 0 && unseen > 0; --unseen) {
      if (share->next >= share->lanes.size()) share->next = 0;
      Polled& polled = share->lanes[share->next++];
      const int64_t cost = take(polled.lane, bytes);
      assert(cost >= 0);
      bytes -= cost + kLookBytes;
      polled.found = cost > 0 ? Found::kRequest : std::max(polled.found, Found::kNothing);
      took |= cost > 0;
    }
    return took || unseen > 0;
  }

  size_t MarkSilent();
  void RemoveAt(size_t share, size_t lane);

  std::vector<Share> shares_;
  size_t next_ = 0;  // the client that the next turn begins with
  size_t lanes_ = 0;
  bool in_turn_ = false;
};

}  // namespace sutra
