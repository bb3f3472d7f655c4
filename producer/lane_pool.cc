#include "producer/lane_pool.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <new>

#include "producer/cancel_all.h"
#include "producer/lane_helper.h"

namespace sutra::client {
namespace {

// What a call looks for; on the stack of a waiting call, whose claim it carries from one look to the next.
struct Wanted {
  uint32_t text_bytes = 0;
  bool claims = false;            // it may claim pages of a lane, once
  ClientLane* claimed = nullptr;  // where it did
  uint64_t claimed_until_ns = 0;
  uint32_t claimed_used = 0;  // pages of the claim that others still use

  uintptr_t claimant() const { return reinterpret_cast<uintptr_t>(this); }
};

// Whoever was kept off by the claim looks again.
void EndClaim(sutra_client* client, Wanted* wanted) {
  if (wanted->claimed == nullptr) return;
  if (wanted->claimed->tail.EndClaim(wanted->claimant())) RoomFreed(&client->signals);
  wanted->claimed = nullptr;
}

// Makes the claim, or keeps it up for as long as its pages become free.
void ClaimLocked(ClientLane* lane, uint64_t now_ns, Wanted* wanted) SUTRA_REQUIRES(lane->mutex) {
  const uint32_t pages = TailArena::PagesOf(wanted->text_bytes);
  if (wanted->claims && !lane->tail.HasRoom(pages, 0) && lane->tail.Claim(wanted->claimant(), pages)) {
    wanted->claims = false;
    wanted->claimed = lane;
    wanted->claimed_used = UINT32_MAX;
  }
  if (wanted->claimed != lane) return;
  const uint32_t used = lane->tail.ClaimedPagesUsed();
  if (used < wanted->claimed_used) wanted->claimed_until_ns = now_ns + kClaimNs;
  wanted->claimed_used = used;
}

struct Survey {          // of the open lanes, by one pass of PickLane
  uint32_t open = 0;     // usable, as far as one can see
  bool stalled = false;  // its engine's heartbeat is old: it would not answer an attach either
  bool owed = false;     // released requests occupy slots: it is the engine that leaves no room
  bool slot = false;     // one is free, but no run of pages
  sutra_status unusable = SUTRA_OK;
};

// Whether a lane has room; notes in *survey what it found. A dead lane is closed when nothing holds it.
bool LookLocked(ClientLane* lane, uint64_t now_ns, Wanted* wanted, Survey* survey) SUTRA_REQUIRES(lane->mutex) {
  if (lane->phase.load(std::memory_order_relaxed) != LanePhase::kOpen) return false;  // relaxed: under the mutex
  const sutra_status usable = UsableLocked(lane, now_ns, &survey->stalled);
  if (usable != SUTRA_OK) {
    survey->unusable = usable;
    RetireLocked(lane);
    return false;
  }
  ++survey->open;
  if (HasRoomLocked(lane, wanted->text_bytes, wanted->claimant())) return true;
  survey->owed = survey->owed || lane->abandoned_count > 0;
  survey->slot = survey->slot || lane->free_count > 0;
  lane->room_asked = true;
  ClaimLocked(lane, now_ns, wanted);
  return false;
}

// One pass over the lanes, from the one this thread used last. RETURNS true and the first with room, its mutex
// held. A mutex may be waited for: it is held for one text's copy and at most one call of the kernel that does not wait
// for anybody (the pages of a long text; a look at the engine's lock), never during a handshake or a wait.
bool PickLane(sutra_client* client, uint64_t now_ns, bool wait_for_mutex, Wanted* wanted, ClientLane** picked,
              Survey* survey) SUTRA_TRY_ACQUIRE(true, (*picked)->mutex) {
  ThreadState& thread = CurrentThread();
  // SYNC C2 (acquire): see FindEmptyLane in lane_open.cc.
  const uint32_t count = client->lane_count.load(std::memory_order_acquire);
  assert(count <= kLaneTableSize);
  const uint32_t start = count == 0 ? 0 : thread.lane_hint % count;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t index = start + i < count ? start + i : start + i - count;
    ClientLane* lane = client->lanes[index].load(std::memory_order_relaxed);        // relaxed: ordered by the count
    if (lane->phase.load(std::memory_order_relaxed) != LanePhase::kOpen) continue;  // relaxed: checked again below
    // Without its mutex, under which a dead lane's memory is unmapped.
    if (const uint32_t gone = lane->gone.load(std::memory_order_relaxed); gone != 0) {  // relaxed: only a number
      survey->unusable = gone;
      continue;
    }
    if (wait_for_mutex) {
      lane->mutex.Lock();
    } else if (!lane->mutex.TryLock()) {
      ++survey->open;
      continue;
    }
    if (LookLocked(lane, now_ns, wanted, survey)) {
      thread.lane_hint = index;
      *picked = lane;
      return true;
    }
    lane->mutex.Unlock();
  }
  return false;
}

// No lane is left. RETURNS the status and keeps the reason; the helper thread attaches meanwhile.
sutra_status FailWithoutLane(sutra_client* client, sutra_status unusable) {
  AskForLane(client, false);
  const MutexLock lock(client->attempt_mutex);
  if (client->attempt_status == SUTRA_FULL) return Fail(SUTRA_FULL, "%s", client->attempt_text);
  const sutra_status lost = client->lost_status;
  const auto ended = [&](sutra_status status) { return unusable == status || lost == status; };
  // While the old engine drains, or a new one says so, the caller should come back soon; all else is "gone".
  const bool soon = ended(SUTRA_SHUTTING_DOWN) || client->attempt_status == SUTRA_SHUTTING_DOWN;
  const sutra_status status = soon                              ? SUTRA_SHUTTING_DOWN
                              : ended(SUTRA_PROTOCOL_VIOLATION) ? SUTRA_PROTOCOL_VIOLATION
                                                                : SUTRA_ENGINE_GONE;
  return Fail(status, "%s; the client attaches again by itself; last attempt: %s",
              soon ? "the engine is shutting down" : "the engine is gone",
              client->attempt_status == SUTRA_OK ? "none yet" : client->attempt_text);
}

sutra_status FailFull(const sutra_client* client, const Wanted& wanted, bool slot) {
  if (slot) {
    return Fail(
        SUTRA_FULL,
        "no room for a text of %u bytes: long texts that are under way fill the lane's arena; wait for them and "
        "release their tickets, or attach with more lanes_max",
        wanted.text_bytes);
  }
  return Fail(SUTRA_FULL,
              "no free slot: tickets hold all %u slots of every lane; release some, or attach with more slots or "
              "lanes_max",
              client->info.slots);
}

// `wish`: where there is no room, the caller's event loop is told once there is.
bool AcquireLane(sutra_client* client, uint64_t now_ns, bool wish, Wanted* wanted, ClientLane** lane,
                 sutra_status* status, bool* owed) SUTRA_TRY_ACQUIRE(true, (*lane)->mutex) {
  Survey survey;
  if (PickLane(client, now_ns, false, wanted, lane, &survey)) return true;
  if (survey.open > 0 && survey.open < client->lanes_max && !survey.stalled) AskForLane(client, true);
  // Once more, now waiting for lanes that others hold. Those that are full will say when they have room, to waiting
  // calls, and to the caller's event loop if it wished before; so will a lane that this look does not see yet.
  if (wish) WishForRoom(&client->signals);
  survey = Survey();
  const bool found = PickLane(client, now_ns, true, wanted, lane, &survey);
  if (!found) {
    *owed = survey.owed;
    *status = survey.open == 0 ? FailWithoutLane(client, survey.unusable) : FailFull(client, *wanted, survey.slot);
  }
  if (wish && (found || *status != SUTRA_FULL)) TakeWishBack(&client->signals);
  return found;
}

// Waits for the attempt to open a lane that is under way or due. RETURNS false at once if the helper thread backs off.
bool AwaitAttempt(sutra_client* client, uint32_t cancel_epoch, RoomWaiter* waiter, uint64_t until_ns) {
  const uint64_t now_ns = MonotonicNs();
  const auto attempts = [client] {
    const MutexLock lock(client->attempt_mutex);
    return client->attempts;
  };
  const uint64_t before = attempts();
  const bool opening = client->helper.opening.load(std::memory_order_relaxed) != 0;              // relaxed: a hint
  if (!opening && now_ns < client->open_after_ns.load(std::memory_order_relaxed)) return false;  // relaxed: only paces
  AskForLane(client, false);
  if (now_ns + kAwaitLaneNs < until_ns) until_ns = now_ns + kAwaitLaneNs;
  while (attempts() == before && !IsCancelled(client->signals, cancel_epoch) && MonotonicNs() < until_ns) {
    waiter->Wait(until_ns);
  }
  return true;
}

// AcquireLane again and again, until there is room or the time is over.
bool WaitForLane(sutra_client* client, uint64_t until_ns, uint32_t cancel_epoch, Wanted* wanted, ClientLane** lane,
                 sutra_status* status) SUTRA_TRY_ACQUIRE(true, (*lane)->mutex) {
  bool awaited = false;
  // From here on no release and no new lane is missed.
  RoomWaiter waiter(&client->signals, wanted->text_bytes > kTextHeadBytes);
  for (;;) {
    const uint64_t now_ns = MonotonicNs();
    bool owed = false;
    if (AcquireLane(client, now_ns, false, wanted, lane, status, &owed)) return true;
    if (IsCancelled(client->signals, cancel_epoch)) {
      *status = FailCancelled();
      return false;
    }
    if (*status != SUTRA_FULL) {
      if (awaited || !AwaitAttempt(client, cancel_epoch, &waiter, until_ns)) return false;
      awaited = true;
      continue;
    }
    if (now_ns >= until_ns) {
      if (owed) {
        *status = Fail(SUTRA_DEADLINE_EXCEEDED, "no free slot until the deadline: the engine is stopped or overloaded");
      }
      return false;
    }
    if (now_ns >= wanted->claimed_until_ns) EndClaim(client, wanted);
    // A slot may also come free by the answer to an abandoned request, which tells nobody.
    const uint64_t slice_ns = now_ns + (owed ? 5 * kNsPerMs : kSleepSliceNs);
    waiter.Wait(slice_ns < until_ns ? slice_ns : until_ns);
  }
}

}  // namespace

