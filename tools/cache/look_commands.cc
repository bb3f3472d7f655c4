// stats, get, dump.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tools/cache/cache_commands.h"
#include "tools/cache/command_support.h"
#include "tools/lib/output_file.h"
#include "tools/lib/stat_report.h"

namespace sutra {

namespace {

constexpr size_t kFloatsShown = 4;

size_t FloatsShown(const CacheOptions& options) { return options.vectors ? SIZE_MAX : kFloatsShown; }

std::string StatsText(const nlohmann::json& json) {
  const uint64_t entries = json.value("entries", uint64_t{0}), bytes = json.value("bytes", uint64_t{0});
  std::string text = fmt::format("cache     {}\nmodel     {}, {} floats, identity {}\nentries   {}, {} of memory\n",
                                 json.value("place", ""), json.value("model", ""), json.value("width", 0u),
                                 json.value("identity", ""), entries, BytesText(static_cast<double>(bytes)));
  for (const auto& [name, value] : json.items()) {
    const bool said = name == "place" || name == "model" || name == "width" || name == "identity" ||
                      name == "entries" || name == "bytes" || name == "live";
    if (said || value.is_object() || value.is_array()) continue;
    text += fmt::format("{:<9} {}\n", name, value.is_string() ? value.get<std::string>() : value.dump());
  }
  return text;
}

}  // namespace

int RunCacheStats(const CacheOptions& options) {
  const CommandProgress progress(options);
  const Result<std::unique_ptr<CacheTarget>> target = OpenTarget(options, CacheAccess::kRead, progress);
  if (!target.ok()) return CacheFail(target.status());
  const Result<std::string> stats = (*target)->StatsJson();
  if (!stats.ok()) return CacheFail(stats.status());
  if (options.json) return PrintAndEnd(*stats + "\n");
  return PrintAndEnd(StatsText(nlohmann::json::parse(*stats, nullptr, /*allow_exceptions=*/false)));
}

int RunCacheGet(const CacheOptions& options) {
  const CommandProgress progress(options);
  const Result<std::unique_ptr<CacheTarget>> target = OpenTarget(options, CacheAccess::kRead, progress);
  if (!target.ok()) return CacheFail(target.status());
  Result<OutputFile> output = OutputFile::Open("-");
  if (!output.ok()) return CacheFail(output.status());
  uint64_t missing = 0, faulty = 0;
  const Status status = ForEachText(options, &faulty, [&](std::string_view text) -> Status {
    const Result<CacheEntry> entry = (*target)->Get(text, options.variant);
    std::string& out = output->buffer();
    if (entry.ok()) {
      AppendEntryJson(*entry, FloatsShown(options), &out);
    } else if (IsNotCached(entry.status())) {
      ++missing;
      out += '{';
      AppendTextJson(text, &out);
      out += ",\"error\":\"not cached\"}";
    } else {
      return entry.status();
    }
    out += '\n';
    return output->Spill();
  });
  if (!status.ok()) return CacheFail(status);
  if (Status flushed = output->Flush(); !flushed.ok()) return CacheFail(flushed);
  return faulty > 0 ? kCacheError : missing > 0 ? kCacheNotFound : kCacheDone;
}

int RunCacheDump(const CacheOptions& options) {
  const CommandProgress progress(options);
  const Result<std::unique_ptr<CacheTarget>> target = OpenTarget(options, CacheAccess::kRead, progress);
  if (!target.ok()) return CacheFail(target.status());
  Result<OutputFile> output = OutputFile::Open("-");
  if (!output.ok()) return CacheFail(output.status());
  const auto which = options.hot ? CacheAdmin::Which::kHot : CacheAdmin::Which::kAll;
  const Status status = (*target)->Visit(which, [&](const CacheEntry& entry) {
    AppendEntryJson(entry, FloatsShown(options), &output->buffer());
    output->buffer() += '\n';
    return output->Spill();
  });
  if (!status.ok()) return CacheFail(status);
  const Status flushed = output->Flush();
  return flushed.ok() ? static_cast<int>(kCacheDone) : CacheFail(flushed);
}

}  // namespace sutra
