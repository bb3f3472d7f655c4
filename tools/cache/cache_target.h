// The cache that a command is about: a running engine's, through its control socket, or the files of one at rest. The
// commands know only this.
//
// Thread rule: one thread. Errors are those of cache_admin.h and cache_control.h; kCancelled: interrupted.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "cache/cache_admin.h"
#include "shm/base/status.h"
#include "tools/cache/cache_options.h"

namespace sutra {

class CacheTarget {
 public:
  struct Info {
    std::string place;  // "the engine at PATH", or the directory
    std::string identity, model;
    uint32_t width = 0;
    bool live = false;
  };
  using Entries = std::span<const CacheEntry>;
  struct Imported {
    uint64_t stored = 0, refused = 0;
    std::string first;  // why the first refused one was
  };

  virtual ~CacheTarget() = default;
  const Info& info() const { return info_; }

  virtual Result<std::string> StatsJson() = 0;  // one object
  virtual Result<CacheAdmin::Preview> Preview(const CacheFilter& filter) = 0;
  virtual Result<CacheAdmin::Removal> Commit(uint64_t token) = 0;
  virtual Result<bool> Erase(std::string_view text, uint32_t variant) = 0;  // whether it was there
  virtual Result<CacheEntry> Get(std::string_view text, uint32_t variant) = 0;
  // Every entry, or every hot one. Ends with what `visit` returns, unless that is kOk.
  virtual Status Visit(CacheAdmin::Which which, const std::function<Status(const CacheEntry&)>& visit) = 0;
  // Stores entries that CheckEntry accepts. They are durable after Close.
  virtual Result<Imported> Import(Entries entries) = 0;
  virtual Result<CacheAdmin::Compaction> Compact() = 0;
  // After the last change: makes it durable, and what was opened is closed.
  virtual Status Close() { return {}; }

 protected:
  Info info_;
};

enum class CacheAccess {
  kRead,    // files are read as they are, whoever writes them, and not a byte of them changes
  kChange,  // the lock on DATA is taken; an engine that holds it is asked to make the change. A dry run takes none
};

// How far a long call is, shown on standard error after a second; false once the program is interrupted.
using ShowProgress = std::function<bool(uint64_t done, uint64_t total)>;

// The target that the options name. kNotReady: there is none of that name.
Result<std::unique_ptr<CacheTarget>> OpenTarget(const CacheOptions& options, CacheAccess access, ShowProgress progress);

// Its two kinds.
Result<std::unique_ptr<CacheTarget>> OpenLiveTarget(const std::string& socket, ShowProgress progress);
Result<std::unique_ptr<CacheTarget>> OpenRestTarget(const std::string& data, const std::string& identity,
                                                    CacheAccess access, ShowProgress progress);

}  // namespace sutra
