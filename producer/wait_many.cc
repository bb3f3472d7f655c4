#include "producer/wait_many.h"

#include <assert.h>

#include "producer/lane_wait.h"
#include "producer/slot_end.h"
#include "producer/ticket.h"

namespace sutra::client {
namespace {

constexpr uint64_t kFallbackSliceNs = 1 * kNsPerMs;  // on one of several lanes' words, where the kernel cannot do more
static_assert(kLaneTableSize <= 64, "lanes_seen is a bit per lane");
static_assert(kLaneTableSize <= kFutexWaitersMax);

std::atomic<bool> futex_waitv_missing{false};  // relaxed throughout: found out once more costs one call

// Where this waiter sleeps for the tickets of a lane: on its engine's word, or on its count of moves while the engine
// is gone.
struct Spot {
  ClientLane* lane = nullptr;
  Attachment* home = nullptr;       // of a ticket of the lane, whose engine serves; nullptr = gone
  uint32_t word = 0;                // its value when this waiter looked
  uint64_t passed_on = UINT64_MAX;  // the value slept on when this waiter last woke the lane's others

  SharedWord<uint32_t>& sleepers() const { return home->connection.mapping.request.client().sleepers; }
  const EngineLine& engine() const { return home->connection.mapping.reply.engine(); }
  const uint32_t* address() const {
    return home != nullptr ? engine().futex_word.futex_address() : lane->moves.futex_address();
  }
  // A closed or gone lane bumps its word no more, or for the last time.
  bool over() const {
    if (home == nullptr) return false;
    // SYNC L7 (acquire): all answers of a closed lane are visible; meets the engine's release of the state.
    return engine().state.load(std::memory_order_acquire) == kLaneClosed || IsGone(*home);
  }
};

class AnyWait {
 public:
  AnyWait(sutra_client* client, const sutra_ticket* tickets, size_t count)
      : client_(client), tickets_(tickets), count_(count) {
    uint64_t lanes_seen = 0;
    for (size_t i = 0; i < count; ++i) {
      const Place place = PlaceOf(i);
      const uint64_t bit = uint64_t{1} << place.lane->index;
      if ((lanes_seen & bit) == 0) spots_[spot_count_++].lane = place.lane;
      lanes_seen |= bit;
      const uint64_t deadline_ns = place.lane->slots[place.slot].deadline_ns;
      if (deadline_ns < deadline_ns_) deadline_ns_ = deadline_ns;
    }
  }

  // RETURNS the index of the first ticket that is done, or `count`.
  size_t Run(uint64_t timeout_ns) {
    size_t index = Look(0);
    if (index < count_) return index;
    FindHomes();
    if (timeout_ns == 0) {
      AskLanes(CycleNs());
      return Look(MonotonicNs());
    }
    const uint64_t start_ns = CycleNs();
    uint64_t until_ns = start_ns + timeout_ns;
    if (deadline_ns_ < until_ns) until_ns = deadline_ns_;
    index = Spin(start_ns, until_ns);
    while (index == count_ && MonotonicNs() < until_ns) index = Sleep(until_ns);
    return index < count_ ? index : Look(MonotonicNs());
  }

 private:
  struct Place {
    ClientLane* lane;
    uint32_t slot;
  };
  Place PlaceOf(size_t i) const {
    Place place = {};
    [[maybe_unused]] const bool found = FindTicket(client_, tickets_[i], &place.lane, &place.slot);
    assert(found);
    return place;
  }

  size_t Look(uint64_t now_ns) const {
    for (size_t i = 0; i < count_; ++i) {
      const Place place = PlaceOf(i);
      if (SettleSlot(place.lane, place.slot, now_ns) != SUTRA_NOT_READY) return i;
    }
    return count_;
  }

  // What a move of requests changes before its bump is seen by the looks at homes and ends that follow; a bump after
  // the loads of the counts ends the sleep.
  void FindHomes() {
    for (uint32_t i = 0; i < spot_count_; ++i) {
      Spot& spot = spots_[i];
      spot.word = spot.lane->moves.load(std::memory_order_acquire);  // SYNC C4 (acquire): see WaitForSlot
      Attachment* const before = spot.home;
      spot.home = nullptr;
      for (size_t k = 0; k < count_ && spot.home == nullptr; ++k) {
        const Place place = PlaceOf(k);
        Attachment* const home = place.lane == spot.lane ? HomeOf(place.lane, place.slot) : nullptr;
        if (home != nullptr && !IsGone(*home)) spot.home = home;
      }
      if (spot.home != before) spot.passed_on = UINT64_MAX;
    }
  }

  size_t Spin(uint64_t now_ns, uint64_t until_ns) {
    ClientLane* lane = spots_[0].lane;
    if (client_->spin_ns == 0 || !WorthSpinning(lane)) return count_;
    if (now_ns + client_->spin_ns < until_ns) until_ns = now_ns + client_->spin_ns;
    const size_t looks = count_ < 16 ? 16 / count_ : 1;  // between two looks at the clock
    for (; now_ns < until_ns; now_ns = CycleNs()) {
      for (size_t i = 0; i < looks; ++i) {
        const size_t index = Look(0);
        if (index < count_) {
          NoteSpin(lane, true);
          return index;
        }
        CpuPause();
      }
    }
    NoteSpin(lane, false);
    return count_;
  }

