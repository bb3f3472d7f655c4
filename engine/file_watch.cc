// Compares what the paths lead to with what the engine made there.
#include "engine/file_watch.h"

#include <cerrno>

namespace sutra {

FileWatch::FileWatch(Options options) : options_(std::move(options)) { LearnShard(); }

void FileWatch::LearnShard() {
  if (shard_known_ || options_.shard_directory.empty() || options_.cache->Get() == nullptr) return;
  shard_ = FileIdentity::At(options_.shard_directory);
  shard_known_ = true;
}

bool FileWatch::Look() {
  LookAtData();
  return LookAtSocket();
}

// The same fault is logged once, however long it lasts; another one, or the same after a recovery, again.
void FileWatch::Report(LogLevel level, const std::string& line, std::string* reported) const {
  if (*reported == line) return;
  *reported = line;
  options_.log(level, line);
}

bool FileWatch::LookAtSocket() {
  const Status lost = options_.socket->Look();
  if (lost.ok() && options_.socket_lock->InPlace()) {
    socket_reported_.clear();
    options_.stats.Set(Gauge::kSocketLost, 0);
    return false;
  }
  options_.stats.Set(Gauge::kSocketLost, 1);
  const bool bind = lost.os_error() == ENOENT;  // else it is there, or something else is
  Status back = lost.ok() || bind ? Status() : lost;
  // The lock first: without it another engine may be starting at this very path.
  if (back.ok() && !options_.socket_lock->InPlace()) back = options_.socket_lock->TakeAgain();
  if (back.ok() && bind) back = options_.socket->BindAgain();
  if (!back.ok()) {
    Report(LogLevel::kError,
           "new clients cannot attach: the socket or its lock file was removed or replaced while serving, and cannot "
           "be put back: " +
               back.message() + "; the clients that are attached are served on",
           &socket_reported_);
    return false;
  }
  options_.log(LogLevel::kError, "the socket or its lock file was removed while serving, and was put back: " +
                                     options_.socket_lock->path() +
                                     "; keep cleaners of temporary files away from it, or move --socket to /run");
  socket_reported_.clear();
  options_.stats.Set(Gauge::kSocketLost, 0);
  return bind;
}

void FileWatch::LookAtData() {
  if (options_.data_lock == nullptr) return;
  LearnShard();
  const bool lock_lost = !options_.data_lock->InPlace();
  const bool shard_lost = shard_.has_value() && FileIdentity::At(options_.shard_directory) != shard_;
  const bool lost = lock_lost || shard_lost;
  if (lost) {
    const std::string what =
        shard_lost ? "the cache's directory " + options_.shard_directory : "the lock " + options_.data_lock->path();
    Report(LogLevel::kError,
           what +
               " was removed or replaced while serving: nothing more is logged there, and what is cached now is lost "
               "with the end of this engine; put it back, or start the engine again",
           &data_reported_);
  } else if (!data_reported_.empty()) {
    data_reported_.clear();
    options_.log(LogLevel::kInfo, "the data directory is back in its place: the log goes on");
  }
  options_.stats.Set(Gauge::kDataLost, lost ? 1 : 0);
  if (CacheShard* const cache = options_.cache->Get(); cache != nullptr) cache->SetStorageLost(lost);
}

}  // namespace sutra
