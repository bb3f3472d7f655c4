// Sleeping and waking across processes: the futex call and both halves of each sleep/wake pair, so that the
// two fences that must meet stand beside each other. Header-only and free of the C++ runtime.
//
// Thread rule: all functions may be called from any thread. Always shared futexes: a private futex, or
// std::atomic::wait, would hash the address of one process only and never meet the other. Waiting works on a read-only
// mapping.
//
// Client asleep (SYNC L4). The waiter: sleepers += 1; fence; F = futex_word; look at the result; futex wait on F.
// The engine: store the result; fence; look at sleepers; if any: futex_word += 1, wake. Without both fences the waiter
// could miss the result while the engine misses the sleeper, and the waiter sleeps on an answered request. With them
// one of the two sees the other; and if the engine bumps futex_word after F was read, the kernel refuses the wait.
// The bump is one step: of two threads that store the same value, a waiter that read it in between would take the
// second for no bump at all.
//
// A wake costs the engine microseconds per sleeper, so it wakes kWakesPerCall of them at most. A waiter that a wake has
// reached wakes all others that sleep, at its own process' expense, before it does anything else (WakeOtherSleepers);
// a timeout or a signal reaches nobody else and needs no such call. A bounded wake must not be spent on waiters that
// fell asleep after the bump, and the kernel promises no order (it wakes real-time threads first). So whoever waits
// does so under one bit, of the value that it sleeps on (FUTEX_WAIT_BITSET), and a bump of v is followed by a wake of
// v's bit:
//  - Nobody falls asleep on v after the bump. The wake reaches one that sleeps on v, unless there is none, and that one
//    wakes all others on v. Those of older values have a wake of their own, by whoever bumped them, which may come late
//    but reaches no others; so one bit is enough.
//  - Values 32 apart share a bit. A wake for v that comes so late that there are waiters on v + 32 may reach only
//    those: they pass it on under the same bit, to those on v too, although the word has not moved since they fell
//    asleep. But then only once for each value that they sleep on, or two of them would wake each other for ever. Once
//    is enough: they read v + 32 after the bump of v, so the one call reaches all who are left on v.
//  - A thread that waits for answers on several lanes (futex_waitv) sleeps on every lane's word at once and under no
//    bit: any wake reaches it, of any value that was bumped before it read its own. So it passes a wake on to all who
//    sleep on any of its words, under any bit, by the same rule: once for each value that it sleeps on, and again when
//    the word has moved. Once is enough for the same reason.
//
// Engine asleep (SYNC L5) and lane parked (SYNC L8). The engine: asleep = 1; fence; look at the rings that are polled;
// epoll. And at times: parked = 1; fence; look at this lane's ring; if it is empty: poll it no longer. The client:
// publish the entry; fence; look at asleep and at parked; if either is 1: one byte on the socket, which ends the sleep
// and lets the engine store parked = 0 and poll the lane again. Same argument with the roles exchanged, once per word:
//  - A client that reads parked = 0 from before a parking published before the look of that parking, which finds the
//    entry: the lane stays polled. One that reads the 0 of an unparking is polled from then on until the next parking.
//    Either way the lane is polled, and what a polled lane holds is the business of asleep alone: a client that reads
//    asleep = 0 from before a sleep published before that sleep's look, which includes every polled lane.
//  - So the client may take both words from one fence, in any order, although the engine changes the two at different
//    times. A sleep never needs to park, and a parking that happens while the engine sleeps does not exist: one thread.
//  - parked = 0 is stored before the lane's doorbells are read, and it is polled from then on: bytes that are read
//    afterwards belong to entries that a later look finds. A doorbell that finds the socket full (EAGAIN) has unread
//    ones before it, whose reading comes after the entry.
// Without the client's fence both words may be read before the entry is visible; without the engine's, its look comes
// before the client can see the word: either way the client does not ring and nobody looks.
//
// Event loop (SYNC L6). The client: event_armed = 1; fence; look at the completion ring. The engine: publish; fence;
// look at event_armed; if 1: one byte into the pipe.
#pragma once

#include <errno.h>
#include <linux/futex.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>

#include "shm/base/cpu_pause.h"
#include "shm/base/time.h"
#include "shm/layout.h"

namespace sutra {

// A store, then a load of another word: only a full fence keeps their order. TSan does not model fences (and g++ makes
// the plain call an error there), so its builds use a read-modify-write, which has the same effect for both.
inline void FullFence() {
#if defined(__SANITIZE_THREAD__)
  static std::atomic<uint32_t> word{0};
  word.fetch_add(1, std::memory_order_seq_cst);
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

constexpr uint32_t FutexBit(uint32_t value) { return uint32_t{1} << (value % 32); }

// Returns when woken, when the word no longer is `expected`, on a signal, or at until_ns (CLOCK_MONOTONIC). The caller
// checks again. RETURNS true if a wake ended it.
inline bool FutexWait(const uint32_t* word, uint32_t expected, uint64_t until_ns) {
  const timespec until = ToTimespec(until_ns);
  return syscall(SYS_futex, word, FUTEX_WAIT_BITSET, expected, &until, nullptr, FutexBit(expected)) == 0;
}

// Wakes those that wait under the bit of `slept_on`.
inline void FutexWake(const uint32_t* word, int waiters_max, uint32_t slept_on) {
  syscall(SYS_futex, word, FUTEX_WAKE_BITSET, waiters_max, nullptr, nullptr, FutexBit(slept_on));
}
// Whatever they wait under.
inline void FutexWakeAll(const uint32_t* word) { syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0); }

// One of several words that a thread sleeps on, and the value that it expects there. Laid out as the kernel's own.
struct FutexWaiter {
  uint64_t expected = 0;
  uint64_t address = 0;
  uint32_t flags = 2;  // a shared futex of 32 bits
  uint32_t reserved = 0;

