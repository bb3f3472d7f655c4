// What the commands of sutra-cache share: results and errors as exit codes, progress, the question before a removal,
// the texts that a command is given, entries as JSON.
//
// Thread rule: the program's main thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "cache/cache_admin.h"
#include "shm/base/status.h"
#include "tools/cache/cache_options.h"
#include "tools/cache/cache_target.h"
#include "tools/lib/progress.h"

namespace sutra {

// Says why, and returns the exit code: of an interruption, where there was one.
int CacheFail(const Status& status);
// Prints to standard output and returns `code`, unless that fails.
int PrintAndEnd(const std::string& text, int code = kCacheDone);

// A bar or lines on standard error once something takes more than a second. Copies show the same one.
class CommandProgress {
 public:
  explicit CommandProgress(const CacheOptions& options)
      : progress_(std::make_shared<Progress>(kCacheName, options.quiet)) {}
  // For OpenTarget. False once the program is interrupted.
  bool operator()(uint64_t done, uint64_t total) const;
  Progress& operator*() const { return *progress_; }
  Progress* operator->() const { return progress_.get(); }

 private:
  std::shared_ptr<Progress> progress_;
};

// Whether to go on with `what` ("remove 12 entries"): --yes, or a yes on a terminal. The reason is said if not.
bool Confirmed(const CacheOptions& options, const std::string& what);

// Calls `take` with each text of a get, an erase or a file, until it fails. Lines that are no text are said, counted in
// *faulty and passed over.
Status ForEachText(const CacheOptions& options, uint64_t* faulty, const std::function<Status(std::string_view)>& take);

// "not cached", as CacheAdmin::Get says it; a live engine's answer begins with its socket.
bool IsNotCached(const Status& status);

// `"text":"..."`, or, for bytes that are no UTF-8, `"text_base64":"..."`.
void AppendTextJson(std::string_view text, std::string* out);
// One JSON object without a newline, with the first `floats_max` floats.
void AppendEntryJson(const CacheEntry& entry, size_t floats_max, std::string* out);

}  // namespace sutra
