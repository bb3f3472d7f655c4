// The commands of sutra-cache, one function each; they return the exit code.
// Thread rule: the program's main thread.
#pragma once

#include "tools/cache/cache_options.h"

namespace sutra {

int RunCacheStats(const CacheOptions& options);       // look_commands.cc
int RunCacheGet(const CacheOptions& options);         // look_commands.cc
int RunCacheDump(const CacheOptions& options);        // look_commands.cc
int RunCacheIdentities(const CacheOptions& options);  // identity_commands.cc
int RunCacheErase(const CacheOptions& options);       // removal_commands.cc
int RunCacheDrop(const CacheOptions& options);        // removal_commands.cc
int RunCacheCompact(const CacheOptions& options);     // removal_commands.cc
int RunCacheVerify(const CacheOptions& options);      // verify_command.cc
int RunCacheExport(const CacheOptions& options);      // export_command.cc
int RunCacheImport(const CacheOptions& options);      // import_command.cc
int RunCacheWarm(const CacheOptions& options);        // warm_command.cc

// `drop --model` without other conditions: the whole cache of a model (identity_commands.cc).
int DropModel(const CacheOptions& options);

}  // namespace sutra
