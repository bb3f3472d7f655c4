#include "producer/lane_open.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "producer/no_cancel.h"
#include "producer/resubmission.h"
#include "producer/thread_state.h"
#include "shm/base/checkpoint.h"

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

// Another engine than the client's, as the text says.
sutra_status FailOther(sutra_client* client, sutra_reason reason, sutra_reason* other) {
  const MutexLock lock(client->attempt_mutex);
  *other = client->other_reason = reason;
  snprintf(client->other_text, sizeof(client->other_text), "%s", CurrentThread().error_text);
  return SUTRA_ENGINE_GONE;
}

sutra_status FailOtherModel(sutra_client* client, const WelcomeMessage& served, const WelcomeMessage& welcome,
                            sutra_reason* other) {
  Fail(SUTRA_ENGINE_GONE,
       "%s: the engine came back with another model (%.60s, identity %.16s; before: %.60s, identity %.16s): detach and "
       "attach again to accept it",
       client->path, welcome.model, welcome.identity, served.model, served.identity);
  return FailOther(client, SUTRA_REASON_OTHER_IDENTITY, other);
}

// What callers sized their buffers for must not change under them, and two texts' vectors must stay comparable.
sutra_status CheckSameEngine(sutra_client* client, const WelcomeMessage& served, const WelcomeMessage& welcome,
                             sutra_reason* other) {
  if (memcmp(welcome.identity, served.identity, sizeof(served.identity)) != 0) {
    return FailOtherModel(client, served, welcome, other);
  }
  if (welcome.width != served.width || welcome.slots != served.slots ||
      welcome.text_bytes_max != served.text_bytes_max) {
    Fail(
        SUTRA_ENGINE_GONE,
        "%s: the engine came back with other lanes (width %u, %u slots, %u text bytes; before: %u, %u, %u): detach and "
        "attach again to accept them",
        client->path, welcome.width, welcome.slots, welcome.text_bytes_max, served.width, served.slots,
        served.text_bytes_max);
    return FailOther(client, welcome.width != served.width ? SUTRA_REASON_OTHER_IDENTITY : SUTRA_REASON_OTHER_LAYOUT,
                     other);
  }
  return SUTRA_OK;
}

// An engine that refuses says what it serves, too. One that can never serve the client's lanes is not waited for; any
// other refusal (permission, quota) may end.
sutra_status CheckRefusal(sutra_client* client, sutra_status status, const WelcomeMessage& welcome,
                          sutra_reason* other) {
  if (welcome.magic != kHandshakeMagic) return status;  // nobody answered
  if (welcome.layout_major != kLayoutMajor) return FailOther(client, SUTRA_REASON_OTHER_LAYOUT, other);
  if (status != SUTRA_REFUSED || welcome.status == SUTRA_OK) return status;
  const WelcomeMessage& served = client->served;
  if (memcmp(welcome.identity, served.identity, sizeof(served.identity)) != 0) {
    return FailOtherModel(client, served, welcome, other);
  }
  if (welcome.text_bytes_max >= client->hello.text_bytes_max) return status;
  Fail(SUTRA_ENGINE_GONE,
       "%s: the engine came back with other lanes (texts of %u bytes at most; before: %u): start it with that "
       "--text-bytes-max again, or detach and attach again to accept them",
       client->path, welcome.text_bytes_max, client->hello.text_bytes_max);
  return FailOther(client, SUTRA_REASON_OTHER_LAYOUT, other);
}

// RETURNS a lane that has no engine, those first in which requests wait; or a new one; or nullptr: out of memory.
ClientLane* FindLane(sutra_client* client) {
  const uint32_t count = client->lane_count.load(std::memory_order_relaxed);  // relaxed: only this thread changes it
  ClientLane* idle = nullptr;
  for (uint32_t i = 0; i < count; ++i) {
    ClientLane* lane = client->lanes[i].load(std::memory_order_relaxed);  // relaxed: as the count
    // relaxed: only this thread opens lanes and tells of deaths; one that dies meanwhile is told of first
    if (!IsLost(lane) || lane->death_due.load(std::memory_order_relaxed) != 0) continue;
    if (HasWaiting(lane)) return lane;
    idle = lane;
  }
  if (idle != nullptr || count == client->lanes_max) return idle;
  assert(count < kLaneTableSize);
  assert(client->lanes[count].load(std::memory_order_relaxed) == nullptr);  // relaxed: as the count
  ClientLane* lane = MakeClientLane(&client->signals, count, client->info.slots);
  if (lane == nullptr) return nullptr;
  client->lanes[count].store(lane, std::memory_order_relaxed);  // relaxed: published by the count
  // SYNC C2 (release): the table entry; meets SYNC C2 (acquire) in PickLane.
  client->lane_count.store(count + 1, std::memory_order_release);
  return lane;
}

// Before anything moves there: whoever gets an answer of an engine finds it counted.
void NoteAttached(sutra_client* client, const WelcomeMessage& welcome) {
  const MutexLock lock(client->attempt_mutex);
  if (client->engine_generation != welcome.engine_generation) ++client->engines;
  client->engine_pid = welcome.engine_pid;
  client->engine_generation = welcome.engine_generation;
}

