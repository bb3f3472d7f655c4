// Notices when files that a serving engine needs are removed or replaced under it (by a cleaner of /tmp, by a person):
// the socket, the two lock files, the shard's directory. What is lost is logged once, shown as a gauge, and put back
// where that is possible without touching anybody else's file:
//
//   socket removed          bound again, if the lock on it is held (its file is taken again if it was removed too)
//   socket replaced         said; the other file is left alone
//   DATA or shard removed   said; nothing more is accepted for the log, so that no caller is told that it is durable
//   or replaced             in files that no start will find; the cache serves from memory. Moved back: goes on
//
// Thread rule: the loop thread. Look costs a handful of lstat calls; the loop makes it once a second.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "engine/lanes/listening_socket.h"
#include "engine/serving/shard_slot.h"
#include "shm/base/engine_lock.h"
#include "shm/base/file_identity.h"
#include "shm/base/log_line.h"
#include "shm/stats/stats_writer.h"

namespace sutra {

class FileWatch {
 public:
  struct Options {
    ListeningSocket* socket = nullptr;
    EngineLock* socket_lock = nullptr;
    EngineLock* data_lock = nullptr;  // null, like the next: no cache
    const ShardSlot* cache = nullptr;
    std::string shard_directory;  // "": the shard keeps nothing on disk
    StatsWriter stats;
    LogLine log;
  };

  // What is there now counts as the engine's own; of the shard, what is there when it is open.
  explicit FileWatch(Options options);

  // True: the socket was bound again, and its descriptor must be watched anew.
  bool Look();

 private:
  bool LookAtSocket();
  void LookAtData();
  void LearnShard();
  void Report(LogLevel level, const std::string& line, std::string* reported) const;

  const Options options_;
  bool shard_known_ = false;
  std::optional<FileIdentity> shard_;
  std::string socket_reported_, data_reported_;  // the last line about each; "" while all is well
};

}  // namespace sutra
