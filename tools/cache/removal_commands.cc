// erase, drop, compact: the preview, the question, the commit, what was done.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>

#include "tools/cache/cache_commands.h"
#include "tools/cache/command_support.h"
#include "tools/lib/program.h"
#include "tools/lib/stat_report.h"

namespace sutra {

namespace {

std::string Sized(uint64_t entries, uint64_t bytes) {
  return fmt::format("{} {} ({} of memory)", entries, entries == 1 ? "entry" : "entries",
                     BytesText(static_cast<double>(bytes)));
}

int Report(const CacheOptions& options, const nlohmann::json& json, const std::string& text, int code) {
  return PrintAndEnd(options.json ? json.dump() + "\n" : text + "\n", code);
}

}  // namespace

int RunCacheErase(const CacheOptions& options) {
  const CommandProgress progress(options);
  const Result<std::unique_ptr<CacheTarget>> opened = OpenTarget(options, CacheAccess::kChange, progress);
  if (!opened.ok()) return CacheFail(opened.status());
  CacheTarget& target = **opened;
  std::set<std::string> found;
  uint64_t asked = 0, faulty = 0;
  const auto look = [&](std::string_view text) -> Status {
    ++asked;
    const Result<CacheEntry> entry = target.Get(text, options.variant);
    if (entry.ok()) found.emplace(text);
    return entry.ok() || IsNotCached(entry.status()) ? Status() : entry.status();
  };
  if (Status status = ForEachText(options, &faulty, look); !status.ok()) return CacheFail(status);
  if (faulty > 0) return CacheFail(Status(StatusCode::kBadOption, "nothing was changed: not every line is a text"));
  nlohmann::json json = {{"asked", asked}, {"found", found.size()}, {"removed", 0}, {"dry_run", options.dry_run}};
  const std::string what = fmt::format("{} of {} texts in {}", found.size(), asked, target.info().place);
  if (found.empty())
    return Report(options, json, "none of the " + std::to_string(asked) + " texts is cached", kCacheNotFound);
  if (options.dry_run) return Report(options, json, "would remove " + what, kCacheDone);
  if (!Confirmed(options, "remove " + what)) return kCacheError;
  uint64_t removed = 0;
  Status status;
  for (const std::string& text : found) {
    const Result<bool> was = target.Erase(text, options.variant);
    status = was.status();
    if (status.ok() && !progress(removed, found.size())) status = Status(StatusCode::kCancelled, "interrupted");
    if (was.ok() && *was) ++removed;
    if (!status.ok()) break;
  }
  progress->Clear();
  json["removed"] = removed;
  const int code = Report(options, json, fmt::format("removed {} of {} texts", removed, asked), kCacheDone);
  const Status closed = target.Close();
  if (!status.ok()) return CacheFail(status);
  return closed.ok() ? code : CacheFail(closed);
}

int RunCacheDrop(const CacheOptions& options) {
  const bool whole = options.filter.everything || !options.filter.any();
  if (!options.model.empty() && whole) return DropModel(options);
  const CommandProgress progress(options);
  const Result<std::unique_ptr<CacheTarget>> opened = OpenTarget(options, CacheAccess::kChange, progress);
  if (!opened.ok()) return CacheFail(opened.status());
  CacheTarget& target = **opened;
  const std::string& model = options.model;
  if (!model.empty() && target.info().model != model && !target.info().identity.starts_with(model)) {
    return CacheFail(Status(StatusCode::kNotReady, target.info().place + " holds the model " + target.info().model +
                                                       ", not '" + model + "'; choose another with --identity"));
  }
  const Result<CacheAdmin::Preview> preview = target.Preview(options.filter);
  progress->Clear();
  if (!preview.ok()) return CacheFail(preview.status());
  nlohmann::json json = {{"entries", preview->entries}, {"bytes", preview->bytes},    {"examined", preview->examined},
                         {"lost", preview->lost},       {"dry_run", options.dry_run}, {"removed", 0}};
  const std::string what = fmt::format("{} of {} examined in {}", Sized(preview->entries, preview->bytes),
                                       preview->examined, target.info().place);
  if (preview->lost > 0) Say(kCacheName, fmt::format("{} entries could not be read and are gone", preview->lost));
  // With everything there may still be older records in the log.
  if (preview->entries == 0 && !options.filter.everything)
    return Report(options, json, "nothing matches", kCacheNotFound);
  if (options.dry_run) return Report(options, json, "would remove " + what, kCacheDone);
  if (!Confirmed(options, "remove " + what)) return kCacheError;
  const Result<CacheAdmin::Removal> removed = target.Commit(preview->token);
  progress->Clear();
  const Status closed = target.Close();
  if (!removed.ok()) {
    Say(kCacheName, "the removal did not end: make it again, it says what is left");
    return CacheFail(removed.status());
  }
  json["removed"] = removed->entries;
  const int code = Report(options, json, "removed " + Sized(removed->entries, removed->bytes), kCacheDone);
  return closed.ok() ? code : CacheFail(closed);
}

int RunCacheCompact(const CacheOptions& options) {
  const CommandProgress progress(options);
  const Result<std::unique_ptr<CacheTarget>> opened = OpenTarget(options, CacheAccess::kChange, progress);
  if (!opened.ok()) return CacheFail(opened.status());
  CacheTarget& target = **opened;
  if (options.dry_run) {
    const Result<std::string> stats = target.StatsJson();
    if (!stats.ok()) return CacheFail(stats.status());
    const auto entries = nlohmann::json::parse(*stats, nullptr, false).value("entries", uint64_t{0});
    return Report(options, {{"entries", entries}, {"dry_run", true}},
                  fmt::format("would write {} entries anew", entries), kCacheDone);
  }
  const Result<CacheAdmin::Compaction> done = target.Compact();
  progress->Clear();
  const Status closed = target.Close();
  if (!done.ok()) return CacheFail(done.status());
  const int code =
      Report(options, {{"bytes_before", done->bytes_before}, {"bytes_after", done->bytes_after}},
             fmt::format("the log had {} and has {} now", BytesText(static_cast<double>(done->bytes_before)),
                         BytesText(static_cast<double>(done->bytes_after))),
             kCacheDone);
  return closed.ok() ? code : CacheFail(closed);
}

}  // namespace sutra
