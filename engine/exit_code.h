// The exit codes of sutra-engine, also listed in DESIGN.md. Supervisors act on them, so numbers are never reused.
#pragma once

namespace sutra {

enum ExitCode : int {
  kExitClean = 0,        // drained after a signal: everything taken was answered and is synced
  kExitUsage = 2,        // a bad option or configuration file
  kExitCannotStart = 3,  // model, data directory, socket, memory: the message says which, and the fix
  kExitLocked = 4,       // another engine holds the lock on --data or --socket; the message names it
  kExitDeviceFault = 5,  // the device is unusable for this process; start again
  kExitIncomplete = 6,   // stopped, but the drain timed out or the last sync failed
  kExitLoopFailed = 7,   // the kernel refused something that the loop needs
  kExitOtherModel = 8,   // a standby that would not serve what the running engine serves; the message has both
  // Of --status, --hand-over and --set-log-level, beside kExitClean and kExitUsage:
  kExitRefused = 10,   // the engine, or the kernel, refused: the message says why, and the fix
  kExitNoEngine = 11,  // nothing listens at the socket, or it hung up without an answer
  kExitNoAnswer = 12,  // no answer in time: the engine is stopped; after a hand-over, no next engine answered
};                     // 128 + n: a second signal n ended the process at once

}  // namespace sutra