sutra_client* NewClient(const char* path, const sutra_attach_options& options, const HelloMessage& hello) {
  void* memory = malloc(sizeof(sutra_client));
  if (memory == nullptr) return nullptr;
  sutra_client* client = new (memory) sutra_client();
  strcpy(client->path, path);
  client->hello = hello;
  client->lanes_max = options.lanes_max == 0            ? kLanesDefault
                      : options.lanes_max < kLanesLimit ? options.lanes_max
                                                        : kLanesLimit;
  client->spin_ns = uint64_t{options.spin_us} * 1000;
  client->fork_detector = MakeForkDetector();
  return client;
}

void FreeClient(sutra_client* client, bool forked) {
  StopHelper(client, forked);
  const uint32_t count = client->lane_count.load(std::memory_order_acquire);  // SYNC C2 (acquire)
  for (uint32_t i = 0; i < count; ++i) {
    DestroyClientLane(client->lanes[i].load(std::memory_order_relaxed), forked);  // relaxed: ordered by the count
  }
  CloseSignals(&client->signals);
  DestroyForkDetector(&client->fork_detector);
  client->~sutra_client();
  free(client);
}

bool AcquireLane(sutra_client* client, uint64_t now_ns, uint32_t text_bytes, ClientLane** lane, sutra_status* status) {
  bool owed = false;
  Wanted wanted = {.text_bytes = text_bytes};
  EndRoomWish(&client->signals);
  return AcquireLane(client, now_ns, true, &wanted, lane, status, &owed);
}

bool AcquireLaneWaiting(sutra_client* client, uint64_t until_ns, uint32_t text_bytes, uint32_t cancel_epoch,
                        ClientLane** lane, sutra_status* status) {
  bool owed = false;
  Wanted wanted = {.text_bytes = text_bytes};
  if (AcquireLane(client, MonotonicNs(), false, &wanted, lane, status, &owed)) return true;
  wanted.claims = text_bytes > kTextHeadBytes;
  const bool found = WaitForLane(client, until_ns, cancel_epoch, &wanted, lane, status);
  EndClaim(client, &wanted);
  return found;
}

}  // namespace sutra::client
