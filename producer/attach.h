// One attach: connect, handshake, map, lock, served. Opens one lane; the caller decides when and how often.
// Thread rule: any thread; no shared state. Every step has the deadline, so a dead, stopped or hostile engine costs at
// most that, and the thread may have something else to do meanwhile. If any step fails, nothing stays open.
#pragma once

#include <stdint.h>

#include "producer/hot_mapping.h"
#include "producer/include/sutra/embed.h"
#include "producer/lane_mapping.h"
#include "shm/base/time.h"
#include "shm/handshake_messages.h"

namespace sutra::client {

struct LaneConnection {
  int socket = -1;
  int request_fd = -1;  // carries our lock: the only descriptor of the file, never dup'ed
  int reply_fd = -1;    // to ask whether the engine is alive
  int tail_fd = -1;     // to allocate and give back what long texts need
  int event_fd = -1;    // read end of the event pipe
  int hot_fd = -1;      // of the hot table, until it is mapped
  LaneMapping mapping;
  HotMapping* hot = nullptr;              // one reference; the hot table, if there is one
  int64_t engine_clock_ahead_ns = 0;      // engine's CLOCK_MONOTONIC minus ours; not 0 only across time namespaces
  int64_t engine_clock_ahead_ns_max = 0;  // the most that it may be
  WelcomeMessage welcome = {};
};

struct AttachPatience {
  uint64_t deadline_ns = 0;
  bool (*go_on)(void* context) = nullptr;  // called every kLookAroundNs while it waits; false = give up
  void* context = nullptr;
};
inline constexpr uint64_t kLookAroundNs = 2 * kNsPerMs;

// RETURNS SUTRA_OK; SUTRA_ENGINE_GONE (nothing listens, or it hung up); SUTRA_REFUSED; SUTRA_OUT_OF_MEMORY;
// SUTRA_DEADLINE_EXCEEDED. sutra_error_text says why; lane->welcome is what the engine said, also when it refused.
sutra_status AttachLane(const char* path, const HelloMessage& hello, const AttachPatience& patience,
                        LaneConnection* lane);

// `forked`: the mappings do not exist in this process, and their addresses may be in use for something else.
void CloseConnection(LaneConnection* lane, bool forked);
// Closes the descriptors alone: what is mapped stays so.
void CloseDescriptors(LaneConnection* lane);

}  // namespace sutra::client
