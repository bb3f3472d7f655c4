// How many threads sleep on the word of a lane's engine.
#pragma once

#include "producer/client_lane.h"

namespace sutra::test {

inline uint32_t SleepersOf(client::ClientLane* lane) {
  const MutexLock lock(lane->mutex);
  if (lane->current == nullptr) return 0;
  return lane->current->connection.mapping.request.client().sleepers.load(std::memory_order_seq_cst);
}

}  // namespace sutra::test
