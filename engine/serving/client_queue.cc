// One heap per class.
#include "engine/serving/client_queue.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "shm/base/vector_room.h"

namespace sutra {
namespace {

constexpr size_t kEntriesKept = 1024;  // an empty queue keeps the memory of so many entries at most

}  // namespace

void ClientQueue::Add(PriorityClass priority, uint64_t deadline_ns, uint64_t arrival, ComputationPtr* computation) {
  std::vector<Entry>& heap = heaps_[priority];
  if (heap.size() == heap.capacity() && !heap.empty()) {
    // Entries that others have taken must not make a queue grow for ever: they go before it grows.
    std::erase_if(heap, [](const Entry& entry) { return entry.computation->taken; });
    std::make_heap(heap.begin(), heap.end(), Later());
    if (heap.size() > heap.capacity() / 2) heap.reserve(2 * heap.capacity());
  } else {
    MakeRoomForOne(&heap);
  }
  heap.push_back({deadline_ns, arrival, std::move(*computation)});
  std::push_heap(heap.begin(), heap.end(), Later());
}

bool ClientQueue::DropTaken() {
  bool any = false;
  for (int priority = kClassQuery; priority < kClassCount; ++priority) {
    std::vector<Entry>& heap = heaps_[priority];
    while (!heap.empty() && heap.front().computation->taken) PopHead(static_cast<PriorityClass>(priority));
    if (heap.empty() && heap.capacity() > kEntriesKept) heap = {};
    any |= !heap.empty();
  }
  return any;
}

PriorityClass ClientQueue::Choose(uint64_t now_ns) const {
  int first = kClassQuery;
  while (first < kClassCount && heaps_[first].empty()) ++first;
  assert(first < kClassCount);
  int chosen = first;
  if (passed_over_ + 1 >= kAgedTurn) {
    uint64_t oldest_ns = now_ns > kAgingNs ? now_ns - kAgingNs : 0;
    for (int priority = first + 1; priority < kClassCount; ++priority) {
      if (heaps_[priority].empty()) continue;
      const uint64_t queued_ns = heaps_[priority].front().computation->queued_ns;
      if (queued_ns >= oldest_ns) continue;
      oldest_ns = queued_ns;
      chosen = priority;
    }
  }
  return static_cast<PriorityClass>(chosen);
}

ClientQueue::Head ClientQueue::Next(uint64_t now_ns) const {
  const PriorityClass priority = Choose(now_ns);
  return {priority, heaps_[priority].front().arrival};
}

ComputationPtr ClientQueue::Pop(uint64_t now_ns) {
  const PriorityClass priority = Choose(now_ns);
  assert(!heaps_[priority].front().computation->taken);
  bool higher = false, lower = false;
  for (int other = kClassQuery; other < kClassCount; ++other) {
    higher |= other < priority && !heaps_[other].empty();
    lower |= other > priority && !heaps_[other].empty();
  }
  passed_over_ = higher || !lower ? 0 : std::min(passed_over_ + 1, kAgedTurn);
  return PopHead(priority);
}

ComputationPtr ClientQueue::PopHead(PriorityClass priority) {
  std::vector<Entry>& heap = heaps_[priority];
  std::pop_heap(heap.begin(), heap.end(), Later());
  ComputationPtr computation = std::move(heap.back().computation);
  heap.pop_back();
  return computation;
}

bool ClientQueue::empty() const { return entries() == 0; }

size_t ClientQueue::entries() const {
  size_t count = 0;
  for (const std::vector<Entry>& heap : heaps_) count += heap.size();
  return count;
}

}  // namespace sutra