  // Sleeps once, for a slice at most. RETURNS as Run.
  size_t Sleep(uint64_t until_ns) {
    const uint64_t slice_ns = MonotonicNs() + kSleepSliceNs;
    FindHomes();
    AddToSleepers(1);
    FullFence();  // SYNC L4: the stores before the loads of the results
    bool over = false;
    for (uint32_t i = 0; i < spot_count_; ++i) {
      Spot& spot = spots_[i];
      // SYNC L4 (acquire): a bumped word shows the answers that were published before.
      if (spot.home != nullptr) spot.word = spot.engine().futex_word.load(std::memory_order_acquire);
      over = over || spot.over();
    }
    const size_t ready = Look(0);
    const bool woken = ready == count_ && !over && SleepOnWords(slice_ns < until_ns ? slice_ns : until_ns);
    AddToSleepers(UINT32_MAX);  // minus one
    if (woken) PassOn();
    if (ready < count_) return ready;
    const size_t index = Look(0);
    if (index == count_) AskLanes(MonotonicNs());
    return index;
  }

  void AddToSleepers(uint32_t number) {
    for (uint32_t i = 0; i < spot_count_; ++i) {
      // relaxed: ordered by the fence; on leaving, an engine that sees it late makes one needless wake
      if (spots_[i].home != nullptr) spots_[i].sleepers().fetch_add(number, std::memory_order_relaxed);
    }
  }

  bool SleepOnWords(uint64_t until_ns) {
    if (spot_count_ == 1) return FutexWait(spots_[0].address(), spots_[0].word, until_ns);
    if (!futex_waitv_missing.load(std::memory_order_relaxed)) {
      FutexWaiter waiters[kLaneTableSize];
      for (uint32_t i = 0; i < spot_count_; ++i) waiters[i] = FutexWaiter(spots_[i].address(), spots_[i].word);
      const FutexWoken woken = FutexWaitAny(waiters, spot_count_, until_ns);
      if (woken != FutexWoken::kUnsupported) return woken == FutexWoken::kYes;
      futex_waitv_missing.store(true, std::memory_order_relaxed);
    }
    const Spot& spot = spots_[turn_++ % spot_count_];
    const uint64_t slice_ns = MonotonicNs() + kFallbackSliceNs;
    return FutexWait(spot.address(), spot.word, slice_ns < until_ns ? slice_ns : until_ns);
  }

  // First of all: the engine has woken only some, and they wake the rest.
  void PassOn() {
    for (uint32_t i = 0; i < spot_count_; ++i) {
      Spot& spot = spots_[i];
      if (spot.home == nullptr) continue;  // whoever moves requests wakes all
      const LaneMapping& mapping = spot.home->connection.mapping;
      const auto wake = spot_count_ == 1 ? WakeOtherSleepers : WakeAllOtherSleepers;
      wake(mapping.request, mapping.reply, spot.word, spot.passed_on == spot.word);
      spot.passed_on = spot.word;
    }
  }

  // Whether their engines live, now and then.
  void AskLanes(uint64_t now_ns) {
    for (uint32_t i = 0; i < spot_count_; ++i) {
      const Spot& spot = spots_[i];
      if (spot.home == nullptr) continue;
      const uint64_t checked_ns = spot.home->alive_checked_ns.load(std::memory_order_relaxed);  // relaxed: only paces
      if (spot.over() || now_ns - checked_ns > kAliveCheckNs) CheckAlive(spot.lane, spot.home, now_ns);
    }
  }

  sutra_client* const client_;
  const sutra_ticket* const tickets_;
  const size_t count_;
  Spot spots_[kLaneTableSize];
  uint32_t spot_count_ = 0;
  uint32_t turn_ = 0;              // of the fallback
  uint64_t deadline_ns_ = kNever;  // the earliest of all
};

}  // namespace

sutra_status CheckTickets(sutra_client* client, const sutra_ticket* tickets, size_t count) {
  ClientLane* lane;
  uint32_t slot;
  for (size_t i = 0; i < count; ++i) {
    if (!FindTicket(client, tickets[i], &lane, &slot)) return FailTicket(tickets[i]);
  }
  return SUTRA_OK;
}

sutra_status WaitAny(sutra_client* client, const sutra_ticket* tickets, size_t count, uint64_t timeout_ns,
                     size_t* index) {
  assert(count > 0);
  const size_t found = AnyWait(client, tickets, count).Run(timeout_ns);
  if (found == count) return SUTRA_NOT_READY;
  *index = found;
  return SUTRA_OK;
}

// One after the other: the last one to end decides how long it takes, in whatever order they are waited for.
sutra_status WaitAll(sutra_client* client, const sutra_ticket* tickets, size_t count, uint64_t timeout_ns,
                     const ResultSink& results) {
  const uint64_t until_ns = CycleNs() + timeout_ns;
  bool late = false;
  size_t failed = count;  // the first that did
  sutra_status failure = SUTRA_OK;
  ClientLane* lane = nullptr;
  uint32_t slot = 0;
  for (size_t i = 0; i < count; ++i) {
    [[maybe_unused]] const bool found = FindTicket(client, tickets[i], &lane, &slot);
    assert(found);
    const uint64_t now_ns = timeout_ns == 0 || late ? until_ns : CycleNs();
    WaitSlot(client, lane, slot, now_ns < until_ns ? until_ns - now_ns : 0);
    sutra_result spare;
    sutra_result* result = results.Fill(i, &spare);
    FillResult(lane, slot, result);
    late = late || result->status == SUTRA_NOT_READY;
    if (failed == count && result->status != SUTRA_OK && result->status != SUTRA_NOT_READY) {
      failed = i;
      failure = result->status;
    }
    results.Put(i, result);
  }
  if (late) return SUTRA_NOT_READY;
  if (failed == count) return SUTRA_OK;
  FindTicket(client, tickets[failed], &lane, &slot);  // those behind it may have failed for another cause
  ExplainEnd(client, lane, slot, failure);
  return failure;
}

}  // namespace sutra::client
