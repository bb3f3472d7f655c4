// sutra-cache: what an operator does with a cache of embeddings, of a running engine or of files at rest.
// Single-threaded. Exit codes: tools/cache/cache_options.h.
#include <cassert>
#include <new>

#include "tools/cache/cache_commands.h"
#include "tools/cache/cache_options.h"
#include "tools/lib/program.h"

namespace {

int Run(const sutra::CacheOptions& options) {
  using sutra::CacheCommand;
  switch (options.command) {
    case CacheCommand::kStats: return sutra::RunCacheStats(options);
    case CacheCommand::kIdentities: return sutra::RunCacheIdentities(options);
    case CacheCommand::kGet: return sutra::RunCacheGet(options);
    case CacheCommand::kDump: return sutra::RunCacheDump(options);
    case CacheCommand::kExport: return sutra::RunCacheExport(options);
    case CacheCommand::kImport: return sutra::RunCacheImport(options);
    case CacheCommand::kWarm: return sutra::RunCacheWarm(options);
    case CacheCommand::kErase: return sutra::RunCacheErase(options);
    case CacheCommand::kDrop: return sutra::RunCacheDrop(options);
    case CacheCommand::kCompact: return sutra::RunCacheCompact(options);
    case CacheCommand::kVerify: return sutra::RunCacheVerify(options);
  }
  assert(false && "every command has a case");
  return sutra::kCacheError;
}

}  // namespace

int main(int argc, char** argv) {
  sutra::StartProgram();
  sutra::CacheOptions options;
  if (const auto code = sutra::ParseCacheOptions(argc, argv, &options)) return *code;
  if (options.command != sutra::CacheCommand::kWarm) sutra::CatchInterruptions();
  try {
    return Run(options);
  } catch (const std::bad_alloc&) {
    return sutra::Fail(sutra::kCacheName, sutra::kCacheError, "out of memory");
  }
}
