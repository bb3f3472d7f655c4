// The client object behind embed.h: its lanes, which of them a call uses, and attaching again after an engine dies.
//
// Thread rule: any thread. A call holds at most one lane's mutex and never waits while holding it; `open_mutex` is
// taken without a lane's mutex held. Invariants: the table's lanes are created once and never freed before the client;
// every lane has the same slot count, width and model identity, since the callers' buffers depend on them.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <atomic>

#include "producer/client_lane.h"
#include "producer/fork_detector.h"
#include "producer/thread_state.h"
#include "shm/base/mutex.h"

namespace sutra::client {

inline constexpr uint32_t kLanesDefault = 4;
inline constexpr uint32_t kLanesLimit = 32;
inline constexpr uint32_t kAttachTimeoutMsDefault = 5000;
inline constexpr uint32_t kSpinUsDefault = 30;
inline constexpr uint32_t kLaneTableSize = 64;  // open lanes, and dead ones whose vectors are still held
inline constexpr uint64_t kReopenTimeoutNs = 100 * kNsPerMs;
inline constexpr uint64_t kBackoffNsMin = 10 * kNsPerMs;
inline constexpr uint64_t kBackoffNsMax = 500 * kNsPerMs;

}  // namespace sutra::client

struct sutra_client {
  char path[108] = {};
  sutra::HelloMessage hello = {};  // of the next lane
  sutra_info info = {};            // as of the attach: engine_pid and engine_generation below are the current ones
  uint32_t lanes_max = 0;
  uint64_t spin_ns = 0;
  sutra::client::ForkDetector fork_detector;

  std::atomic<sutra::client::ClientLane*> lanes[sutra::client::kLaneTableSize] = {};
  std::atomic<uint32_t> lane_count = 0;  // entries of `lanes` in use

  mutable sutra::Mutex open_mutex;          // one thread opens a lane at a time
  std::atomic<uint64_t> open_after_ns = 0;  // backoff
  uint64_t backoff_ns SUTRA_GUARDED_BY(open_mutex) = sutra::client::kBackoffNsMin;
  // Of the last attempt that left the client without a lane.
  sutra_status open_status SUTRA_GUARDED_BY(open_mutex) = SUTRA_OK;
  char open_text[sizeof(sutra::client::ThreadState::error_text)] SUTRA_GUARDED_BY(open_mutex) = {};
  uint32_t engine_pid SUTRA_GUARDED_BY(open_mutex) = 0;
  uint64_t engine_generation SUTRA_GUARDED_BY(open_mutex) = 0;
};

namespace sutra::client {

inline bool IsForked(const sutra_client* client) { return IsForked(client->fork_detector); }

// A client without a lane. `path` and `hello` are checked (CheckAttach). RETURNS nullptr when out of memory.
sutra_client* NewClient(const char* path, const sutra_attach_options& options, const HelloMessage& hello);
void FreeClient(sutra_client* client, bool forked);
// Opens the first lane, for sutra_attach.
sutra_status OpenFirstLane(sutra_client* client, uint64_t deadline_ns);

// For a caller that found all lanes busy or full: opens one more, unless there are lanes_max by now or another thread
// is opening one. RETURNS true and *lane with its mutex held.
bool AddLane(sutra_client* client, uint64_t now_ns, ClientLane** lane) SUTRA_EXCLUDES(client->open_mutex)
    SUTRA_TRY_ACQUIRE(true, (*lane)->mutex);
// RETURNS true and *lane with its mutex held, open, and with at least one free slot; or false and *status: SUTRA_FULL,
// SUTRA_ENGINE_GONE, SUTRA_SHUTTING_DOWN, ... Opens a lane where that helps and is possible within kReopenTimeoutNs.
bool AcquireLane(sutra_client* client, uint64_t now_ns, ClientLane** lane, sutra_status* status)
    SUTRA_TRY_ACQUIRE(true, (*lane)->mutex);
// The same for blocking calls: waits for a slot until `until_ns` where AcquireLane says SUTRA_FULL.
bool AcquireLaneWaiting(sutra_client* client, uint64_t until_ns, ClientLane** lane, sutra_status* status)
    SUTRA_TRY_ACQUIRE(true, (*lane)->mutex);

}  // namespace sutra::client
