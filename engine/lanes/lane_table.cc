// Ends of lanes: which event means which end, and what each end counts and logs.
#include "engine/lanes/lane_table.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "shm/base/vector_room.h"

namespace sutra {

void LaneTable::Add(AttachedLane attached) {
  assert(!in_turn_);
  const uint64_t id = attached.lane->id();
  // What may throw comes first: afterwards the lane is in both lists, or in none.
  MakeRoomForOne(&order_);
  violators_.reserve(order_.capacity());  // each lane at most once per turn
  const auto [place, added] = lanes_.emplace(id, std::move(attached));
  assert(added);
  AttachedLane& kept = place->second;
  order_.push_back(kept.lane);
  watcher_.watch_socket(kept.socket.get(), id);
  Client& client = *kept.lane->client();
  if (client.lanes_served++ == 0 && client.pid_fd) watcher_.watch_process(client.pid_fd.get(), client.id);
  options_.stats.Add(Counter::kAttaches);
  if (draining_) kept.lane->SetDraining();
  static_cast<void>(added);
}

void LaneTable::EndViolators() {
  while (!violators_.empty()) {
    const auto [lane_id, why] = violators_.back();
    violators_.pop_back();
    EndLane(lane_id, End::kViolated, why);
  }
}

// Doorbells are drained without being examined; a byte of 0 announces a detach. A socket that hangs up without it
// belongs to a process that died or no longer speaks to the engine: its lane ends either way.
void LaneTable::OnSocket(uint64_t lane_id, bool hung_up) {
  const auto found = lanes_.find(lane_id);
  if (found == lanes_.end()) return;
  const int socket = found->second.socket.get();
  for (int i = 0; i < kDoorbellsPerEvent; ++i) {
    char byte = 1;
    const ssize_t count = recv(socket, &byte, 1, MSG_DONTWAIT);
    if (count > 0 && byte == 0) return EndLane(lane_id, End::kDetached, nullptr);
    if (count > 0) continue;
    if (count == 0 || (errno != EAGAIN && errno != EINTR)) hung_up = true;
    break;
  }
  if (hung_up) EndLane(lane_id, End::kDied, "its process died");
}

// A hint; the locks decide. A dying process may still hold them for a moment: the sweep checks again.
void LaneTable::OnProcessEnd(uint64_t client_id) {
  ClientPtr client;
  std::vector<uint64_t> dead;
  for (const auto& [id, attached] : lanes_) {
    const Lane& lane = *attached.lane;
    if (lane.client()->id != client_id) continue;
    client = lane.client();
    if (!options_.peer_alive(lane.memory().request_fd())) dead.push_back(id);
  }
  for (const uint64_t id : dead) OnDeath(id);
  if (client != nullptr && client->lanes_served > 0) watcher_.unwatch(client->pid_fd.get());
}

void LaneTable::Sweep() {
  std::vector<uint64_t> dead;
  for (const auto& [id, attached] : lanes_) {
    if (!options_.peer_alive(attached.lane->memory().request_fd())) dead.push_back(id);
  }
  for (const uint64_t id : dead) OnDeath(id);
}

// The lock is gone. A goodbye may still be unread; it distinguishes a detach from a death.
void LaneTable::OnDeath(uint64_t lane_id) {
  OnSocket(lane_id, false);
  EndLane(lane_id, End::kDied, "its process died");
}

void LaneTable::EndLane(uint64_t lane_id, End end, const char* why) {
  assert(!in_turn_);
  const auto found = lanes_.find(lane_id);
  if (found == lanes_.end()) return;
  const std::shared_ptr<Lane> lane = found->second.lane;
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
  Client& process = *lane->client();
  if (--process.lanes_served == 0 && process.pid_fd) watcher_.unwatch(process.pid_fd.get());
  order_.erase(std::find(order_.begin(), order_.end(), lane));
  if (why != nullptr) {
    const Client& client = *lane->client();
    const std::string name = client.name.empty() ? "" : " (" + client.name + ")";
    options_.log(end == End::kViolated ? LogKind::kLaneViolated : LogKind::kLaneDied, LogLevel::kWarn,
                 "lane " + std::to_string(lane_id) + " of uid " + std::to_string(client.uid) + " pid " +
                     std::to_string(client.pid) + name + " closed: " + why);
  }
}

void LaneTable::SetDraining() {
  draining_ = true;
  for (const std::shared_ptr<Lane>& lane : order_) lane->SetDraining();
}

void LaneTable::CloseAll(StatusCode reason) {
  assert(!in_turn_);
  for (const std::shared_ptr<Lane>& lane : order_) {
    lane->Close(reason);
    --lane->client()->lanes_served;
  }
  order_.clear();
  lanes_.clear();
}

}  // namespace sutra
