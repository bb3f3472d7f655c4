#include "producer/lane_pool.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <new>

#include "producer/no_cancel.h"

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
ClientLane* FindEmptyLane(sutra_client* client) SUTRA_REQUIRES(client->open_mutex) {
  const uint32_t count = client->lane_count.load(std::memory_order_relaxed);  // relaxed: changes under open_mutex
  for (uint32_t i = 0; i < count; ++i) {
    ClientLane* lane = client->lanes[i].load(std::memory_order_relaxed);  // relaxed: set under open_mutex
    const MutexLock lock(lane->mutex);
    if (RetireLocked(lane)) return lane;
  }
  assert(count <= kLaneTableSize);
  if (count == kLaneTableSize) return nullptr;
  assert(client->lanes[count].load(std::memory_order_relaxed) == nullptr);  // relaxed: set under open_mutex
  ClientLane* lane = MakeClientLane(count, client->info.slots);
  if (lane == nullptr) return nullptr;
  client->lanes[count].store(lane, std::memory_order_relaxed);  // relaxed: published by the count
  // SYNC C2 (release): the table entry; meets SYNC C2 (acquire) in AcquireLane.
  client->lane_count.store(count + 1, std::memory_order_release);
  return lane;
}

// RETURNS true and *lane with its mutex held, or false and *status.
bool OpenLane(sutra_client* client, uint64_t now_ns, ClientLane** lane, sutra_status* status)
    SUTRA_REQUIRES(client->open_mutex) SUTRA_TRY_ACQUIRE(true, (*lane)->mutex) {
  LaneConnection connection;
  *status = AttachLane(client->path, client->hello, now_ns + kReopenTimeoutNs, &connection);
  if (*status == SUTRA_OK) {
    *status = CheckSameEngine(client, connection.welcome);
    *lane = *status == SUTRA_OK ? FindEmptyLane(client) : nullptr;
    if (*lane != nullptr) {
      client->engine_pid = connection.welcome.engine_pid;
      client->engine_generation = connection.welcome.engine_generation;
      client->backoff_ns = kBackoffNsMin;
      (*lane)->mutex.Lock();
      OpenLocked(*lane, connection);
      return true;
    }
    if (*status == SUTRA_OK) {
      *status = Fail(SUTRA_FULL,
                     "no lane can be opened: out of memory, or unreleased tickets of dead engines hold all %u "
                     "lanes; release them",
                     kLaneTableSize);
    }
    CloseConnection(&connection, false);
  }
  client->open_after_ns.store(MonotonicNs() + client->backoff_ns, std::memory_order_relaxed);  // relaxed: only paces
  client->backoff_ns = client->backoff_ns * 2 < kBackoffNsMax ? client->backoff_ns * 2 : kBackoffNsMax;
  return false;
}

struct Survey {            // of the open lanes, by one pass of PickLane
  uint32_t open = 0;       // usable, as far as one can see
  bool contended = false;  // some thread holds a lane's mutex
  bool full = false;       // a usable lane without a free slot
  bool stalled = false;    // its engine's heartbeat is old: it would not answer an attach either
  sutra_status unusable = SUTRA_OK;
};

// Whether a lane has a free slot; notes in *survey what it found. A dead lane is closed when nothing holds it.
bool HasRoomLocked(ClientLane* lane, uint64_t now_ns, Survey* survey) SUTRA_REQUIRES(lane->mutex) {
  if (lane->phase.load(std::memory_order_relaxed) != LanePhase::kOpen) return false;  // relaxed: under the mutex
  const sutra_status usable = UsableLocked(lane, now_ns, &survey->stalled);
  if (usable != SUTRA_OK) {
    survey->unusable = usable;
    RetireLocked(lane);
    return false;
  }
  ++survey->open;
  if (lane->free_count > 0 || ReapLocked(lane) > 0) return true;
  survey->full = true;
  return false;
}

