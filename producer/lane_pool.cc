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
  bool claims = false;           // it may claim pages of a lane, once
  TailArena* claimed = nullptr;  // where it did
  uint64_t claimed_until_ns = 0;
  uint32_t claimed_used = 0;  // pages of the claim that others still use

  uintptr_t claimant() const { return reinterpret_cast<uintptr_t>(this); }
};

// Whoever was kept off by the claim looks again.
void EndClaim(sutra_client* client, Wanted* wanted) {
  if (wanted->claimed == nullptr) return;
  if (wanted->claimed->EndClaim(wanted->claimant())) RoomFreed(&client->signals);
  wanted->claimed = nullptr;
}

// Makes the claim, or keeps it up for as long as its pages become free.
void ClaimLocked(ClientLane* lane, uint64_t now_ns, Wanted* wanted) SUTRA_REQUIRES(lane->mutex) {
  const uint32_t pages = TailArena::PagesOf(wanted->text_bytes);
  if (wanted->claimed == &lane->tail && !lane->tail.IsClaimedBy(wanted->claimant())) {  // it went with its engine
    wanted->claimed = nullptr;
    wanted->claims = true;
  }
  if (wanted->claims && !lane->tail.HasRoom(pages, 0) && lane->tail.Claim(wanted->claimant(), pages)) {
    wanted->claims = false;
    wanted->claimed = &lane->tail;
    wanted->claimed_used = UINT32_MAX;
  }
  if (wanted->claimed != &lane->tail) return;
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

struct Refusal {  // why a call gets no lane
  sutra_status status = SUTRA_OK;
  bool owed = false;   // as Survey::owed
  bool final = false;  // the engine that came back is another than the client's
};

// Whether a lane has room; notes in *survey what it found.
bool LookLocked(ClientLane* lane, uint64_t now_ns, Wanted* wanted, Survey* survey) SUTRA_REQUIRES(lane->mutex) {
  const sutra_status usable = UsableLocked(lane, now_ns, &survey->stalled);
  if (usable != SUTRA_OK) {
    survey->unusable = usable;
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

// One pass over the lanes, from the one this thread used last. RETURNS true and the first with room, its mutex held. A
// mutex may be waited for: it is held for one text's copy and at most one call of the kernel that does not wait for
// anybody (the pages of a long text; a look at the engine's lock), never during a handshake or a wait. While a lane's
// requests move it is held for longer, but such a lane is lost and passed by.
bool PickLane(sutra_client* client, uint64_t now_ns, bool wait_for_mutex, Wanted* wanted, ClientLane** picked,
              Survey* survey) SUTRA_TRY_ACQUIRE(true, (*picked)->mutex) {
  ThreadState& thread = CurrentThread();
  // SYNC C2 (acquire): see FindLane in lane_open.cc.
  const uint32_t count = client->lane_count.load(std::memory_order_acquire);
  assert(count <= kLaneTableSize);
  const uint32_t start = count == 0 ? 0 : thread.lane_hint % count;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t index = start + i < count ? start + i : start + i - count;
    ClientLane* lane = client->lanes[index].load(std::memory_order_relaxed);  // relaxed: ordered by the count
    // Without its mutex, under which the requests of a lost lane move.
    if (const uint32_t lost = lane->lost.load(std::memory_order_relaxed); lost != 0) {  // relaxed: only a number
      survey->unusable = lost;
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

// No lane is left. Keeps the reason; the helper thread attaches meanwhile.
Refusal RefuseWithoutLane(sutra_client* client, sutra_status unusable) {
  AskForLane(client, false);
  const MutexLock lock(client->attempt_mutex);
  if (client->other_reason != SUTRA_REASON_NONE) {
    return {FailGone(client->other_reason, "%s", client->other_text), false, true};
  }
  const sutra_status lost = client->lost_status;
  const auto ended = [&](sutra_status status) { return unusable == status || lost == status; };
  // While the old engine drains, or a new one says so, the caller should come back soon; all else is "gone".
  const bool soon = ended(SUTRA_SHUTTING_DOWN) || client->attempt_status == SUTRA_SHUTTING_DOWN;
  const sutra_status status = soon                              ? SUTRA_SHUTTING_DOWN
                              : ended(SUTRA_PROTOCOL_VIOLATION) ? SUTRA_PROTOCOL_VIOLATION
                                                                : SUTRA_ENGINE_GONE;
  FailGone(SUTRA_REASON_DIED, "%s; the client attaches again by itself; last attempt: %s",
           soon ? "the engine is shutting down" : "the engine is gone",
           client->attempt_status == SUTRA_OK ? "none yet" : client->attempt_text);
  return {status};
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

// `wish`: where there is no room or no engine, the caller's event loop is told once there is.
bool AcquireLane(sutra_client* client, uint64_t now_ns, bool wish, Wanted* wanted, ClientLane** lane, Refusal* refusal)
    SUTRA_TRY_ACQUIRE(true, (*lane)->mutex) {
  Survey survey;
  if (PickLane(client, now_ns, false, wanted, lane, &survey)) return true;
  if (survey.open > 0 && survey.open < client->lanes_max && !survey.stalled) AskForLane(client, true);
  // Once more, now waiting for lanes that others hold. Those that are full will say when they have room, to waiting
  // calls, and to the caller's event loop if it wished before; so will a lane that this look does not see yet, or sees
  // without an engine.
  if (wish) WishForRoom(&client->signals);
  survey = Survey();
  const bool found = PickLane(client, now_ns, true, wanted, lane, &survey);
  if (!found) {
    *refusal = survey.open == 0 ? RefuseWithoutLane(client, survey.unusable)
                                : Refusal{FailFull(client, *wanted, survey.slot), survey.owed};
  }
  if (wish && (found || refusal->final)) TakeWishBack(&client->signals);
  return found;
}

// Nothing came of the wait until the deadline.
sutra_status FailAtDeadline(sutra_client* client, const Refusal& refusal) {
  if (refusal.status != SUTRA_FULL) return FailWithoutEngine(client);
  if (!refusal.owed) return SUTRA_FULL;
  return Fail(SUTRA_DEADLINE_EXCEEDED, "no free slot until the deadline: the engine is stopped or overloaded");
}

// AcquireLane again and again, until there is room or the time is over.
bool WaitForLane(sutra_client* client, uint64_t until_ns, bool fail_fast, uint32_t cancel_epoch, Wanted* wanted,
                 ClientLane** lane, sutra_status* status) SUTRA_TRY_ACQUIRE(true, (*lane)->mutex) {
  // From here on no release and no new lane is missed.
  RoomWaiter waiter(&client->signals, wanted->text_bytes > kTextHeadBytes);
  for (;;) {
    const uint64_t now_ns = MonotonicNs();
    Refusal refusal;
    if (AcquireLane(client, now_ns, false, wanted, lane, &refusal)) return true;
    if (IsCancelled(client->signals, cancel_epoch)) {
      *status = FailCancelled();
      return false;
    }
    const bool no_engine = refusal.status != SUTRA_FULL;
    if (no_engine && (fail_fast || refusal.final)) {
      *status = refusal.status;
      return false;
    }
    if (now_ns >= until_ns) {
      *status = FailAtDeadline(client, refusal);
      return false;
    }
    if (now_ns >= wanted->claimed_until_ns) EndClaim(client, wanted);
    // A slot may also come free by the answer to an abandoned request, which tells nobody.
    const uint64_t slice_ns = now_ns + (refusal.owed ? 5 * kNsPerMs : kSleepSliceNs);
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
  ForEachLane(client, [forked](ClientLane* lane) { DestroyClientLane(lane, forked); });
  CloseSignals(&client->signals);
  DestroyForkDetector(&client->fork_detector);
  client->~sutra_client();
  free(client);
}

bool AcquireLane(sutra_client* client, uint64_t now_ns, uint32_t text_bytes, ClientLane** lane, sutra_status* status) {
  Refusal refusal;
  Wanted wanted = {.text_bytes = text_bytes};
  EndRoomWish(&client->signals);
  if (AcquireLane(client, now_ns, true, &wanted, lane, &refusal)) return true;
  *status = refusal.status;
  return false;
}

bool AcquireLaneWaiting(sutra_client* client, uint64_t until_ns, const LaneWish& wish, ClientLane** lane,
                        sutra_status* status) {
  Refusal refusal;
  Wanted wanted = {.text_bytes = wish.text_bytes};
  if (AcquireLane(client, CycleNs(), false, &wanted, lane, &refusal)) return true;
  wanted.claims = wish.text_bytes > kTextHeadBytes;
  const bool found = WaitForLane(client, until_ns, wish.fail_fast, wish.cancel_epoch, &wanted, lane, status);
  EndClaim(client, &wanted);
  return found;
}

sutra_status FailWithoutEngine(const sutra_client* client) {
  const MutexLock lock(client->attempt_mutex);
  return Fail(SUTRA_DEADLINE_EXCEEDED,
              "%s: there was no engine until the deadline; raise timeout_ms, or start one; last attempt to attach: %s",
              client->path, client->attempt_status == SUTRA_OK ? "none yet" : client->attempt_text);
}

}  // namespace sutra::client
