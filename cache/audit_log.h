// Who changed what in a data directory: DATA/audit.log, one JSON object per line. A change is written down before it
// begins ("intent") and after it has ended ("done", with its result): an intent without its end was cut short.
//
//   {"time":"2026-01-31T12:00:00Z","phase":"intent","command":"cache erase","uid":0,"pid":4711,
//    "what":"text of 12 bytes, sha256 0123456789abcdef","result":""}
//
// No text of a cache ever stands in it, only its length and the beginning of its digest.
//
// Thread rule: one thread; blocks on the disk. REQUIRES: the lock on DATA is held.
// Invariants:
//  - A line is whole and on the disk when Append returns kOk; a torn one, of a crash, is ended by the next.
//  - No link is followed, and a file that is not regular, or has a second name, is not written.
//  - The file has at most kAuditBytesMax and one line; it becomes audit.log.1 then, in the place of the one before.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "cache/cache_filter.h"
#include "shm/base/status.h"

namespace sutra {

inline constexpr uint64_t kAuditBytesMax = 16u << 20;

struct AuditLine {
  std::string command;
  uint64_t uid = 0;
  uint64_t pid = 0;
  std::string what;    // in words
  std::string result;  // in words; empty in an intent
};

class AuditLog {
 public:
  explicit AuditLog(std::string data) : data_(std::move(data)) {}

  // kStorageError, kRefused: nothing was written, or not durably; the message names the file, the cause and the fix.
  Status Intend(const AuditLine& line) { return Append("intent", line); }
  Status Finish(const AuditLine& line) { return Append("done", line); }

  // "text of 12 bytes, sha256 0123456789abcdef", for `what`. Of a text that somebody searches for, too.
  static std::string Words(const char* kind, std::string_view text);
  // "texts that contain a text of 12 bytes, sha256 ..., older than 60 s".
  static std::string Words(const CacheFilter& filter);

 private:
  Status Append(const char* phase, const AuditLine& line);

  const std::string data_;  // DATA
};

}  // namespace sutra
