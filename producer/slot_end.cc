#include "producer/slot_end.h"

#include <assert.h>

#include "producer/cancel_all.h"

namespace sutra::client {
namespace {

// The engine may write its words at any time: each is read once, and what was read is what is checked and used.
template <typename T>
T ReadOnce(const T& word) {
  return __atomic_load_n(&word, __ATOMIC_RELAXED);
}

constexpr sutra_status EndedStatus(uint32_t ended) { return ended & ~kEndedByAnswer; }

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
  const bool gone = IsGone(lane);  // before the word: an answer that preceded the death counts
  const uint64_t word = LoadResultWord(lane->connection.mapping.reply, slot_index);
  if (ResultWordSequence(word) == slot.sequence) {
    const auto answer = static_cast<uint32_t>(ResultWordStatus(word));
    // An answer is final whatever a broken engine says.
    return EndSlot(lane, slot_index, kEndedByAnswer | (answer == SUTRA_NOT_READY ? SUTRA_MODEL_ERROR : answer));
  }
  if (IsCancelled(*lane->signals, slot.cancel_epoch)) return EndSlot(lane, slot_index, SUTRA_CANCELLED);
  if (gone) return EndSlot(lane, slot_index, lane->gone.load(std::memory_order_relaxed));  // relaxed: IsGone ordered it
  if (now_ns >= slot.deadline_ns) return EndSlot(lane, slot_index, SUTRA_DEADLINE_EXCEEDED);
  return SUTRA_NOT_READY;
}

uint32_t RetryAfterMs(const ClientLane* lane, uint32_t slot_index, sutra_status status) {
  return status == SUTRA_OVERLOADED ? ReadOnce(lane->connection.mapping.reply.result(slot_index).retry_after_ms) : 0;
}

void SetVector(const float* vector, uint32_t width, sutra_result* result) {
  result->vector = vector;
  result->width = width;
  result->data = vector;
  result->data_type = SUTRA_DATA_F32;
  result->bytes = width * static_cast<uint32_t>(sizeof(float));
}

void FillResult(const ClientLane* lane, uint32_t slot_index, sutra_result* result) {
  const ClientSlot& slot = lane->slots[slot_index];
  const uint32_t ended = slot.ended.load(std::memory_order_acquire);  // SYNC C3 (acquire): see EndSlot
  *result = {};
  result->size = sizeof(*result);
  result->status = ended == 0 ? SUTRA_NOT_READY : EndedStatus(ended);
  result->tag = slot.tag;
  result->ticket = slot.ticket.load(std::memory_order_relaxed);  // relaxed: of the caller's, or under the mutex
  result->stage_ns[0] = slot.submitted_ns;
  // Without an answer the engine's line still describes the slot's last request, or belongs to the engine's cache.
  if ((ended & kEndedByAnswer) == 0) return;
  const ReplyLane& reply = lane->connection.mapping.reply;
  const ResultDescriptor& answer = reply.result(slot_index);
  const auto ahead_ns = static_cast<uint64_t>(lane->connection.engine_clock_ahead_ns);
  for (uint32_t i = 1; i < kStageCount; ++i) {
    const uint64_t ns = ReadOnce(answer.stage_ns[i]);
    result->stage_ns[i] = ns == 0 ? 0 : ns - ahead_ns;
  }
  const uint32_t source = ReadOnce(answer.source), token_count = ReadOnce(answer.token_count);
  const uint32_t tokens_max = lane->connection.welcome.tokens_max;
  result->source = source <= kSourceModel ? source : SUTRA_SOURCE_NONE;
  result->token_count = token_count < tokens_max ? token_count : tokens_max;
  result->truncated = (ReadOnce(answer.flags) & kResultTruncated) != 0 ? 1 : 0;
  result->retry_after_ms = RetryAfterMs(lane, slot_index, result->status);
  if (result->status != SUTRA_OK) return;
  const uint32_t width = ReadOnce(answer.width);
  SetVector(reply.vector(slot_index), width < reply.geometry.width ? width : reply.geometry.width, result);
}

}  // namespace sutra::client