  FutexWaiter() = default;
  FutexWaiter(const uint32_t* word, uint32_t value) : expected(value), address(reinterpret_cast<uintptr_t>(word)) {}
};
inline constexpr uint32_t kFutexWaitersMax = 128;
enum class FutexWoken : uint8_t { kNo, kYes, kUnsupported };

// As FutexWait, of the first word that no longer is as expected, or is woken: wakes under any bit reach this thread,
// and it may have taken one on several of the words at once. kUnsupported before Linux 5.16, or where a filter forbids
// it.
inline FutexWoken FutexWaitAny(const FutexWaiter* waiters, uint32_t count, uint64_t until_ns) {
  const timespec until = ToTimespec(until_ns);
  constexpr long kFutexWaitv = 449;  // on every architecture
  if (syscall(kFutexWaitv, waiters, count, 0, &until, CLOCK_MONOTONIC) >= 0) return FutexWoken::kYes;
  return errno == ENOSYS || errno == EPERM || errno == EACCES ? FutexWoken::kUnsupported : FutexWoken::kNo;
}

// Engine: after publishing one answer or a batch of them. One fence covers sleepers and event loop.
// RETURNS what the client asked for; the caller writes one byte into the pipe for `event` (EAGAIN counts as rung).
struct WakeNeeds {
  bool sleepers = false;
  bool event = false;
};
inline WakeNeeds LookForSleepers(const RequestLane& request) {
  // SYNC L4, L6: the answers' stores before these loads. Nothing else orders them: the loop's answers take no lock, and
  // even x86 lets a load overtake the stores before it.
  FullFence();
  WakeNeeds needs;
  // relaxed: ordered by the fence; the value is a hint that can hurt only the client that wrote it
  needs.sleepers = request.client().sleepers.load(std::memory_order_relaxed) != 0;
  needs.event = request.client().event_armed.load(std::memory_order_relaxed) != 0;
  return needs;
}
// Engine: for `sleepers`. RETURNS the value before.
[[nodiscard]] inline uint32_t BumpFutexWord(const ReplyLane& reply) {
  // SYNC L4 (release): a client that reads the new value sees the answers.
  return reply.engine().futex_word.fetch_add(1, std::memory_order_release);
}
// Engine: after the bump, of which every one needs a wake of its own; a system call, so without any lock.
inline constexpr int kWakesPerCall = 4;
inline void WakeFirstSleepers(const ReplyLane& reply, uint32_t slept_on) {
  FutexWake(reply.engine().futex_word.futex_address(), kWakesPerCall, slept_on);
}
// Client: a wait on `slept_on` was ended by a wake, and this waiter no longer counts among the sleepers. `again`: it
// has made this call for the same value before.
inline void WakeOtherSleepers(const RequestLane& request, const ReplyLane& reply, uint32_t slept_on, bool again) {
  // relaxed: the wake-up ordered the bump, and the addition of all who sleep on that value, before these loads
  if (request.client().sleepers.load(std::memory_order_relaxed) == 0) return;
  const SharedWord<uint32_t>& word = reply.engine().futex_word;
  if (again && word.load(std::memory_order_relaxed) == slept_on) return;
  FutexWake(word.futex_address(), INT32_MAX, slept_on);
}

// The same for a waiter that slept on several lanes' words at once.
inline void WakeAllOtherSleepers(const RequestLane& request, const ReplyLane& reply, uint32_t slept_on, bool again) {
  // relaxed: see WakeOtherSleepers
  if (request.client().sleepers.load(std::memory_order_relaxed) == 0) return;
  const SharedWord<uint32_t>& word = reply.engine().futex_word;
  if (again && word.load(std::memory_order_relaxed) == slept_on) return;
  FutexWakeAll(word.futex_address());
}

// Engine: before it sleeps in epoll. The caller then looks at every submission ring once more, and stores 0 on waking.
inline void AnnounceEngineAsleep(EnginePage* page) {
  page->asleep.store(1, std::memory_order_relaxed);  // relaxed: ordered by the fence
  FullFence();                                       // SYNC L5: the store before the loads of the rings
}
inline void AnnounceEngineAwake(EnginePage* page) {
  page->asleep.store(0, std::memory_order_relaxed);  // relaxed: a client that sees it late sends one needless byte
}

// Engine: the lane will no longer be polled. The caller fences (once for many lanes: SYNC L8), looks at the lane's ring
// once more, and takes it back if there is an entry.
inline void AnnounceParked(const ReplyLane& reply) {
  reply.engine().parked.store(1, std::memory_order_relaxed);  // relaxed: ordered by the caller's fence
}
inline void AnnouncePolled(const ReplyLane& reply) {
  reply.engine().parked.store(0, std::memory_order_relaxed);  // relaxed: a client that sees it late rings needlessly
}
inline bool IsParked(const ReplyLane& reply) {
  return reply.engine().parked.load(std::memory_order_relaxed) != 0;  // relaxed: the engine asks its own word
}

// Client: after publishing one submission or many. RETURNS true if the engine would not find them: then SendDoorbell.
inline bool NeedsDoorbell(const EnginePage* page, const ReplyLane& reply) {
  FullFence();  // SYNC L5, L8: the entries' stores before these loads
  // relaxed: ordered by the fence
  return page->asleep.load(std::memory_order_relaxed) != 0 ||
         reply.engine().parked.load(std::memory_order_relaxed) != 0;
}
// RETURNS false if the engine hung up.
inline bool SendDoorbell(int socket) {
  const char byte = 1;
  const ssize_t sent = send(socket, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
  return sent == 1 || errno == EAGAIN || errno == EINTR || errno == ENOBUFS;  // full: the doorbell has been rung
}

}  // namespace sutra
