// What the cache commands of a control session do: to the shard that is served, and to the data directory beside it.
//
// Thread rule: one thread at a time, the one of admin_thread.h; blocks on the disk.
// Invariants:
//  - Whatever changes something is written down before (audit_log.h) and after; where that fails nothing is begun.
//  - No removal is confirmed before `confirm_from_ns`: until then a client may answer from the table of the engine
//    before (shm/hot_table.h).
//  - A removal whose asker is gone goes on to its end; everything else ends early.
//  - Texts stand in answers to `get` and `page` only, never in a message, a log or the audit.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cache/audit_log.h"
#include "cache/cache_shard.h"
#include "engine/control/admin_thread.h"
#include "engine/model/model_info.h"
#include "shm/base/log_line.h"

namespace sutra {

class CacheCommands {
 public:
  struct Options {
    std::function<CacheShard*()> shard;    // null: not open
    std::function<bool()> shard_may_come;  // asked where there is none: it is being opened, or tried again
    std::function<bool()> data_lock_held;  // nothing of the data directory is touched otherwise
    CacheConfig config;                    // of the shard
    uint64_t confirm_from_ns = 0;          // CLOCK_MONOTONIC
    LogLine log;
  };
  explicit CacheCommands(Options options);

  CacheReply Run(const CacheJob& job, const AdminThread::Turn& turn);

 private:
  using Turn = AdminThread::Turn;

  CacheReply RunOnShard(const CacheJob& job, const Turn& turn, CacheShard* shard);
  CacheReply Preview(const CacheJob& job, const Turn& turn, CacheShard* shard);
  CacheReply Commit(const CacheJob& job, const Turn& turn, CacheShard* shard);
  CacheReply Erase(const CacheJob& job, const Turn& turn, CacheShard* shard);
  CacheReply Get(const CacheJob& job, CacheShard* shard);
  CacheReply ReadPage(const CacheJob& job, const Turn& turn, CacheShard* shard);
  CacheReply Import(const CacheJob& job, const Turn& turn, CacheShard* shard);
  CacheReply StorePage(const CacheJob& job, const Turn& turn, CacheShard* shard);
  CacheReply Compact(const CacheJob& job, const Turn& turn, CacheShard* shard);
  CacheReply Info(const CacheShard& shard) const;
  CacheReply Identities() const;
  CacheReply DropIdentity(const CacheJob& job, const Turn& turn);
  CacheReply RemoveDirectory(const std::string& identity, const Turn& turn);
  // Between its two lines of the audit. `result` puts a reply that is ok into words.
  CacheReply Audited(const CacheJob& job, const std::string& what, const std::function<CacheReply()>& change,
                     const std::function<std::string(const CacheAnswerBody&)>& result);
  CacheReply Confirmed(CacheReply reply, const Turn& turn) const;

  const Options options_;
  AuditLog audit_;
  uint64_t preview_token_ = 0;  // of the last preview, and what it was about in words
  std::string preview_words_;
};

}  // namespace sutra
