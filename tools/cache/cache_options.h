// What sutra-cache was asked to do, and the exit codes it answers with.
//
// Thread rule: plain data after ParseCacheOptions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cache/cache_filter.h"
#include "shm/base/status.h"
#include "tools/lib/text_input.h"

namespace sutra {

inline constexpr const char* kCacheName = "sutra-cache";

// Scripts act on them: the numbers are never reused. An interrupted run ends with 128 + the signal's number.
enum CacheExitCode : int {
  kCacheDone = 0,
  kCacheError = 1,       // a wrong call, or it failed
  kCacheNotFound = 2,    // nothing of that name, text or condition is there
  kCacheDamaged = 3,     // verify: the files are not what was written
  kCacheUnreadable = 4,  // verify: they cannot be read
};

enum class CacheCommand {
  kStats,
  kIdentities,
  kGet,
  kDump,
  kExport,
  kImport,
  kWarm,
  kErase,
  kDrop,
  kCompact,
  kVerify,
};

struct CacheOptions {
  CacheCommand command = CacheCommand::kStats;
  std::string socket, data, identity;  // where
  bool json = false, quiet = false;
  bool dry_run = false, yes = false;

  std::vector<std::string> texts;  // get, erase
  std::string input, input_format = "lines";
  uint32_t variant = 0;
  bool vectors = false, hot = false;  // get, dump
  CacheFilter filter;                 // drop
  std::string model;                  // drop: a name, or how an identity begins
  std::string format = "jsonl";       // export
  std::string output = "-";           // export: a file; with npy a directory
  bool replace = false;               // import
  uint64_t errors_shown = 10;         // import, verify: at most so many
  std::string priority = "bulk";      // warm
  uint32_t ttl_s = 0;                 // warm, import: 0: the engine's default, what the file says
};

// RETURNS the exit code if the program ends here: after --help, or when the call is wrong.
std::optional<int> ParseCacheOptions(int argc, char** argv, CacheOptions* options);

// "90", "90s", "15m", "36h", "7d", "2w" and sums of them ("1d12h") as seconds.
Result<uint64_t> ParseDuration(const std::string& text);

}  // namespace sutra
