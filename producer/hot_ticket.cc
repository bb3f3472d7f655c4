#include "producer/hot_ticket.h"

#include <assert.h>
#include <stdlib.h>

#include <new>

#include "producer/slot_end.h"

namespace sutra::client {

HotTickets* HotTickets::Make(uint32_t slots, uint32_t width) {
  void* memory = malloc(sizeof(HotTickets));
  auto* entries = static_cast<Entry*>(malloc(slots * sizeof(Entry)));
  const uint64_t stride_bytes = RoundUp(width * sizeof(float), 64);
  auto* vectors = static_cast<float*>(aligned_alloc(64, slots * stride_bytes));  // touched as slots are used
  if (memory == nullptr || entries == nullptr || vectors == nullptr) {
    free(memory);
    free(entries);
    free(vectors);
    return nullptr;
  }
  for (uint32_t i = 0; i < slots; ++i) new (&entries[i]) Entry();
  return new (memory) HotTickets(slots, width, vectors, entries);
}

void HotTickets::Destroy(HotTickets* tickets) {
  if (tickets == nullptr) return;
  free(tickets->vectors_);
  free(tickets->entries_);
  tickets->~HotTickets();
  free(tickets);
}

void HotTickets::Push(uint32_t slot) {
  assert(slot < slots_);
  if (entries_[slot].queued) return;
  assert(queue_count_ < slots_);
  entries_[slot].queued = true;
  entries_[(queue_first_ + queue_count_++) % slots_].queue = static_cast<uint16_t>(slot);
}

bool HotTickets::Pop(uint32_t* slot) {
  if (queue_count_ == 0) return false;
  *slot = entries_[queue_first_].queue;
  queue_first_ = (queue_first_ + 1) % slots_;
  --queue_count_;
  entries_[*slot].queued = false;
  return true;
}

bool SubmitHotLocked(ClientLane* lane, const char* text, uint32_t text_bytes, const Request& request, uint64_t now_ns,
                     uint32_t* slot) {
  assert(!IsLost(lane) && lane->free_count > 0);
  if (lane->current->hot_scratch == nullptr) return false;
  if (lane->hot_tickets == nullptr) {
    lane->hot_tickets = HotTickets::Make(lane->slot_count, lane->current->connection.welcome.width);
    if (lane->hot_tickets == nullptr) return false;
  }
  HotTickets* const tickets = lane->hot_tickets;
  const uint32_t index = lane->free_stack[lane->free_count - 1];
  HotAnswer answer;
  if (!FindHotLocked(lane, text, text_bytes, request, tickets->vector(index), &answer)) return false;
  tickets->answer(index) = answer;
  TakeSlotLocked(lane, index, request, text_bytes, now_ns, SlotPhase::kTicket, SUTRA_OK | kEndedHot);
  tickets->Push(index);
  *slot = index;
  return true;
}

}  // namespace sutra::client
