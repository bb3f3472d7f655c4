#include "producer/ticket.h"

#include "shm/base/checkpoint.h"

namespace sutra::client {
namespace {

static_assert(kLaneTableSize == 1u << kTicketLaneBits && kSlotsMax == 1u << kTicketSlotBits);

void Explain(const sutra_client* client, sutra_status status, bool ended_here) {
  switch (status) {
    case SUTRA_OK:
    case SUTRA_NOT_READY: return;
    case SUTRA_ENGINE_GONE:
      Fail(status, "%s: the engine died before it answered; submit again: the client attaches by itself", client->path);
      return;
    case SUTRA_DEADLINE_EXCEEDED:
      Fail(status, "%s; raise timeout_ms, or see the engine's queue with sutra-stat",
           ended_here ? "no answer until the deadline: the engine is stopped or overloaded"
                      : "the engine dropped the request at its deadline");
      return;
    case SUTRA_SHUTTING_DOWN: Fail(status, "%s: the engine is shutting down; submit again soon", client->path); return;
    default: Fail(status, "the engine answered: %s", sutra_status_text(status));
  }
}

}  // namespace

bool FindTicket(sutra_client* client, sutra_ticket ticket, ClientLane** lane, uint32_t* slot) {
  const auto lane_index = static_cast<uint32_t>(ticket >> kTicketSlotBits) & (kLaneTableSize - 1);
  // SYNC C2 (acquire): see FindEmptyLane in lane_pool.cc.
  if (lane_index >= client->lane_count.load(std::memory_order_acquire)) return false;
  *lane = client->lanes[lane_index].load(std::memory_order_relaxed);  // relaxed: ordered by the count
  *slot = static_cast<uint32_t>(ticket) & kSlotMask;
  if (*slot >= (*lane)->slot_count) return false;
  const ClientSlot& state = (*lane)->slots[*slot];
  // relaxed: handing the ticket to this thread ordered them
  return state.phase.load(std::memory_order_relaxed) == SlotPhase::kLive &&
         (state.sequence.load(std::memory_order_relaxed) & kTicketSequenceMask) ==
             ticket >> (kTicketSlotBits + kTicketLaneBits);
}

sutra_status FailTicket(sutra_ticket ticket) {
  return Fail(SUTRA_BAD_OPTION, "%llx is not a live ticket of this client: it was released, or never issued",
              static_cast<unsigned long long>(ticket));
}

sutra_status WaitSlot(sutra_client* client, ClientLane* lane, uint32_t slot_index, uint64_t until_ns) {
  assert(slot_index < lane->slot_count);
  ClientSlot& slot = lane->slots[slot_index];
  const uint64_t sequence = slot.sequence.load(std::memory_order_relaxed);  // relaxed: the ticket's thread
  const auto done = [&] {
    return IsAnswered(lane, slot_index, sequence) ||
           slot.ended.load(std::memory_order_relaxed) != 0;  // relaxed: sticky, ends the wait only
  };
  if (!done()) {
    const uint64_t last_ns = until_ns < slot.deadline_ns ? until_ns : slot.deadline_ns;
    WaitUntil(lane, last_ns, client->spin_ns, done);
  }
  (void)SUTRA_CHECKPOINT("recv.reply_seen");
  const sutra_status status = SettleSlot(lane, slot_index, done() ? 0 : MonotonicNs());
  if (status != SUTRA_NOT_READY) slot.reported.store(1, std::memory_order_relaxed);  // relaxed: only counts
  Explain(client, status, slot.ended.load(std::memory_order_relaxed) != 0);
  return status;
}

}  // namespace sutra::client
