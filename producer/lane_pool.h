// The client object behind embed.h: its lanes, and which of them a call uses. lane_open.h opens them, on the thread
// that lane_helper.h has for it.
//
// Thread rule: any thread. A call holds at most one lane's mutex, and never waits while holding it; `attempt_mutex` is
// a leaf that is held for a few words, never during a handshake. Invariants: the table's lanes are created once and
// never freed before the client, whichever engines come and go; every lane has the same slot count, width and model
// identity, since the callers' buffers depend on them.
#pragma once

#include <pthread.h>
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
inline constexpr uint32_t kLaneTableSize = 64;                // what tickets have bits for
inline constexpr uint64_t kReopenTimeoutNs = 100 * kNsPerMs;  // of one attempt to open another lane
// A claim ends when none of its pages came free for so long: they may be of a ticket that its caller holds until
// another of its long texts is through, and then the claim would be in that one's way.
inline constexpr uint64_t kClaimNs = 1000 * kNsPerMs;
inline constexpr uint64_t kBackoffNsMin = 1 * kNsPerMs;  // while nothing listens
inline constexpr uint64_t kBackoffNsMax = 50 * kNsPerMs;
inline constexpr uint64_t kRefusedBackoffNsMin = 10 * kNsPerMs;  // while an engine is there and refuses
inline constexpr uint64_t kRefusedBackoffNsMax = 500 * kNsPerMs;
static_assert(kLanesLimit <= kLaneTableSize);

struct LaneHelper {  // see lane_helper.h
  pthread_t thread = {};
  bool running = false;
  std::atomic<uint32_t> stop = 0;
  std::atomic<uint32_t> asked = 0;    // a call wants a lane
  std::atomic<uint32_t> opening = 0;  // an attempt is under way
};

}  // namespace sutra::client

struct sutra_client {
  char path[108] = {};
  sutra::HelloMessage hello = {};     // of the next lane
  sutra_info info = {};               // as of the attach; what changes is below
  sutra::WelcomeMessage served = {};  // of the first engine: what the lanes are made for
  uint32_t lanes_max = 0;
  uint64_t spin_ns = 0;
  sutra::client::ForkDetector fork_detector;

  std::atomic<sutra::client::ClientLane*> lanes[sutra::client::kLaneTableSize] = {};
  std::atomic<uint32_t> lane_count = 0;  // entries of `lanes` in use

  sutra::client::ClientSignals signals;
  sutra::client::LaneHelper helper;

  mutable sutra::Mutex attempt_mutex;
  std::atomic<uint64_t> open_after_ns = 0;  // backoff
  uint64_t backoff_ns SUTRA_GUARDED_BY(attempt_mutex) = sutra::client::kBackoffNsMin;
  uint64_t attempts SUTRA_GUARDED_BY(attempt_mutex) = 0;                   // that ended, after the first lane
  sutra_status attempt_status SUTRA_GUARDED_BY(attempt_mutex) = SUTRA_OK;  // of the last one
  char attempt_text[sizeof(sutra::client::ThreadState::error_text)] SUTRA_GUARDED_BY(attempt_mutex) = {};
  sutra_status lost_status SUTRA_GUARDED_BY(attempt_mutex) = SUTRA_OK;  // how the last lane ended, until the next opens
  // Why no engine that came back was the client's, until one is: SUTRA_REASON_OTHER_..., and the explanation.
  sutra_reason other_reason SUTRA_GUARDED_BY(attempt_mutex) = SUTRA_REASON_NONE;
  char other_text[sizeof(sutra::client::ThreadState::error_text)] SUTRA_GUARDED_BY(attempt_mutex) = {};
  uint32_t engines SUTRA_GUARDED_BY(attempt_mutex) = 0;
  std::atomic<uint64_t> resubmitted = 0;
  uint32_t engine_pid SUTRA_GUARDED_BY(attempt_mutex) = 0;
  uint64_t engine_generation SUTRA_GUARDED_BY(attempt_mutex) = 0;
};

namespace sutra::client {

inline bool IsForked(const sutra_client* client) { return IsForked(client->fork_detector); }

// All lanes that the table has now. From any thread; the lanes' mutexes are the visitor's to take.
template <typename Visit>
void ForEachLane(const sutra_client* client, const Visit& visit) {
  const uint32_t count = client->lane_count.load(std::memory_order_acquire);  // SYNC C2 (acquire)
  for (uint32_t i = 0; i < count; ++i) {
    visit(client->lanes[i].load(std::memory_order_relaxed));  // relaxed: ordered by the count
  }
}

// A client without a lane. `path` and `hello` are checked (CheckAttach). RETURNS nullptr when out of memory.
sutra_client* NewClient(const char* path, const sutra_attach_options& options, const HelloMessage& hello);
void FreeClient(sutra_client* client, bool forked);

struct LaneWish {             // what a blocking call wants
  uint32_t text_bytes = 0;    // of its next text, at most info.text_bytes_max
  bool fail_fast = false;     // not to wait for an engine
  uint32_t cancel_epoch = 0;  // when the call began: a later sutra_cancel_all ends it (cancel_all.h)
};

// RETURNS true and *lane with its mutex held, open, and with room for a text of `text_bytes`; or false and *status:
// SUTRA_FULL, SUTRA_ENGINE_GONE, SUTRA_SHUTTING_DOWN, ... Never waits for anything but a lane's mutex: the helper
// thread is asked for a lane where that helps. REQUIRES text_bytes <= info.text_bytes_max.
bool AcquireLane(sutra_client* client, uint64_t now_ns, uint32_t text_bytes, ClientLane** lane, sutra_status* status)
    SUTRA_TRY_ACQUIRE(true, (*lane)->mutex);
// The same for blocking calls: waits until `until_ns` for room, and for an engine where there is none; but not where
// the one that came back is another than the client's. A long text claims pages (kClaimNs), so that shorter ones which
// come and go do not keep it waiting for ever.
bool AcquireLaneWaiting(sutra_client* client, uint64_t until_ns, const LaneWish& wish, ClientLane** lane,
                        sutra_status* status) SUTRA_TRY_ACQUIRE(true, (*lane)->mutex);

// RETURNS SUTRA_DEADLINE_EXCEEDED and keeps the explanation of a request that waited for an engine in vain.
sutra_status FailWithoutEngine(const sutra_client* client);

}  // namespace sutra::client
