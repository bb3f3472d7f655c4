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

sutra_status Fail(sutra_status status, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  ThreadState& state = CurrentThread();
  vsnprintf(state.error_text, sizeof(state.error_text), format, arguments);
  va_end(arguments);
  return status;
}

}  // namespace sutra::client
