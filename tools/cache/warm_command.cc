// warm: sutra-embed without an output; what is in the cache already costs nothing, so running it again goes on.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tools/cache/cache_commands.h"
#include "tools/cache/command_support.h"
#include "tools/lib/embed_engine.h"
#include "tools/lib/program.h"

namespace sutra {

namespace {

int CountMissing(const CacheOptions& options) {
  CatchInterruptions();
  const CommandProgress progress(options);
  const Result<std::unique_ptr<CacheTarget>> target = OpenTarget(options, CacheAccess::kRead, progress);
  if (!target.ok()) return CacheFail(target.status());
  uint64_t texts = 0, missing = 0, faulty = 0;
  const Status status = ForEachText(options, &faulty, [&](std::string_view text) -> Status {
    const Result<CacheEntry> entry = (*target)->Get(text, 0);
    if (!entry.ok() && !IsNotCached(entry.status())) return entry.status();
    ++texts;
    missing += entry.ok() ? 0 : 1;
    return progress(texts, 0) ? Status() : Status(StatusCode::kCancelled, "interrupted");
  });
  progress->Clear();
  if (!status.ok()) return CacheFail(status);
  const nlohmann::json json = {{"texts", texts}, {"missing", missing}, {"failed", faulty}, {"dry_run", true}};
  return PrintAndEnd(
      options.json ? json.dump() + "\n" : fmt::format("{} of {} texts would be computed\n", missing, texts),
      faulty > 0 ? kCacheError : kCacheDone);
}

}  // namespace

int RunCacheWarm(const CacheOptions& options) {
  if (options.dry_run) return CountMissing(options);
  EmbedTally tally;
  EmbedOptions embed;
  embed.program = kCacheName;
  embed.tally = &tally;
  embed.discard = true;
  embed.socket = options.socket;
  embed.input = options.input;
  embed.input_format = options.input_format;
  embed.priority = options.priority;
  embed.ttl_s = options.ttl_s;
  embed.quiet = options.quiet || options.json;
  const int code = RunEmbedEngine(embed);
  if (options.json) {
    const nlohmann::json json = {{"texts", tally.texts},   {"failed", tally.failed},     {"hits", tally.hits},
                                 {"joined", tally.joined}, {"computed", tally.computed}, {"dry_run", false}};
    if (const int printed = PrintAndEnd(json.dump() + "\n"); printed != kCacheDone) return printed;
  }
  return code == kEmbedUsage || code == kEmbedLost ? static_cast<int>(kCacheError) : code;
}

}  // namespace sutra
