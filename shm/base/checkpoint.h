// SUTRA_CHECKPOINT("wal.synced"): a named point where a test may count, pause, yield, fail or kill the process.
// Off in release builds (the macro is a constant false); test builds (SUTRA_CHECKPOINTS) read the environment once:
//   SUTRA_CHECKPOINT="name:action[:nth][,name:action...]"   action = kill | stop | fail | yield
//     kill   SIGKILL to this process at the nth hit (default the first)
//     stop   SIGSTOP to this process (a test continues it)
//     fail   the macro evaluates to true, and the code takes its error path
//     yield  sched_yield at every hit
// A test in the same process may have a function called at every hit instead (`hook`), to do what no process does to
// itself. Thread-safe; the action table is immutable after the first hit. Usage where failing makes sense:
//   if (SUTRA_CHECKPOINT("wal.submitted")) return Status(...);
#pragma once

#if defined(SUTRA_CHECKPOINTS)
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <atomic>

namespace sutra::checkpoint {

struct Action {
  char name[64];
  char kind;  // first letter of the action
  long nth;
  std::atomic<long> hits;
};

struct Table {
  Action actions[16];
  int count = 0;
  Table() {
    const char* text = getenv("SUTRA_CHECKPOINT");
    while (text != nullptr && *text != '\0' && count < 16) {
      const size_t length = strcspn(text, ",");
      char item[128] = {};
      memcpy(item, text, length < sizeof(item) - 1 ? length : sizeof(item) - 1);
      char* save = nullptr;
      const char* name = strtok_r(item, ":", &save);
      const char* kind = strtok_r(nullptr, ":", &save);
      const char* nth = strtok_r(nullptr, ":", &save);
      if (name != nullptr && kind != nullptr) {
        Action& action = actions[count++];
        strncpy(action.name, name, sizeof(action.name) - 1);
        action.name[sizeof(action.name) - 1] = '\0';
        action.kind = kind[0];
        action.nth = nth != nullptr ? strtol(nth, nullptr, 10) : 1;
        action.hits.store(0, std::memory_order_relaxed);
      }
      text += length + (text[length] == ',' ? 1 : 0);
    }
  }
};

inline std::atomic<void (*)(const char* name)> hook{nullptr};

inline bool Hit(const char* name) {
  if (const auto call = hook.load(std::memory_order_acquire)) call(name);
  static Table table;
  for (int i = 0; i < table.count; ++i) {
    Action& action = table.actions[i];
    if (strcmp(action.name, name) != 0) continue;
    const long hit = action.hits.fetch_add(1, std::memory_order_relaxed) + 1;  // relaxed: only counts
    if (action.kind == 'y') sched_yield();
    if (hit != action.nth) continue;
    if (action.kind == 'k') raise(SIGKILL);
    if (action.kind == 's') raise(SIGSTOP);
    if (action.kind == 'f') return true;
  }
  return false;
}

}  // namespace sutra::checkpoint
#define SUTRA_CHECKPOINT(name) (::sutra::checkpoint::Hit(name))
#else
#define SUTRA_CHECKPOINT(name) (false)
#endif
