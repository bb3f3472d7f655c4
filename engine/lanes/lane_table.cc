// Ends of lanes: which event means which end, and what each end counts and logs.
#include "engine/lanes/lane_table.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <new>

#include "shm/base/time.h"
#include "shm/base/vector_room.h"
#include "shm/sleep_wake.h"

namespace sutra {

void LaneTable::Add(AttachedLane attached) {
  assert(!in_turn_);
  const std::shared_ptr<Lane> lane = attached.lane;
  const uint64_t id = lane->id();
  // What may throw comes first: afterwards the lane is everywhere, or nowhere. A lane is at most once per turn in
  // violators_ and, until the next sweep, in unwatched_.
  if (violators_.capacity() <= lanes_.size()) violators_.reserve(2 * lanes_.size() + 16);
  MakeRoomForOne(&unwatched_);
  MakeRoomForOne(&hot_);
  attached.hot_report.Begin(MonotonicNs());
  const auto [place, added] = lanes_.emplace(id, std::move(attached));
  assert(added);
  const bool hears = watcher_.watch_socket(place->second.socket.get(), id);
  try {
    order_.Add(lane, hears);
  } catch (const std::bad_alloc&) {
    lanes_.erase(place);
    throw;
  }
  Client& client = *lane->client();
  if (client.lanes_served++ == 0) {
    client.process_watched = client.pid_fd && watcher_.watch_process(client.pid_fd.get(), client.id);
  }
  if (!hears || !client.process_watched) unwatched_.push_back(id);
  if (lane->hot()) hot_.push_back(id);
  options_.stats.Add(Counter::kAttaches);
  if (draining_) lane->SetDraining();
  static_cast<void>(added);
}

void LaneTable::EndViolators() {
  while (!violators_.empty()) {
    const auto [lane_id, why] = violators_.back();
    violators_.pop_back();
    EndLane(lane_id, End::kViolated, why);
  }
}

// Doorbells are drained without being examined; a byte of 0 announces a detach. At the end of a socket there is at most
// what it holds, which is read in one go: the goodbye is the last of it.
LaneTable::Heard LaneTable::ReadDoorbells(int socket, bool at_end) {
  const int count_max = at_end ? kDoorbellsAtEnd : kDoorbellsPerEvent;
  for (int i = 0; i < count_max; ++i) {
    char byte = 1;
    const ssize_t count = recv(socket, &byte, 1, MSG_DONTWAIT);
    if (count > 0 && byte == 0) return Heard::kGoodbye;
    if (count > 0) continue;
    return count < 0 && (errno == EAGAIN || errno == EINTR) ? Heard::kNothingMore : Heard::kHangUp;
  }
  return Heard::kNothingMore;  // another event tells of the rest
}

// A socket that hangs up without a goodbye belongs to a process that died or no longer speaks to the engine: its lane
// ends either way.
void LaneTable::OnSocket(uint64_t lane_id, bool hung_up) {
  const auto found = lanes_.find(lane_id);
  if (found == lanes_.end()) return;
  const std::shared_ptr<Lane>& lane = found->second.lane;
  // Before the doorbells are read: without memory for it they stay, and tell again.
  if (IsParked(lane->reply())) order_.Add(lane, true);
  const Heard heard = ReadDoorbells(found->second.socket.get(), hung_up);
  if (heard == Heard::kGoodbye) return EndLane(lane_id, End::kDetached, nullptr);
  if (heard == Heard::kHangUp || hung_up) EndLane(lane_id, End::kDied, "its process died");
}

void LaneTable::OnProcessEnd(uint64_t client_id) {
  std::vector<uint64_t> dead;
  for (const auto& [id, attached] : lanes_) {
    if (attached.lane->client()->id == client_id) dead.push_back(id);
  }
  for (const uint64_t id : dead) OnDeath(lanes_.at(id));
}

// The process, or its lock, is gone. A goodbye may still be unread; it distinguishes a detach from a death.
void LaneTable::OnDeath(const AttachedLane& attached) {
  const bool detached = ReadDoorbells(attached.socket.get(), true) == Heard::kGoodbye;
  EndLane(attached.lane->id(), detached ? End::kDetached : End::kDied, detached ? nullptr : "its process died");
}

void LaneTable::Sweep() {
  for (size_t i = unwatched_.size(); i-- > 0;) {
    const auto found = lanes_.find(unwatched_[i]);
    if (found != lanes_.end()) {
      const Lane& lane = *found->second.lane;
      if (options_.peer_alive(lane.memory().request_fd(), lane.client()->pid)) continue;
      OnDeath(found->second);
    }
    unwatched_[i] = unwatched_.back();
    unwatched_.pop_back();
  }
}

void LaneTable::LookAtHotHits(uint64_t now_ns) {
  for (size_t looks = std::min(hot_.size(), kHotLooks); looks > 0; --looks) {
    if (hot_next_ >= hot_.size()) hot_next_ = 0;
    const auto found = lanes_.find(hot_[hot_next_]);
    if (found != lanes_.end()) {
      LookAtHotHits(&found->second, now_ns);
      ++hot_next_;
    } else {
      hot_[hot_next_] = hot_.back();
      hot_.pop_back();
      if (hot_.empty()) return;
    }
  }
}

void LaneTable::LookAtHotHits(AttachedLane* attached, uint64_t now_ns) {
  if (!attached->lane->hot()) return;
  const HotReport::News news = attached->hot_report.Look(attached->lane->request().client(), now_ns);
  if (news.hits == 0) return;
  options_.stats.Add(Counter::kHotHits, news.hits);
  watcher_.hinted(news.hints);
}

void LaneTable::EndLane(uint64_t lane_id, End end, const char* why) {
  assert(!in_turn_);
  const auto found = lanes_.find(lane_id);
  if (found == lanes_.end()) return;
  const std::shared_ptr<Lane> lane = found->second.lane;
  LookAtHotHits(&found->second, MonotonicNs());
  switch (end) {
    case End::kDetached:
      lane->Close(StatusCode::kOk);
      options_.stats.Add(Counter::kDetaches);
      break;
    case End::kDied:
      lane->Close(StatusCode::kEngineGone);
      options_.stats.Add(Counter::kLanesDead);
      break;
    case End::kViolated:
      lane->Close(StatusCode::kProtocolViolation);
      options_.stats.Add(Counter::kLanesViolated);
      break;
  }
  lanes_.erase(found);  // closes the socket, which also ends its watch
  order_.Remove(lane.get());
  Client& client = *lane->client();
  if (--client.lanes_served == 0 && client.pid_fd) {
    watcher_.unwatch(client.pid_fd.get());
    client.process_watched = false;
  }
  if (why != nullptr) {
    options_.log(end == End::kViolated ? LogKind::kLaneViolated : LogKind::kLaneDied, LogLevel::kWarn,
                 "lane " + std::to_string(lane_id) + " of " + client.Title() + " closed: " + why);
  }
}

void LaneTable::SetDraining() {
  draining_ = true;
  for (const auto& [id, attached] : lanes_) attached.lane->SetDraining();
}

void LaneTable::CloseAll(StatusCode reason) {
  assert(!in_turn_);
  const uint64_t now_ns = MonotonicNs();
  for (auto& [id, attached] : lanes_) {
    LookAtHotHits(&attached, now_ns);
    attached.lane->Close(reason);
    --attached.lane->client()->lanes_served;
  }
  options_.stats.Add(reason == StatusCode::kShuttingDown ? Counter::kLanesShutDown : Counter::kLanesEngineFailed,
                     lanes_.size());
  order_.Clear();
  lanes_.clear();
  hot_.clear();
  unwatched_.clear();
}

}  // namespace sutra
