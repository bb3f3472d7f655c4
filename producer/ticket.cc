#include "producer/ticket.h"

#include <assert.h>

#include "producer/cancel_all.h"
#include "producer/lane_wait.h"
#include "producer/slot_end.h"
#include "producer/thread_state.h"
#include "shm/base/checkpoint.h"

namespace sutra::client {
namespace {

static_assert(kLaneTableSize == 1u << kTicketLaneBits && kSlotsMax == 1u << kTicketSlotBits);

// Why the engine would answer a status other than SUTRA_OK, and what helps.
const char* AnswerText(sutra_status status) {
  switch (status) {
    case SUTRA_OVERLOADED: return "this client has its share of the queue; submit less at a time, or see sutra-stat";
    case SUTRA_EMPTY_TEXT: return "there is nothing in the text for the model";
    case SUTRA_INVALID_UTF8: return "the text is not valid UTF-8; convert it, or replace its invalid bytes";
    case SUTRA_TEXT_TOO_LONG: return "the text has more tokens than the model takes; split it or drop SUTRA_REJECT";
    case SUTRA_DEADLINE_EXCEEDED: return "it dropped the request at its deadline; raise timeout_ms";
    case SUTRA_CANCELLED: return "sutra_cancel ended the request";
    case SUTRA_SHUTTING_DOWN: return "it stops; submit again soon";
    case SUTRA_MODEL_ERROR: return "the model failed on the text; the engine's log says why";
    case SUTRA_STORAGE_ERROR: return "its cache could not be written; the engine's log says why";
    case SUTRA_OUT_OF_MEMORY: return "it had no memory for the request; submit again, or raise its limit";
    default: return "the engine's log may say why";
  }
}

// Waits for a request that is not done yet.
WaitEnd AwaitSlot(sutra_client* client, ClientLane* lane, uint32_t slot_index, uint64_t timeout_ns) {
  const ClientSlot& slot = lane->slots[slot_index];
  if (timeout_ns == 0) {
    // Looking once makes no system call, but a loop of looks must notice a death too.
    const uint64_t now_ns = CycleNs();
    Attachment* const home = HomeOf(lane, slot_index);
    const uint64_t checked_ns = home->alive_checked_ns.load(std::memory_order_relaxed);  // relaxed: only paces
    if (now_ns - checked_ns > kAliveCheckNs) CheckAlive(lane, home, now_ns);
    return WaitEnd::kTime;
  }
  uint64_t last_ns = slot.deadline_ns;
  if (timeout_ns != kUntilDeadline) {
    const uint64_t until_ns = CycleNs() + timeout_ns;
    if (until_ns < last_ns) last_ns = until_ns;
  }
  return WaitForSlot(lane, slot_index, last_ns, client->spin_ns);
}

}  // namespace

bool FindTicket(sutra_client* client, sutra_ticket ticket, ClientLane** lane, uint32_t* slot) {
  const auto lane_index = static_cast<uint32_t>(ticket >> kTicketSlotBits) & (kLaneTableSize - 1);
  // SYNC C2 (acquire): see FindLane in lane_open.cc.
  if (ticket == 0 || lane_index >= client->lane_count.load(std::memory_order_acquire)) return false;
  *lane = client->lanes[lane_index].load(std::memory_order_relaxed);  // relaxed: ordered by the count
  *slot = static_cast<uint32_t>(ticket) & kSlotMask;
  if (*slot >= (*lane)->slot_count) return false;
  // relaxed: handing the ticket to this thread ordered it; of a stale ticket the word holds no trace
  return (*lane)->slots[*slot].ticket.load(std::memory_order_relaxed) == ticket;
}

bool IsTicketLocked(const ClientLane* lane, uint32_t slot, sutra_ticket ticket) {
  assert(slot < lane->slot_count && ticket != 0);
  return lane->slots[slot].ticket.load(std::memory_order_relaxed) == ticket;  // relaxed: under the mutex
}

sutra_status FailTicket(sutra_ticket ticket) {
  return Fail(SUTRA_BAD_ARGUMENT, "%llx is not a live ticket of this client: it was released, or never issued",
              static_cast<unsigned long long>(ticket));
}

namespace {

sutra_status FailLost(const sutra_client* client, sutra_reason reason) {
  const MutexLock lock(client->attempt_mutex);
  if (reason == client->other_reason) return FailGone(reason, "%s", client->other_text);
  if (reason == SUTRA_REASON_OTHER_LAYOUT || reason == SUTRA_REASON_OTHER_IDENTITY) {
    return FailGone(reason, "%s: the engine came back with another %s: detach and attach again to accept it",
                    client->path, reason == SUTRA_REASON_OTHER_LAYOUT ? "layout" : "model");
  }
  return FailGone(reason,
                  "%s: the engine died before it answered, and with SUTRA_FAIL_FAST no other one was to; submit "
                  "again: the client attaches by itself",
                  client->path);
}

}  // namespace

sutra_status FailUnanswered(const sutra_client* client, sutra_status status, sutra_reason reason) {
  switch (status) {
    case SUTRA_DEADLINE_EXCEEDED:
      return Fail(
          status,
          "no answer until the deadline: the engine is stopped or overloaded; raise timeout_ms, or see its queue "
          "with sutra-stat");
    case SUTRA_SHUTTING_DOWN:
      return Fail(status, "%s: the engine stopped before it took the text; submit again soon", client->path);
    case SUTRA_PROTOCOL_VIOLATION:
      return Fail(status, "%s: the engine closed the lane for a violation of the protocol; its log says which",
                  client->path);
    case SUTRA_MODEL_ERROR:
      return Fail(status, "%s: the engine took an answer back: broken engine build", client->path);
    case SUTRA_CANCELLED: return FailCancelled();
    default: return FailLost(client, reason);
  }
}

void ExplainEnd(const sutra_client* client, const ClientLane* lane, uint32_t slot, sutra_status status) {
  const uint32_t ended = lane->slots[slot].ended.load(std::memory_order_relaxed);  // relaxed: only a number
  if ((ended & kEndedByAnswer) == 0) {
    const bool no_engine = status == SUTRA_DEADLINE_EXCEEDED && IsGone(*HomeOf(lane, slot));
    no_engine ? FailWithoutEngine(client) : FailUnanswered(client, status, EndedReason(ended));
  } else if (status == SUTRA_BAD_OPTION) {
    Fail(status, "the engine answered: bad option; it serves width %u (asked for: %u), or it is older than an option",
         client->info.width, lane->slots[slot].width);
  } else if (const uint32_t retry_ms = RetryAfterMs(lane, slot, status); retry_ms != 0) {
    Fail(status, "the engine answered: %s; %s; retry in %u ms", sutra_status_text(status), AnswerText(status),
         retry_ms);
  } else {
    Fail(status, "the engine answered: %s; %s", sutra_status_text(status), AnswerText(status));
  }
}

sutra_status WaitSlot(sutra_client* client, ClientLane* lane, uint32_t slot_index, uint64_t timeout_ns) {
  assert(slot_index < lane->slot_count);
  sutra_status status = SettleSlot(lane, slot_index, 0);
  if (status == SUTRA_NOT_READY) {
    const WaitEnd end = AwaitSlot(client, lane, slot_index, timeout_ns);
    status = SettleSlot(lane, slot_index, end == WaitEnd::kDone ? 0 : MonotonicNs());
  }
  (void)SUTRA_CHECKPOINT("recv.reply_seen");
  if (status == SUTRA_NOT_READY) return status;
  lane->slots[slot_index].reported.store(1, std::memory_order_relaxed);  // relaxed: only counts
  if (status != SUTRA_OK) ExplainEnd(client, lane, slot_index, status);
  return status;
}

}  // namespace sutra::client
