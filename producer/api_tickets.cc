// The calls around tickets: submit, free slots, poll, cancel, release, and the descriptor for event loops. api_wait.cc
// waits for them.
#include "producer/cancel_all.h"
#include "producer/hot_ticket.h"
#include "producer/lane_open.h"
#include "producer/lane_poll.h"
#include "producer/lane_pool.h"
#include "producer/request_check.h"
#include "producer/slot_end.h"
#include "producer/ticket.h"

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
  if (count == 0) EndRoomWish(&client->signals);  // else AcquireLane does
  Request request;
  status = CheckRequest(client, options, &request);
  size_t done = 0;
  while (status == SUTRA_OK && done < count) {
    const size_t next_bytes = text_bytes[done];
    status = CheckText(client, texts[done], next_bytes);
    if (status != SUTRA_OK) break;
    const uint64_t now_ns = CycleNs();
    ClientLane* lane = nullptr;
    if (!AcquireLane(client, now_ns, static_cast<uint32_t>(next_bytes), &lane, &status)) break;
    const size_t before = done;
    size_t hot = 0;
    const bool watched = lane->pipe_watched;
    while (status == SUTRA_OK && done < count) {
      const size_t bytes = text_bytes[done];  // read once: what was checked is what is submitted
      status = CheckText(client, texts[done], bytes);
      if (status != SUTRA_OK || !HasRoomLocked(lane, static_cast<uint32_t>(bytes), 0)) break;
      uint32_t slot;
      if (SubmitHotLocked(lane, texts[done], static_cast<uint32_t>(bytes), request, now_ns, &slot)) {
        tickets[done++] = TicketOf(lane, slot);
        ++hot;
        continue;
      }
      status =
          SubmitLocked(lane, texts[done], static_cast<uint32_t>(bytes), request, now_ns, SlotPhase::kTicket, &slot);
      if (status == SUTRA_OK) tickets[done++] = TicketOf(lane, slot);
    }
    if (done > before + hot) {
      UnlockAndRing(lane);
      if (watched) NoteDeadline(&client->signals, now_ns + request.timeout_ns);
    } else {
      lane->mutex.Unlock();
    }
    if (hot > 0) Remind(&client->signals);  // no engine tells the caller's event loop of these
  }
  *submitted = done;
  return status;
}

extern "C" size_t sutra_free_slots(sutra_client* client) {
  return CheckClient(client) == SUTRA_OK ? CountLanes(client, MonotonicNs()).free_slots : 0;
}

extern "C" size_t sutra_poll(sutra_client* client, sutra_result* results, size_t result_stride, size_t count) {
  if (CheckClient(client) != SUTRA_OK) return 0;
  if (results == nullptr && count > 0) {
    FailNull("results");
    return 0;
  }
  ResultSink sink;
  if (count > 0 && !sink.Open(results, result_stride)) {
    FailResults();
    return 0;
  }
  PollRoom room = {.results = sink, .count = count};
  PollClient(client, &room, MonotonicNs());
  return room.found;
}

extern "C" int sutra_event_fd(sutra_client* client) { return CheckClient(client) == SUTRA_OK ? EventFdOf(client) : -1; }

extern "C" sutra_status sutra_cancel(sutra_client* client, sutra_ticket ticket) {
  if (const sutra_status status = CheckClient(client); status != SUTRA_OK) return status;
  ClientLane* lane;
  uint32_t slot;
  if (!FindTicket(client, ticket, &lane, &slot)) return FailTicket(ticket);
  const MutexLock lock(lane->mutex);
  if (!IsTicketLocked(lane, slot, ticket)) return FailTicket(ticket);  // released meanwhile
  CancelLocked(lane, slot);
  return SUTRA_OK;
}

extern "C" void sutra_cancel_all(sutra_client* client) {
  if (client != nullptr && !IsForked(client)) CancelAll(client);
}

extern "C" void sutra_release(sutra_client* client, sutra_ticket ticket) {
  ClientLane* lane;
  uint32_t slot;
  if (client == nullptr || IsForked(client) || !FindTicket(client, ticket, &lane, &slot)) return;
  const MutexLock lock(lane->mutex);
  if (IsTicketLocked(lane, slot, ticket)) ReleaseLocked(lane, slot);
}
