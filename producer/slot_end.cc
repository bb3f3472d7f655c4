#include "producer/slot_end.h"

#include <assert.h>
#include <string.h>

#include "producer/cancel_all.h"
#include "producer/hot_ticket.h"
#include "producer/lane_wait.h"

namespace sutra::client {
namespace {

// The engine may write its words at any time: each is read once, and what was read is what is checked and used.
template <typename T>
T ReadOnce(const T& word) {
  return __atomic_load_n(&word, __ATOMIC_RELAXED);
}

constexpr uint32_t EndedIn(const Attachment& attachment) { return attachment.number << kEndedNumberShift; }

// Where the answer lies. It is the home, unless an engine that was gone wrote an answer while the request moved: what
// the slot was told of first counts, and it pins all attachments in between.
const Attachment& AnsweredIn(const ClientLane* lane, uint32_t slot_index, uint32_t ended) {
  const uint32_t number = ended >> kEndedNumberShift << kEndedNumberShift;
  const Attachment* const home = HomeOf(lane, slot_index);
  if (EndedIn(*home) == number) return *home;
  const Attachment* attachment = lane->slots[slot_index].first;
  while (attachment != home && EndedIn(*attachment) != number) {
    attachment = attachment->next.load(std::memory_order_acquire);  // SYNC C5 (acquire): meets AddLocked
  }
  return *attachment;
}

// How a request ends with an engine that is gone, or 0: it goes on at the next one.
uint32_t EndWithEngine(const ClientSlot& slot, uint32_t gone) {
  if (!slot.fail_fast && (gone & kGoneForGood) == 0) return 0;
  const sutra_status status = GoneStatus(gone);
  return status == SUTRA_ENGINE_GONE ? status | SUTRA_REASON_DIED << kEndedReasonShift : status;
}

}  // namespace

sutra_status EndSlot(ClientLane* lane, uint32_t slot_index, uint32_t ended) {
  assert(ended != 0 && EndedStatus(ended) != SUTRA_NOT_READY);  // without an answer it is never SUTRA_OK
  uint32_t before = 0;
  // SYNC C3 (release): a thread that takes the answer from this word sees the vector too; meets SettleSlot, FillResult.
  const bool first = lane->slots[slot_index].ended.compare_exchange_strong(before, ended, std::memory_order_acq_rel,
                                                                           std::memory_order_acquire);
  return EndedStatus(first ? ended : before);
}

sutra_status SettleSlot(ClientLane* lane, uint32_t slot_index, uint64_t now_ns) {
  const ClientSlot& slot = lane->slots[slot_index];
  const uint32_t ended = slot.ended.load(std::memory_order_acquire);  // SYNC C3 (acquire): see EndSlot
  if (ended != 0) return EndedStatus(ended);
  Attachment* const home = HomeOf(lane, slot_index);
  const bool gone = IsGone(*home);  // before the word: an answer that preceded the death counts
  const uint64_t word = LoadResultWord(home->connection.mapping.reply, slot_index);
  if (ResultWordSequence(word) == slot.sequence) {
    const auto answer = static_cast<uint32_t>(ResultWordStatus(word));
    // An answer is final whatever a broken engine says.
    const uint32_t status = answer == SUTRA_NOT_READY ? SUTRA_MODEL_ERROR : answer;
    return EndSlot(lane, slot_index, kEndedByAnswer | status | EndedIn(*home));
  }
  if (IsCancelled(*lane->signals, slot.cancel_epoch)) return EndSlot(lane, slot_index, SUTRA_CANCELLED);
  // relaxed: IsGone ordered it
  const uint32_t end = gone ? EndWithEngine(slot, home->gone.load(std::memory_order_relaxed)) : 0;
  if (end != 0) return EndSlot(lane, slot_index, end);
  if (now_ns >= slot.deadline_ns) return EndSlot(lane, slot_index, SUTRA_DEADLINE_EXCEEDED);
  return SUTRA_NOT_READY;
}

bool EndedWithEngine(const ClientLane* lane, uint32_t slot_index) {
  const uint32_t ended = lane->slots[slot_index].ended.load(std::memory_order_relaxed);  // relaxed: only a number
  return (ended & kEndedByAnswer) == 0 &&
         (EndedStatus(ended) == SUTRA_ENGINE_GONE || EndedStatus(ended) == SUTRA_SHUTTING_DOWN);
}

void CancelLocked(ClientLane* lane, uint32_t slot_index) {
  Attachment* const home = HomeOf(lane, slot_index);
  // relaxed: a hint that publishes nothing
  home->connection.mapping.request.request(slot_index)
      .cancel_sequence.store(lane->slots[slot_index].sequence, std::memory_order_relaxed);
  if (!IsGone(*home) || SettleSlot(lane, slot_index, 0) != SUTRA_NOT_READY) return;
  EndSlot(lane, slot_index, SUTRA_CANCELLED);
  lane->sweep_due = true;
  BumpMoves(lane);
  Remind(lane->signals);
}

uint32_t RetryAfterMs(const ClientLane* lane, uint32_t slot_index, sutra_status status) {
  if (status != SUTRA_OVERLOADED) return 0;
  const uint32_t ended = lane->slots[slot_index].ended.load(std::memory_order_acquire);  // SYNC C3 (acquire)
  return ReadOnce(AnsweredIn(lane, slot_index, ended).connection.mapping.reply.result(slot_index).retry_after_ms);
}

void SetVector(const float* vector, uint32_t width, sutra_result* result) {
  result->vector = vector;
  result->width = width;
  result->data = vector;
  result->data_type = SUTRA_DATA_F32;
  result->bytes = width * static_cast<uint32_t>(sizeof(float));
}

void CopyVector(uint32_t width_max, float* vector, sutra_result* result) {
  const uint32_t width = result->width < width_max ? result->width : width_max;
  memcpy(vector, result->vector, width * sizeof(float));
  SetVector(vector, width, result);
}

void FillResult(const ClientLane* lane, uint32_t slot_index, sutra_result* result) {
  const ClientSlot& slot = lane->slots[slot_index];
  const uint32_t ended = slot.ended.load(std::memory_order_acquire);  // SYNC C3 (acquire): see EndSlot
  *result = {};
  result->size = sizeof(*result);
  result->status = ended == 0 ? SUTRA_NOT_READY : EndedStatus(ended);
  result->tag = slot.tag;
  const sutra_ticket ticket =
      slot.ticket.load(std::memory_order_relaxed);  // relaxed: of the caller's, or under the mutex
  if ((ended & kEndedHot) != 0) {
    HotTickets* const tickets = lane->hot_tickets;
    FillHotResult(tickets->answer(slot_index), slot.tag, slot.submitted_ns, tickets->vector(slot_index),
                  tickets->width(), result);
    result->ticket = ticket;
    return;
  }
  result->ticket = ticket;
  result->stage_ns[0] = slot.submitted_ns;
  result->reason = EndedReason(ended);
  // Without an answer the engine's line still describes the slot's last request, or belongs to the engine's cache.
  if ((ended & kEndedByAnswer) == 0) return;
  const LaneConnection& connection = AnsweredIn(lane, slot_index, ended).connection;
  const ReplyLane& reply = connection.mapping.reply;
  const ResultDescriptor& answer = reply.result(slot_index);
  const auto ahead_ns = static_cast<uint64_t>(connection.engine_clock_ahead_ns);
  for (uint32_t i = 1; i < kStageCount; ++i) {
    const uint64_t ns = ReadOnce(answer.stage_ns[i]);
    result->stage_ns[i] = ns == 0 ? 0 : ns - ahead_ns;
  }
  const uint32_t source = ReadOnce(answer.source), token_count = ReadOnce(answer.token_count);
  const uint32_t tokens_max = connection.welcome.tokens_max;
  result->source = source <= kSourceModel ? source : SUTRA_SOURCE_NONE;
  result->token_count = token_count < tokens_max ? token_count : tokens_max;
  result->truncated = (ReadOnce(answer.flags) & kResultTruncated) != 0 ? 1 : 0;
  result->retry_after_ms = RetryAfterMs(lane, slot_index, result->status);
  if (result->status != SUTRA_OK) return;
  const uint32_t width = ReadOnce(answer.width);
  SetVector(reply.vector(slot_index), width < reply.geometry.width ? width : reply.geometry.width, result);
}

}  // namespace sutra::client