// One pass over the lanes, from the one this thread used last. RETURNS true and the first with a free slot, its mutex
// held.
bool PickLane(sutra_client* client, uint64_t now_ns, bool wait_for_mutex, ClientLane** picked, Survey* survey)
    SUTRA_TRY_ACQUIRE(true, (*picked)->mutex) {
  ThreadState& thread = CurrentThread();
  // SYNC C2 (acquire): see FindEmptyLane.
  const uint32_t count = client->lane_count.load(std::memory_order_acquire);
  const uint32_t start = count == 0 ? 0 : thread.lane_hint % count;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t index = start + i < count ? start + i : start + i - count;
    ClientLane* lane = client->lanes[index].load(std::memory_order_relaxed);        // relaxed: ordered by the count
    if (lane->phase.load(std::memory_order_relaxed) != LanePhase::kOpen) continue;  // relaxed: checked again below
    if (wait_for_mutex) {
      lane->mutex.Lock();
    } else if (!lane->mutex.TryLock()) {
      survey->contended = true;
      ++survey->open;
      continue;
    }
    if (HasRoomLocked(lane, now_ns, survey)) {
      thread.lane_hint = index;
      *picked = lane;
      return true;
    }
    lane->mutex.Unlock();
  }
  return false;
}

// No lane is left: opens one, or finds the one that another thread opened meanwhile.
bool ReplaceLanes(sutra_client* client, uint64_t now_ns, const Survey& survey, ClientLane** lane, sutra_status* status)
    SUTRA_EXCLUDES(client->open_mutex) SUTRA_TRY_ACQUIRE(true, (*lane)->mutex) {
  const MutexLock lock(client->open_mutex);
  Survey again;
  if (PickLane(client, now_ns, true, lane, &again)) return true;
  if (again.full) {
    *status = SUTRA_FULL;
    return false;
  }
  if (now_ns >= client->open_after_ns.load(std::memory_order_relaxed)) {  // relaxed: only paces
    sutra_status opened = SUTRA_OK;
    const bool open = OpenLane(client, now_ns, lane, &opened);
    client->open_status = opened;
    snprintf(client->open_text, sizeof(client->open_text), "%s", CurrentThread().error_text);
    if (open) return true;
  }
  // While the old engine drains, or a new one says so, the caller should come back soon; all else is "gone".
  const bool soon = survey.unusable == SUTRA_SHUTTING_DOWN || client->open_status == SUTRA_SHUTTING_DOWN;
  *status = client->open_status == SUTRA_FULL             ? SUTRA_FULL
            : soon                                        ? SUTRA_SHUTTING_DOWN
            : survey.unusable == SUTRA_PROTOCOL_VIOLATION ? SUTRA_PROTOCOL_VIOLATION
                                                          : SUTRA_ENGINE_GONE;
  Fail(*status, "%s; each new call tries to attach again; last attempt: %s",
       soon ? "the engine is shutting down" : "the engine is gone", client->open_text);
  return false;
}

// Lanes that are open and not known to be dead, whoever holds them.
uint32_t CountUsable(const sutra_client* client) {
  const uint32_t count = client->lane_count.load(std::memory_order_acquire);  // SYNC C2 (acquire): see FindEmptyLane
  uint32_t usable = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const ClientLane* lane = client->lanes[i].load(std::memory_order_relaxed);  // relaxed: ordered by the count
    // relaxed: lanes open under open_mutex only
    usable += lane->phase.load(std::memory_order_relaxed) == LanePhase::kOpen && !IsGone(lane);
  }
  return usable;
}

}  // namespace

bool AddLane(sutra_client* client, uint64_t now_ns, ClientLane** lane) {
  if (!client->open_mutex.TryLock()) return false;
  sutra_status opened;
  // Counted once more: since the caller looked, another thread may have opened one.
  const bool open = CountUsable(client) < client->lanes_max && OpenLane(client, now_ns, lane, &opened);
  client->open_mutex.Unlock();
  if (open) CurrentThread().lane_hint = (*lane)->index;
  return open;
}

sutra_client* NewClient(const char* path, const sutra_attach_options& options, const HelloMessage& hello) {
  void* memory = malloc(sizeof(sutra_client));
  if (memory == nullptr) return nullptr;
  sutra_client* client = new (memory) sutra_client();
  strcpy(client->path, path);
  client->hello = hello;
  client->lanes_max = options.lanes_max == 0            ? kLanesDefault
                      : options.lanes_max < kLanesLimit ? options.lanes_max
                                                        : kLanesLimit;
  client->spin_ns = uint64_t{options.spin_us == 0 ? kSpinUsDefault : options.spin_us} * 1000;
  client->fork_detector = MakeForkDetector();
  return client;
}

void FreeClient(sutra_client* client, bool forked) {
  const uint32_t count = client->lane_count.load(std::memory_order_acquire);  // SYNC C2 (acquire)
  for (uint32_t i = 0; i < count; ++i) {
    DestroyClientLane(client->lanes[i].load(std::memory_order_relaxed), forked);  // relaxed: ordered by the count
  }
  DestroyForkDetector(&client->fork_detector);
  client->~sutra_client();
  free(client);
}

