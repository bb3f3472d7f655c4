// The calls that wait for tickets: sutra_wait, sutra_wait_any, sutra_wait_all, and sutra_take.
#include "producer/request_check.h"
#include "producer/slot_end.h"
#include "producer/ticket.h"
#include "producer/wait_many.h"

using namespace sutra;          // NOLINT: this file only implements the C functions below
using namespace sutra::client;  // NOLINT

namespace {

// Waits for a ticket's slot and fills *result. RETURNS the status in it.
sutra_status WaitAndFill(sutra_client* client, ClientLane* lane, uint32_t slot, uint64_t timeout_ns,
                         sutra_result* result) {
  sutra_status status = WaitSlot(client, lane, slot, timeout_ns);
  FillResult(lane, slot, result);
  // A poll on another thread may end the request between the two looks: what the result says counts.
  if (result->status != status) status = WaitSlot(client, lane, slot, 0);
  return status;
}

sutra_status PutFailure(const ResultSink& sink, sutra_status status) {
  sink.PutStatus(0, status, 0);
  return status;
}

}  // namespace

extern "C" sutra_status sutra_wait(sutra_client* client, sutra_ticket ticket, uint32_t timeout_ms,
                                   sutra_result* result) {
  ResultSink sink;
  if (!sink.Open(result)) return FailResults();
  ClientLane* lane = nullptr;
  uint32_t slot = 0;
  sutra_status status = CheckClient(client);
  if (status == SUTRA_OK && !FindTicket(client, ticket, &lane, &slot)) status = FailTicket(ticket);
  if (status != SUTRA_OK) return PutFailure(sink, status);
  if (result == nullptr) return WaitSlot(client, lane, slot, timeout_ms * kNsPerMs);
  sutra_result spare;
  sutra_result* answer = sink.Fill(0, &spare);
  status = WaitAndFill(client, lane, slot, timeout_ms * kNsPerMs, answer);
  sink.Put(0, answer);
  return status;
}

extern "C" sutra_status sutra_wait_any(sutra_client* client, const sutra_ticket* tickets, size_t count,
                                       uint32_t timeout_ms, size_t* index, sutra_result* result) {
  ResultSink sink;
  if (!sink.Open(result)) return FailResults();
  sutra_status status = CheckClient(client);
  if (status == SUTRA_OK && tickets == nullptr) status = FailNull("tickets");
  if (status == SUTRA_OK && index == nullptr) status = FailNull("index");
  if (status == SUTRA_OK && count == 0) status = Fail(SUTRA_BAD_ARGUMENT, "count is 0: there is no ticket to wait for");
  if (status == SUTRA_OK) status = CheckTickets(client, tickets, count);
  if (status == SUTRA_OK) status = WaitAny(client, tickets, count, timeout_ms * kNsPerMs, index);
  if (status != SUTRA_OK) return PutFailure(sink, status);
  ClientLane* lane = nullptr;
  uint32_t slot = 0;
  FindTicket(client, tickets[*index], &lane, &slot);
  sutra_result spare;
  sutra_result* answer = sink.Fill(0, &spare);
  WaitAndFill(client, lane, slot, 0, answer);
  sink.Put(0, answer);
  return SUTRA_OK;
}

extern "C" sutra_status sutra_wait_all(sutra_client* client, const sutra_ticket* tickets, size_t count,
                                       uint32_t timeout_ms, sutra_result* results, size_t result_stride) {
  ResultSink sink;
  if (count > 0 && !sink.Open(results, result_stride)) return FailResults();
  sutra_status status = CheckClient(client);
  if (status == SUTRA_OK && count > 0 && tickets == nullptr) status = FailNull("tickets");
  if (status == SUTRA_OK) status = CheckTickets(client, tickets, count);
  if (status == SUTRA_OK) return WaitAll(client, tickets, count, timeout_ms * kNsPerMs, sink);
  for (size_t i = 0; results != nullptr && i < count; ++i) sink.PutStatus(i, status, 0);
  return status;
}

extern "C" sutra_status sutra_take(sutra_client* client, sutra_ticket ticket, float* vector, size_t vector_floats,
                                   sutra_result* result) {
  ResultSink sink;
  if (!sink.Open(result)) return FailResults();
  ClientLane* lane = nullptr;
  uint32_t slot = 0;
  sutra_status status = CheckClient(client);
  if (status == SUTRA_OK && vector == nullptr) status = FailNull("vector");
  if (status == SUTRA_OK && !FindTicket(client, ticket, &lane, &slot)) status = FailTicket(ticket);
  if (status != SUTRA_OK) return PutFailure(sink, status);
  sutra_result spare;
  sutra_result* answer = sink.Fill(0, &spare);
  status = WaitAndFill(client, lane, slot, 0, answer);
  if (status == SUTRA_OK && answer->width > vector_floats) {
    return PutFailure(sink,
                      Fail(SUTRA_BAD_ARGUMENT, "the vector has %u floats, and there is room for %zu: the ticket stays",
                           answer->width, vector_floats));
  }
  if (status == SUTRA_OK) CopyVector(answer->width, vector, answer);
  sink.Put(0, answer);
  if (status == SUTRA_NOT_READY) return status;
  const MutexLock lock(lane->mutex);
  if (IsTicketLocked(lane, slot, ticket)) ReleaseLocked(lane, slot);
  return status;
}
