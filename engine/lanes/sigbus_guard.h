// Makes a fault while reading a client's memory (SIGBUS: its file shrank, or the host is out of memory for it) the
// failure of that read instead of the engine's death. Any other SIGBUS goes to the handler that was there before.
//
// Thread rule: InstallSigbusGuard once, at start-up, before the first guarded read. A guard is per thread and does not
// nest.
#pragma once

#include <setjmp.h>

#include <atomic>
#include <cassert>

namespace sutra {

// RETURNS false if the kernel refuses the handler (errno says why).
bool InstallSigbusGuard();

namespace sigbus {

// The jump leaves the handler without restoring the signal mask, which saves a system call per copy: SA_NODEFER left
// the mask as it was. TSan runs handlers with every signal blocked, whatever the flags say.
#if defined(__SANITIZE_THREAD__)
inline constexpr int kSaveMask = 1;
#else
inline constexpr int kSaveMask = 0;
#endif

struct Guard {
  sigjmp_buf environment;
};
inline constinit thread_local Guard* volatile current = nullptr;  // where this thread's fault jumps to

}  // namespace sigbus

// Runs `read`; RETURNS false if it faulted. `read` must own nothing that a jump would leak.
template <typename Read>
[[nodiscard]] __attribute__((noinline)) bool RunGuarded(const Read& read) {
  assert(sigbus::current == nullptr);
  sigbus::Guard guard;
  if (sigsetjmp(guard.environment, sigbus::kSaveMask) != 0) return false;
  sigbus::current = &guard;
  std::atomic_signal_fence(std::memory_order_seq_cst);  // the guard stands before the first load
  read();
  std::atomic_signal_fence(std::memory_order_seq_cst);
  sigbus::current = nullptr;
  return true;
}

}  // namespace sutra
