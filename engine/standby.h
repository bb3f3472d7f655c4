// A standby: an engine whose model is loaded and which waits for the end of the engine that serves at the same socket
// and data. It changes nothing of that engine's: not its stats segment, its socket or its data.
//
// Whoever gets the locks first serves; several standbys wait in the kernel for them, and the others go on waiting. A
// standby that would serve something else (another identity, width or precision class) does not wait: its turn would
// end every request that moves to it. It learns that from the running engine's stats segment and by registering with it
// (engine/control), where it is in the roster for as long as it waits.
//
// Thread rule: the main thread. While it is registered it gives a sign of life every kStandbyBeatMs; the hang-up of
// that connection is the end of the engine, and if somebody else takes over, it registers there.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/control/standby_link.h"
#include "engine/lock_waiter.h"
#include "engine/model/model_info.h"
#include "engine/serving/shutdown.h"
#include "shm/base/engine_lock.h"
#include "shm/base/log_line.h"
#include "shm/base/status.h"

namespace sutra {

class Standby {
 public:
  struct Options {
    std::vector<std::string> locks;  // paths, in the order in which every engine takes them
    std::string socket;
    const ModelInfo* model = nullptr;
    Shutdown* shutdown = nullptr;
    LogLine log;
  };
  struct Turn {
    std::vector<EngineLock> locks;
    bool waited = false;    // another engine served until now
    uint64_t since_ns = 0;  // when the locks were there
  };

  explicit Standby(Options options) : options_(std::move(options)) {}

  // Returns when this process is the one that may serve, at once if there is no other. kCancelled: a signal said stop.
  // kRefused: the engine that runs there serves something else; the message has both. Otherwise a lock that cannot be
  // taken at all.
  Result<Turn> Wait();

 private:
  Status TakeFree(std::vector<EngineLock>* taken) const;
  // kOk: it serves the same. kRefused: it does not. kNotReady: not known (yet).
  Status CompareWithRunning() const;
  // Registers with the engine that runs. kRefused: it serves something else. Other errors are worth another try.
  Status Register();
  // The same, in the wait: logs what an operator should know. kOk unless it was refused.
  Status Ask();
  Result<Turn> WaitForLocks(std::vector<EngineLock>* taken);

  const Options options_;
  std::optional<StandbyLink> link_;
  std::string said_;  // why it is not registered
};

}  // namespace sutra
