#include "producer/attachment.h"

#include <assert.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>

#include <new>

#include "producer/no_cancel.h"
#include "shm/peer_liveness.h"
#include "shm/sleep_wake.h"

namespace sutra::client {
namespace {

constexpr uint64_t kWakeNsMax = 200 * kNsPerMs;  // a sleeping waiter looks by itself after so long

}  // namespace

Attachment* MakeAttachment(const LaneConnection& connection, uint32_t number) {
  void* memory = malloc(sizeof(Attachment));
  if (memory == nullptr) return nullptr;
  Attachment* attachment = new (memory) Attachment(connection, number);
  const HotMapping* hot = connection.hot;
  if (hot == nullptr) return attachment;
  attachment->hot_scratch = static_cast<float*>(malloc(hot->view.geometry.width * sizeof(float)));
  attachment->hot = HotReader(hot->view, connection.mapping.page);
  return attachment;
}

void DestroyAttachment(Attachment* attachment, bool forked) {
  CloseConnection(&attachment->connection, forked);
  free(attachment->hot_scratch);
  attachment->~Attachment();
  free(attachment);
}

uint32_t AskHowGone(Attachment* attachment, uint64_t now_ns) {
  attachment->alive_checked_ns.store(now_ns, std::memory_order_relaxed);  // relaxed: only paces the checks
  const EngineLine& engine = attachment->connection.mapping.reply.engine();
  // SYNC L7 (acquire): close_reason and all answers; meets the engine's release of the state.
  bool closed = engine.state.load(std::memory_order_acquire) == kLaneClosed;
  if (!closed && LockHolderAlive(attachment->connection.reply_fd)) return 0;
  // Once more: between the two looks it may have closed the lane in order and left, which is not a crash.
  if (!closed) closed = engine.state.load(std::memory_order_acquire) == kLaneClosed;  // SYNC L7 (acquire)
  if (!closed) return SUTRA_ENGINE_GONE;
  const uint32_t said = engine.close_reason.load(std::memory_order_relaxed);  // relaxed: ordered by the state
  // An engine that stops leaves the texts in the lane to the next one; else it empties the lane once it is closed.
  if (said == SUTRA_SHUTTING_DOWN) return said;
  return kGoneForGood | (said == SUTRA_PROTOCOL_VIOLATION ? said : SUTRA_ENGINE_GONE);
}

bool HungUp(const Attachment& attachment) {
  const NoCancel no_cancel;
  pollfd item = {attachment.connection.socket, 0, 0};  // hang-up and error are reported unasked
  return poll(&item, 1, 0) > 0;
}

// A waiter that was between its last look and the kernel misses a wake, and a dead engine makes no other: so wakes go
// on until the last one has left, which finds the attachment gone before it sleeps again. Bounded, since the engine
// made the memory and may still write to it: then the waiters leave at the end of their slices.
void WakeUntilNoneSleeps(const Attachment& attachment) {
  assert(IsGone(attachment));
  const SharedWord<uint32_t>& sleepers = attachment.connection.mapping.request.client().sleepers;
  const SharedWord<uint32_t>& word = attachment.connection.mapping.reply.engine().futex_word;
  const uint64_t until_ns = MonotonicNs() + kWakeNsMax;
  const NoCancel no_cancel;
  FullFence();  // `gone` before the loads of sleepers; meets the fence of SYNC L4 in WaitUntil
  // relaxed: ordered by the fence
  for (int round = 0; sleepers.load(std::memory_order_relaxed) != 0 && MonotonicNs() < until_ns; ++round) {
    FutexWakeAll(word.futex_address());  // allowed on a read-only mapping
    if (round < 16) {
      sched_yield();
    } else {
      poll(nullptr, 0, 1);
    }
  }
}

}  // namespace sutra::client