// The client's lanes share one mapping of an engine's hot table, of which each attachment has a reference. The
// descriptor is of no use afterwards.
void ShareHotTable(const sutra_client* client, LaneConnection* connection) {
  if (connection->hot_fd < 0) return;
  ForEachLane(client, [connection](ClientLane* lane) {
    const MutexLock lock(lane->mutex);
    if (connection->hot != nullptr || IsLost(lane)) return;
    HotMapping* const mapped = lane->current->connection.hot;
    if (mapped == nullptr || mapped->engine_generation != connection->welcome.engine_generation) return;
    if (mapped->view.geometry.slots != connection->welcome.hot_slots) return;
    HoldHotTable(mapped);
    connection->hot = mapped;
  });
  if (connection->hot == nullptr) connection->hot = MapHotTable(connection->welcome, connection->hot_fd);
  const NoCancel no_cancel;
  close(connection->hot_fd);
  connection->hot_fd = -1;
}

// RETURNS SUTRA_OK and an open lane, or why not; *other is set if the engine is another than the client's.
sutra_status OpenWithin(sutra_client* client, const AttachPatience& patience, bool first, sutra_reason* other) {
  LaneConnection connection;
  sutra_status status = AttachLane(client->path, client->hello, patience, &connection);
  const WelcomeMessage welcome = connection.welcome;
  if (status != SUTRA_OK) return first ? status : CheckRefusal(client, status, welcome, other);
  (void)SUTRA_CHECKPOINT("move.attached");
  if (first) {
    KeepInfo(welcome, &client->info);
    // Later lanes ask for exactly what this one got. Which model serves them is checked here, where the answer to
    // another one can be told from a refusal.
    client->served = welcome;
    client->hello.slots = welcome.slots;
    client->hello.text_bytes_max = welcome.text_bytes_max;
    client->hello.width = 0;
    memset(client->hello.model, 0, sizeof(client->hello.model));
  }
  ClientLane* lane = FindLane(client);
  if (lane == nullptr) {
    status = Fail(SUTRA_OUT_OF_MEMORY, "no memory for a lane of %u slots", client->info.slots);
  } else if (!first) {
    status = CheckSameEngine(client, lane->served.magic != 0 ? lane->served : client->served, welcome, other);
  }
  if (status != SUTRA_OK) {
    CloseConnection(&connection, false);
    return status;
  }
  if (lane->served.magic == 0) lane->served = welcome;
  ShareHotTable(client, &connection);
  NoteAttached(client, welcome);
  return MoveLane(lane, connection, MonotonicNs(), &client->resubmitted);
}

// While nothing listens an attempt costs microseconds, and the next engine is wanted soon; an engine that refuses or is
// overloaded is left alone for longer.
uint64_t BackoffMaxNs(sutra_status status, bool other) {
  const bool none = !other && (status == SUTRA_ENGINE_GONE || status == SUTRA_SHUTTING_DOWN);
  return none ? kBackoffNsMax : kRefusedBackoffNsMax;
}

void EndAllWaiting(sutra_client* client, sutra_reason reason) {
  ForEachLane(client, [reason](ClientLane* lane) {
    if (HasWaiting(lane)) EndWaiting(lane, reason);
  });
}

}  // namespace

sutra_status OpenFirstLane(sutra_client* client, uint64_t deadline_ns) {
  sutra_reason other = SUTRA_REASON_NONE;
  return OpenWithin(client, {.deadline_ns = deadline_ns}, true, &other);
}

bool OpenLane(sutra_client* client, bool (*go_on)(void* context), void* context) {
  client->helper.opening.store(1, std::memory_order_relaxed);  // relaxed: a hint
  sutra_reason other = SUTRA_REASON_NONE;
  const AttachPatience patience = {MonotonicNs() + kReopenTimeoutNs, go_on, context};
  const sutra_status status = OpenWithin(client, patience, false, &other);
  {
    const MutexLock lock(client->attempt_mutex);
    client->helper.opening.store(0, std::memory_order_relaxed);  // relaxed: a hint, and under the mutex
    ++client->attempts;
    client->attempt_status = status;
    if (status == SUTRA_OK) {
      client->other_reason = SUTRA_REASON_NONE;
      client->backoff_ns = kBackoffNsMin;
      client->lost_status = SUTRA_OK;
    } else {
      snprintf(client->attempt_text, sizeof(client->attempt_text), "%s", CurrentThread().error_text);
      const uint64_t max_ns = BackoffMaxNs(status, other != SUTRA_REASON_NONE);
      const uint64_t min_ns = max_ns == kBackoffNsMax ? kBackoffNsMin : kRefusedBackoffNsMin;
      if (client->backoff_ns < min_ns) client->backoff_ns = min_ns;
      if (client->backoff_ns > max_ns) client->backoff_ns = max_ns;
      // relaxed: only paces
      client->open_after_ns.store(MonotonicNs() + client->backoff_ns, std::memory_order_relaxed);
      client->backoff_ns = client->backoff_ns * 2 < max_ns ? client->backoff_ns * 2 : max_ns;
    }
  }
  if (other != SUTRA_REASON_NONE) EndAllWaiting(client, other);
  // An event loop hears of a new lane and of what ended, not of each attempt that failed.
  if (status == SUTRA_OK || other != SUTRA_REASON_NONE) LanesChanged(&client->signals, true);
  return status == SUTRA_OK;
}

LaneCount CountLanes(sutra_client* client, uint64_t now_ns) {
  LaneCount lanes;
  ForEachLane(client, [&](ClientLane* lane) {
    {
      const MutexLock lock(lane->mutex);
      if (UsableLocked(lane, now_ns, &lanes.stalled) == SUTRA_OK) {
        ++lanes.usable;
        lanes.free_slots += ReapLocked(lane);
      }
    }
    lanes.waiting += HasWaiting(lane);
  });
  return lanes;
}

uint32_t OpenLanes(const sutra_client* client) {
  uint32_t open = 0;
  ForEachLane(client, [&open](const ClientLane* lane) { open += !IsLost(lane); });
  return open;
}

}  // namespace sutra::client
