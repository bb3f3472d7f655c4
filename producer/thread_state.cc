#include "producer/thread_state.h"

#include <stdarg.h>
#include <stdio.h>

namespace sutra::client {
namespace {

__thread ThreadState thread_state;  // zero-initialised: needs no constructor and so nothing of the C++ runtime

}  // namespace

// Never inlined: the compiler then keeps nothing in vector registers across the lookup of the thread's block, which
// some C libraries do not preserve there.
__attribute__((noinline)) ThreadState& CurrentThread() { return thread_state; }

namespace {

void Keep(sutra_reason reason, const char* format, va_list arguments) {
  ThreadState& state = CurrentThread();
  state.reason = reason;
  vsnprintf(state.error_text, sizeof(state.error_text), format, arguments);
}

}  // namespace

sutra_status Fail(sutra_status status, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  Keep(SUTRA_REASON_NONE, format, arguments);
  va_end(arguments);
  return status;
}

sutra_status FailGone(sutra_reason reason, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  Keep(reason, format, arguments);
  va_end(arguments);
  return SUTRA_ENGINE_GONE;
}

}  // namespace sutra::client
