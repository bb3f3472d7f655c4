// The calls around tickets: submit, wait, poll, cancel, release, and the descriptor for event loops.
#include <poll.h>
#include <unistd.h>

#include "producer/lane_pool.h"
#include "shm/base/checkpoint.h"

namespace sutra::client {
namespace {

// RETURNS false for what is not a live ticket of this client.
bool FindTicket(sutra_client* client, sutra_ticket ticket, Lane** lane, uint32_t* slot) {
  const auto lane_index = static_cast<uint32_t>(ticket >> kTicketSlotBits) & (kLaneTableSize - 1);
  // SYNC C2 (acquire): see FindEmptyLane in client.cc.
  if (lane_index >= client->lane_count.load(std::memory_order_acquire)) return false;
  *lane = client->lanes[lane_index].load(std::memory_order_relaxed);  // relaxed: ordered by the count
  *slot = static_cast<uint32_t>(ticket) & kSlotMask;
  if (*slot >= (*lane)->slot_count) return false;
  const Slot& state = (*lane)->slots[*slot];
  // relaxed: whoever handed the ticket to this thread ordered them
  return state.phase.load(std::memory_order_relaxed) == SlotPhase::kLive &&
         (state.sequence.load(std::memory_order_relaxed) & kTicketSequenceMask) ==
             ticket >> (kTicketSlotBits + kTicketLaneBits);
}

sutra_status FailTicket(sutra_ticket ticket) {
  return Fail(SUTRA_BAD_OPTION, "%llx is not a live ticket of this client: it was released, or never given out",
              static_cast<unsigned long long>(ticket));
}

// Reports a slot once: to sutra_poll, unless sutra_wait already told the caller.
bool TakeReport(Lane* lane, uint32_t index, uint64_t now_ns) {
  Slot& slot = lane->slots[index];
  // relaxed: phase changes under the mutex; `reported` only counts
  if (slot.phase.load(std::memory_order_relaxed) != SlotPhase::kLive) return false;
  if (slot.reported.load(std::memory_order_relaxed) != 0) return false;
  if (SettleSlot(lane, index, now_ns) == SUTRA_NOT_READY) return false;
  return slot.reported.exchange(1, std::memory_order_relaxed) == 0;
}

// Asks before it reads: whoever made the pipe shares the read end's flags and could take O_NONBLOCK away. Bounded, since
// the other end may write for ever. RETURNS false once the write end, which only the engine has, is closed.
bool DrainEvents(Lane* lane) {
  char bytes[4096];
  for (int i = 0; i < 16; ++i) {
    pollfd item = {lane->shared.event_fd, POLLIN, 0};
    if (poll(&item, 1, 0) != 1) return true;
    const ssize_t count = read(lane->shared.event_fd, bytes, sizeof(bytes));
    if (count == 0) return false;
    if (count > 0 && static_cast<size_t>(count) < sizeof(bytes)) return true;  // it is empty now
  }
  return true;
}

// Every slot: after a gap in the completion ring, after the engine's death, and now and then for deadlines.
size_t SweepLocked(Lane* lane, sutra_ticket* tickets, size_t count, uint64_t now_ns) {
  size_t found = 0;
  lane->sweep_due = false;
  lane->sweep_at_ns = now_ns + kSweepNs;
  for (uint32_t i = 0; i < lane->slot_count; ++i) {
    if (found == count) {
      lane->sweep_due = true;  // the rest at the next call
      break;
    }
    if (TakeReport(lane, i, now_ns)) tickets[found++] = MakeTicket(lane, i);
  }
  return found;
}

size_t PollLocked(Lane* lane, sutra_ticket* tickets, size_t count, uint64_t now_ns) {
  size_t found = 0;
  bool armed = !lane->event_used;
  uint32_t reads_left = 2 * lane->slot_count;  // twice what an engine can have published meanwhile
  while (found < count) {
    if (reads_left-- == 0) {
      lane->sweep_due = true;
      break;
    }
    uint32_t index = 0;
    const CompletionReader::Read read = lane->completions.Next(&index);
    if (read == CompletionReader::Read::kSlot) {
      if (TakeReport(lane, index, 0)) tickets[found++] = MakeTicket(lane, index);
      continue;
    }
    if (read == CompletionReader::Read::kGap) {
      lane->sweep_due = true;
      continue;
    }
    if (armed) break;
    // Nothing left: from here on the engine rings again. What it published before it could see that is read now.
    if (!DrainEvents(lane)) CheckAlive(lane, now_ns);
    lane->shared.mapping.request.client().event_armed.store(1, std::memory_order_relaxed);  // relaxed: see the fence
    FullFence();  // SYNC L6: the store before the loads of the completion ring
    armed = true;
  }
  if (now_ns - lane->alive_checked_ns.load(std::memory_order_relaxed) > kSleepSliceNs) CheckAlive(lane, now_ns);
  if (IsGone(lane) || now_ns >= lane->sweep_at_ns) lane->sweep_due = true;
  if (lane->sweep_due && found < count) found += SweepLocked(lane, tickets + found, count - found, now_ns);
  return found;
}

void Explain(const sutra_client* client, sutra_status status, bool ended_here) {
  switch (status) {
    case SUTRA_OK:
    case SUTRA_NOT_READY:
      return;
    case SUTRA_ENGINE_GONE:
      Fail(status, "%s: the engine died before it answered; submit again, the client attaches anew", client->path);
      return;
    case SUTRA_DEADLINE_EXCEEDED:
      Fail(status, "%s; raise timeout_ms, or see the engine's queue with sutra-stat",
           ended_here ? "no answer until the deadline: the engine is stopped or overloaded"
                      : "the engine dropped the request at its deadline");
      return;
    case SUTRA_SHUTTING_DOWN:
      Fail(status, "%s: the engine is shutting down; submit again soon", client->path);
      return;
    default:
      Fail(status, "the engine answered: %s", sutra_status_text(status));
  }
}

}  // namespace

sutra_status WaitSlot(sutra_client* client, Lane* lane, uint32_t slot_index, uint64_t until_ns) {
  Slot& slot = lane->slots[slot_index];
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

using namespace sutra;          // NOLINT: this file only implements the C functions below
using namespace sutra::client;  // NOLINT

extern "C" sutra_status sutra_submit(sutra_client* client, const char* text, size_t text_bytes,
                                     const sutra_options* options, sutra_ticket* ticket) {
  size_t submitted = 0;
  if (ticket == nullptr) return FailNull("ticket");
  return sutra_submit_many(client, &text, &text_bytes, 1, options, ticket, &submitted);
}

extern "C" sutra_status sutra_submit_many(sutra_client* client, const char* const* texts, const size_t* text_bytes,
                                          size_t count, const sutra_options* options, sutra_ticket* tickets,
                                          size_t* submitted) {
  if (submitted == nullptr) return FailNull("submitted");
  *submitted = 0;
  sutra_status status = CheckClient(client);
  if (status != SUTRA_OK) return status;
  if (count > 0 && (texts == nullptr || text_bytes == nullptr || tickets == nullptr)) {
    return FailNull("texts, text_bytes or tickets");
  }
  Request request;
  status = CheckRequest(client, options, &request);
  size_t done = 0;
  while (status == SUTRA_OK && done < count) {
    status = CheckText(client, texts[done], text_bytes[done]);
    if (status != SUTRA_OK) break;
    const uint64_t now_ns = MonotonicNs();
    Lane* lane = AcquireLane(client, now_ns, &status);
    if (lane == nullptr) break;
    const size_t before = done;
    while (status == SUTRA_OK && done < count && lane->free_count > 0) {
      status = CheckText(client, texts[done], text_bytes[done]);
      if (status != SUTRA_OK) break;
      uint32_t slot;
      status = SubmitLocked(lane, texts[done], static_cast<uint32_t>(text_bytes[done]), request, now_ns, &slot);
      if (status == SUTRA_OK) tickets[done++] = MakeTicket(lane, slot);
    }
    pthread_mutex_unlock(&lane->mutex);
    if (done > before) Ring(lane);
  }
  *submitted = done;
  return status;
}

extern "C" sutra_status sutra_wait(sutra_client* client, sutra_ticket ticket, uint32_t timeout_ms,
                                   sutra_result* result) {
  ResultSink sink;
  if (!sink.Open(result)) return FailStruct("sutra_result", StructRead::kUnknownSize);
  sutra_result answer = {};
  Lane* lane;
  uint32_t slot;
  if (const sutra_status checked = CheckClient(client); checked != SUTRA_OK) {
    answer.status = checked;
  } else if (!FindTicket(client, ticket, &lane, &slot)) {
    answer.status = FailTicket(ticket);
  } else {
    const uint64_t now_ns = MonotonicNs();
    // A look costs no system call, but a loop of looks must notice a death too.
    if (timeout_ms == 0 && now_ns - lane->alive_checked_ns.load(std::memory_order_relaxed) > kAliveCheckNs) {
      CheckAlive(lane, now_ns);
    }
    const sutra_status status = WaitSlot(client, lane, slot, timeout_ms == 0 ? 0 : now_ns + timeout_ms * kNsPerMs);
    if (result != nullptr) FillResult(lane, slot, status, &answer);
    answer.status = status;
  }
  sink.Store(0, answer);
  return answer.status;
}

extern "C" size_t sutra_poll(sutra_client* client, sutra_ticket* tickets, size_t count) {
  if (CheckClient(client) != SUTRA_OK) return 0;
  if (tickets == nullptr && count > 0) {
    FailNull("tickets");
    return 0;
  }
  const uint64_t now_ns = MonotonicNs();
  const uint32_t lanes = client->lane_count.load(std::memory_order_acquire);  // SYNC C2 (acquire)
  size_t found = 0;
  for (uint32_t i = 0; i < lanes && found < count; ++i) {
    Lane* lane = client->lanes[i].load(std::memory_order_relaxed);  // relaxed: ordered by the count
    if (lane->phase.load(std::memory_order_relaxed) != LanePhase::kOpen) continue;  // relaxed: checked again below
    pthread_mutex_lock(&lane->mutex);
    if (lane->phase.load(std::memory_order_relaxed) == LanePhase::kOpen) {
      found += PollLocked(lane, tickets + found, count - found, now_ns);
    }
    pthread_mutex_unlock(&lane->mutex);
  }
  return found;
}

extern "C" int sutra_event_fd(sutra_client* client) {
  if (CheckClient(client) != SUTRA_OK) return -1;
  // Of the first lane in use: a caller with an event loop submits through one lane. Opens one if none is left.
  const uint32_t lanes = client->lane_count.load(std::memory_order_acquire);  // SYNC C2 (acquire)
  for (uint32_t attempt = 0; attempt < 2; ++attempt) {
    for (uint32_t i = 0; i < lanes; ++i) {
      Lane* lane = client->lanes[i].load(std::memory_order_relaxed);  // relaxed: ordered by the count
      pthread_mutex_lock(&lane->mutex);
      const bool open = lane->phase.load(std::memory_order_relaxed) == LanePhase::kOpen && CheckAlive(lane, MonotonicNs());
      const int fd = open ? lane->shared.event_fd : -1;
      if (open && !lane->event_used) {
        lane->event_used = true;
        lane->shared.mapping.request.client().event_armed.store(1, std::memory_order_relaxed);  // relaxed: see the fence
        FullFence();  // SYNC L6: armed before whatever the caller submits or polls next
      }
      pthread_mutex_unlock(&lane->mutex);
      if (fd >= 0) return fd;
    }
    sutra_status status;
    Lane* lane = AcquireLane(client, MonotonicNs(), &status);
    if (lane == nullptr) return -1;
    pthread_mutex_unlock(&lane->mutex);
  }
  return -1;
}

extern "C" sutra_status sutra_cancel(sutra_client* client, sutra_ticket ticket) {
  if (const sutra_status status = CheckClient(client); status != SUTRA_OK) return status;
  Lane* lane;
  uint32_t slot;
  if (!FindTicket(client, ticket, &lane, &slot)) return FailTicket(ticket);
  const uint64_t sequence = lane->slots[slot].sequence.load(std::memory_order_relaxed);  // relaxed: this ticket's
  // relaxed: a hint that publishes nothing
  lane->shared.mapping.request.request(slot).cancel_sequence.store(sequence, std::memory_order_relaxed);
  return SUTRA_OK;
}

extern "C" void sutra_release(sutra_client* client, sutra_ticket ticket) {
  Lane* lane;
  uint32_t slot;
  if (client == nullptr || IsForked(client) || !FindTicket(client, ticket, &lane, &slot)) return;
  pthread_mutex_lock(&lane->mutex);
  ReleaseLocked(lane, slot);
  pthread_mutex_unlock(&lane->mutex);
}
