// What is kept per thread: the text of its last failure and the lane it used last.
// Thread rule: everything here is the calling thread's own.
#pragma once

#include <stdint.h>

#include "producer/include/sutra/embed.h"

namespace sutra::client {

struct ThreadState {
  char error_text[512];
  sutra_reason reason;         // of the last failure, if it is SUTRA_ENGINE_GONE
  uint32_t lane_hint;          // where to look for a free lane first
  uint64_t room_wish_joined;   // wishes for room (client_signals.h): the one that counts this thread,
  uint64_t room_wish_learned;  // and the one that it polled after
};
ThreadState& CurrentThread();

// Keeps the explanation (cause and fix) for sutra_error_text. RETURNS `status`, so that `return Fail(...)` reads well.
__attribute__((format(printf, 2, 3))) sutra_status Fail(sutra_status status, const char* format, ...);

// The same with SUTRA_ENGINE_GONE and its reason.
__attribute__((format(printf, 2, 3))) sutra_status FailGone(sutra_reason reason, const char* format, ...);

}  // namespace sutra::client
