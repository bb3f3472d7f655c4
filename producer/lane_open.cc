#include "producer/lane_open.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

namespace sutra::client {
namespace {

void KeepInfo(const WelcomeMessage& welcome, sutra_info* info) {
  info->width = welcome.width;
  info->tokens_max = welcome.tokens_max;
  info->text_bytes_max = welcome.text_bytes_max;
  info->slots = welcome.slots;
  info->normalizes = welcome.normalizes;
  memcpy(info->model, welcome.model, sizeof(info->model));
  memcpy(info->identity, welcome.identity, sizeof(info->identity));
}

// What callers sized their buffers for must not change under them.
sutra_status CheckSameEngine(const sutra_client* client, const WelcomeMessage& welcome) {
  const sutra_info& info = client->info;
  if (memcmp(welcome.identity, info.identity, sizeof(info.identity)) != 0) {
    return Fail(SUTRA_ENGINE_GONE,
                "%s: the engine came back with another model (%.60s, identity %.16s; before: %.60s, identity %.16s): "
                "detach and attach again to accept it",
                client->path, welcome.model, welcome.identity, info.model, info.identity);
  }
  if (welcome.width != info.width || welcome.slots != info.slots || welcome.text_bytes_max != info.text_bytes_max) {
    return Fail(SUTRA_ENGINE_GONE,
                "%s: the engine came back with other lanes (width %u, %u slots, %u text bytes; before: %u, %u, %u): "
                "detach and attach again to accept them",
                client->path, welcome.width, welcome.slots, welcome.text_bytes_max, info.width, info.slots,
                info.text_bytes_max);
  }
  return SUTRA_OK;
}

// RETURNS an empty lane object of the table, or nullptr: out of memory, or too many dead lanes with unreleased tickets.
ClientLane* FindEmptyLane(sutra_client* client) {
  const uint32_t count = client->lane_count.load(std::memory_order_relaxed);  // relaxed: only this thread changes it
  for (uint32_t i = 0; i < count; ++i) {
    ClientLane* lane = client->lanes[i].load(std::memory_order_relaxed);  // relaxed: as the count
    const MutexLock lock(lane->mutex);
    if (RetireLocked(lane)) return lane;
  }
  assert(count <= kLaneTableSize);
  if (count == kLaneTableSize) return nullptr;
  assert(client->lanes[count].load(std::memory_order_relaxed) == nullptr);  // relaxed: as the count
  ClientLane* lane = MakeClientLane(&client->signals, count, client->info.slots);
  if (lane == nullptr) return nullptr;
  client->lanes[count].store(lane, std::memory_order_relaxed);  // relaxed: published by the count
  // SYNC C2 (release): the table entry; meets SYNC C2 (acquire) in PickLane.
  client->lane_count.store(count + 1, std::memory_order_release);
  return lane;
}

// RETURNS SUTRA_OK and an open lane, or why not.
sutra_status OpenWithin(sutra_client* client, uint64_t deadline_ns, bool first) {
  LaneConnection connection;
  sutra_status status = AttachLane(client->path, client->hello, deadline_ns, &connection);
  if (status != SUTRA_OK) return status;
  if (first) {
    KeepInfo(connection.welcome, &client->info);
    // Later lanes ask for exactly what this one got.
    client->hello.slots = connection.welcome.slots;
    client->hello.text_bytes_max = connection.welcome.text_bytes_max;
    client->hello.width = connection.welcome.width;
  } else {
    status = CheckSameEngine(client, connection.welcome);
  }
  ClientLane* lane = status == SUTRA_OK ? FindEmptyLane(client) : nullptr;
  if (lane == nullptr) {
    if (status == SUTRA_OK) {
      status = first ? Fail(SUTRA_OUT_OF_MEMORY, "no memory for a lane of %u slots", client->info.slots)
                     : Fail(SUTRA_FULL,
                            "no lane can be opened: out of memory, or unreleased tickets of dead engines hold all %u "
                            "lanes; release them",
                            kLaneTableSize);
    }
    CloseConnection(&connection, false);
    return status;
  }
  {
    const MutexLock lock(client->attempt_mutex);
    client->engine_pid = connection.welcome.engine_pid;
    client->engine_generation = connection.welcome.engine_generation;
  }
  const MutexLock lock(lane->mutex);
  OpenLocked(lane, connection);
  return SUTRA_OK;
}

}  // namespace

sutra_status OpenFirstLane(sutra_client* client, uint64_t deadline_ns) { return OpenWithin(client, deadline_ns, true); }

bool OpenLane(sutra_client* client) {
  client->helper.opening.store(1, std::memory_order_relaxed);  // relaxed: a hint
  const sutra_status status = OpenWithin(client, MonotonicNs() + kReopenTimeoutNs, false);
  {
    const MutexLock lock(client->attempt_mutex);
    client->helper.opening.store(0, std::memory_order_relaxed);  // relaxed: a hint, and under the mutex
    ++client->attempts;
    client->attempt_status = status;
    if (status == SUTRA_OK) {
      client->backoff_ns = kBackoffNsMin;
      client->lost_status = SUTRA_OK;
    } else {
      snprintf(client->attempt_text, sizeof(client->attempt_text), "%s", CurrentThread().error_text);
      // relaxed: only paces
      client->open_after_ns.store(MonotonicNs() + client->backoff_ns, std::memory_order_relaxed);
      client->backoff_ns = client->backoff_ns * 2 < kBackoffNsMax ? client->backoff_ns * 2 : kBackoffNsMax;
    }
  }
  // An event loop hears of a new lane, not of each attempt that failed.
  LanesChanged(&client->signals, status == SUTRA_OK);
  return status == SUTRA_OK;
}

LaneCount CountLanes(sutra_client* client, uint64_t now_ns) {
  LaneCount lanes;
  const uint32_t count = client->lane_count.load(std::memory_order_acquire);  // SYNC C2 (acquire)
  for (uint32_t i = 0; i < count; ++i) {
    ClientLane* lane = client->lanes[i].load(std::memory_order_relaxed);  // relaxed: ordered by the count
    const MutexLock lock(lane->mutex);
    if (lane->phase.load(std::memory_order_relaxed) != LanePhase::kOpen) continue;  // relaxed: under the mutex
    if (UsableLocked(lane, now_ns, &lanes.stalled) != SUTRA_OK) continue;
    ++lanes.usable;
    lanes.free_slots += ReapLocked(lane);
  }
  return lanes;
}

}  // namespace sutra::client
