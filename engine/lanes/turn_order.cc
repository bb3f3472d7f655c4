// Who is in the order. Lists are searched: they change when a lane comes, goes, parks or rings, not in a turn.
#include "engine/lanes/turn_order.h"

#include <utility>

#include "shm/base/vector_room.h"
#include "shm/sleep_wake.h"

namespace sutra {

void TurnOrder::Add(const std::shared_ptr<Lane>& lane, bool parkable) {
  assert(!in_turn_);
  const ClientPtr& client = lane->client();
  size_t at = 0;
  while (at < shares_.size() && shares_[at].client != client) ++at;
  if (at == shares_.size()) {
    Share fresh = {.client = client, .lanes = {}};
    MakeRoomForOne(&fresh.lanes, 4);
    MakeRoomForOne(&shares_);
    if (next_ > shares_.size()) next_ = 0;
    at = next_;
    shares_.insert(shares_.begin() + static_cast<ptrdiff_t>(at), std::move(fresh));
  }
  Share& share = shares_[at];
  MakeRoomForOne(&share.lanes, 4);
  if (share.next > share.lanes.size()) share.next = 0;
  share.lanes.insert(share.lanes.begin() + static_cast<ptrdiff_t>(share.next), {.lane = lane, .parkable = parkable});
  ++lanes_;
  AnnouncePolled(lane->reply());
}

void TurnOrder::Remove(const Lane* lane) {
  assert(!in_turn_);
  for (size_t share = 0; share < shares_.size(); ++share) {
    if (shares_[share].client != lane->client()) continue;
    std::vector<Polled>& lanes = shares_[share].lanes;
    for (size_t i = 0; i < lanes.size(); ++i) {
      if (lanes[i].lane.get() == lane) return RemoveAt(share, i);
    }
  }
}

void TurnOrder::RemoveAt(size_t share, size_t lane) {
  Share& of = shares_[share];
  of.lanes.erase(of.lanes.begin() + static_cast<ptrdiff_t>(lane));
  if (lane < of.next) --of.next;
  --lanes_;
  if (!of.lanes.empty()) return;
  shares_.erase(shares_.begin() + static_cast<ptrdiff_t>(share));
  if (share < next_) --next_;
}

void TurnOrder::Clear() {
  assert(!in_turn_);
  shares_.clear();
  next_ = 0;
  lanes_ = 0;
}

// SYNC L8: announce, fence, look once more; a client that published before saw a lane that is polled, and its entry is
// found here. One fence serves all.
size_t TurnOrder::ParkSilent() {
  assert(!in_turn_);
  if (MarkSilent() == 0) return 0;
  FullFence();  // SYNC L8: the stores of `parked` before the loads of the rings
  size_t parked = 0;
  for (size_t share = shares_.size(); share-- > 0;) {
    for (size_t i = shares_[share].lanes.size(); i-- > 0;) {
      Polled& polled = shares_[share].lanes[i];
      if (!polled.parking) continue;
      polled.parking = false;
      if (polled.lane->submissions().HasNext()) {
        AnnouncePolled(polled.lane->reply());
        continue;
      }
      ++parked;
      const bool last = shares_[share].lanes.size() == 1;
      RemoveAt(share, i);
      if (last) break;  // its client left too
    }
  }
  return parked;
}

size_t TurnOrder::MarkSilent() {
  size_t marked = 0;
  for (Share& share : shares_) {
    for (Polled& polled : share.lanes) {
      polled.parking = polled.found == Found::kNothing && polled.parkable;
      polled.found = Found::kNotLooked;
      if (!polled.parking) continue;
      AnnounceParked(polled.lane->reply());
      ++marked;
    }
  }
  return marked;
}

}  // namespace sutra
