// Which of the two kinds a command gets.
#include "tools/cache/cache_target.h"

#include "cache/shard_directory.h"
#include "tools/cache/data_directory.h"
#include "tools/lib/program.h"

namespace sutra {

namespace {

// An engine holds the lock: it makes the change itself, if it serves the cache that is meant.
Result<std::unique_ptr<CacheTarget>> AskHolder(const CacheOptions& options, const LockHolder& holder,
                                               ShowProgress progress) {
  const std::string who = holder.pid == 0 ? "another process" : "process " + std::to_string(holder.pid);
  if (holder.socket.empty()) {
    return Status(StatusCode::kRefused, options.data + " is in use by " + who +
                                            ", and no statistics say at which socket: name it with --socket PATH, or "
                                            "stop it, and try again");
  }
  const Result<IdentitySurvey> shard =
      ChooseShard(options.data, options.identity.empty() ? ShardName(holder.identity) : options.identity);
  if (!shard.ok()) return shard.status();
  if (shard->name != ShardName(holder.identity)) {
    return Status(StatusCode::kRefused, "the engine at " + holder.socket + " (" + who + ") has " + options.data +
                                            " and serves another cache of it than " + shard->name +
                                            "; it removes such ones: drop --model, or stop it first");
  }
  if (!options.quiet) Say(kCacheName, "an engine serves " + options.data + ": asking it at " + holder.socket);
  return OpenLiveTarget(holder.socket, std::move(progress));
}

}  // namespace

Result<std::unique_ptr<CacheTarget>> OpenTarget(const CacheOptions& options, CacheAccess access,
                                                ShowProgress progress) {
  if (!options.socket.empty()) return OpenLiveTarget(options.socket, std::move(progress));
  if (access == CacheAccess::kChange) {
    const LockHolder holder = HolderOfData(options.data);
    const bool files_will_do = options.dry_run && holder.socket.empty();
    if (holder.held && !files_will_do) return AskHolder(options, holder, std::move(progress));
    if (options.dry_run) access = CacheAccess::kRead;
  }
  return OpenRestTarget(options.data, options.identity, access, std::move(progress));
}

}  // namespace sutra