sutra_status OpenFirstLane(sutra_client* client, uint64_t deadline_ns) {
  LaneConnection connection;
  const sutra_status status = AttachLane(client->path, client->hello, deadline_ns, &connection);
  if (status != SUTRA_OK) return status;
  KeepInfo(connection.welcome, &client->info);
  // Later lanes ask for exactly what this one got.
  client->hello.slots = connection.welcome.slots;
  client->hello.text_bytes_max = connection.welcome.text_bytes_max;
  client->hello.width = connection.welcome.width;
  const MutexLock open_lock(client->open_mutex);
  client->engine_pid = connection.welcome.engine_pid;
  client->engine_generation = connection.welcome.engine_generation;
  ClientLane* lane = FindEmptyLane(client);
  if (lane == nullptr) {
    CloseConnection(&connection, false);
    return Fail(SUTRA_OUT_OF_MEMORY, "no memory for a lane of %u slots", client->info.slots);
  }
  const MutexLock lane_lock(lane->mutex);
  OpenLocked(lane, connection);
  return SUTRA_OK;
}

bool AcquireLane(sutra_client* client, uint64_t now_ns, ClientLane** lane, sutra_status* status) {
  Survey survey;
  if (PickLane(client, now_ns, false, lane, &survey)) return true;
  if (survey.open == 0) return ReplaceLanes(client, now_ns, survey, lane, status);

  const bool paced = now_ns < client->open_after_ns.load(std::memory_order_relaxed);  // relaxed: only paces
  const bool may_add = survey.open < client->lanes_max && !paced && !survey.stalled;
  if (may_add && AddLane(client, now_ns, lane)) return true;

  Survey again;  // now waiting for lanes that others hold; another thread may also have added one
  if ((survey.contended || may_add) && PickLane(client, now_ns, true, lane, &again)) return true;
  if (survey.contended && again.open == 0) return ReplaceLanes(client, now_ns, again, lane, status);
  *status = Fail(SUTRA_FULL,
                 "no free slot: tickets hold all %u slots of every lane; release some, or attach with more "
                 "slots or lanes_max",
                 client->info.slots);
  return false;
}

namespace {

// Whether released requests still occupy slots: then it is the engine, not the caller's tickets, that leaves no room.
bool EngineOwesAnswers(sutra_client* client) {
  const uint32_t count = client->lane_count.load(std::memory_order_acquire);  // SYNC C2 (acquire)
  for (uint32_t i = 0; i < count; ++i) {
    ClientLane* lane = client->lanes[i].load(std::memory_order_relaxed);  // relaxed: ordered by the count
    const MutexLock lock(lane->mutex);
    // relaxed: under the mutex
    if (lane->phase.load(std::memory_order_relaxed) == LanePhase::kOpen && lane->abandoned_count > 0) return true;
  }
  return false;
}

// Waits for a release in the lane that this thread used last.
void WaitForRoom(sutra_client* client, uint64_t until_ns) {
  const NoCancel no_cancel;
  // SYNC C2 (acquire): see FindEmptyLane; there is at least the lane of the attach.
  const uint32_t count = client->lane_count.load(std::memory_order_acquire);
  assert(count > 0);
  // relaxed: ordered by the count
  ClientLane* lane = client->lanes[CurrentThread().lane_hint % count].load(std::memory_order_relaxed);
  const MutexLock lock(lane->mutex);
  ++lane->waiters;
  if (lane->free_count == 0) lane->slot_freed.WaitUntil(lane->mutex, until_ns);
  --lane->waiters;
}

}  // namespace

bool AcquireLaneWaiting(sutra_client* client, uint64_t until_ns, ClientLane** lane, sutra_status* status) {
  for (;;) {
    const uint64_t now_ns = MonotonicNs();
    if (AcquireLane(client, now_ns, lane, status)) return true;
    if (*status != SUTRA_FULL) return false;
    if (now_ns >= until_ns) {
      if (EngineOwesAnswers(client)) {
        *status = Fail(SUTRA_DEADLINE_EXCEEDED, "no free slot until the deadline: the engine is stopped or overloaded");
      }
      return false;
    }
    // Short slices: a slot may also come free by the answer to an abandoned request, which signals no condition.
    const uint64_t slice_ns = now_ns + 5 * kNsPerMs;
    WaitForRoom(client, slice_ns < until_ns ? slice_ns : until_ns);
  }
}

}  // namespace sutra::client
