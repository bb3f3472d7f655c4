// What is in the directory of a model identity that nobody serves: whose it is, how much room it takes up, when it was
// used last and when its last entry expires.
//
// Thread rule: one thread, which holds the lock on DATA. It reads only.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cache/disk/open_directory.h"
#include "cache/shard_directory.h"
#include "cache/wal/log_expiry.h"
#include "shm/base/file_identity.h"
#include "shm/base/status.h"

namespace sutra {

struct IdentitySurvey {
  std::string name;  // of the directory in DATA
  std::string path;
  FileIdentity directory;
  ShardDirectory model;            // what MODEL says
  std::string foreign;             // why this is no shard's directory; "" if it is one
  uint64_t bytes = 0;              // on the disk
  uint64_t used_ns = 0;            // the last write to a file in it, wall-clock time
  std::vector<uint64_t> segments;  // numbers, ascending
  LogExpiry expiry;
  bool whole = false;  // `expiry` covers all segments, not only the newest ones

  // Recovery would bring back nothing, whatever the time is.
  bool IsEmpty() const { return whole && expiry.known && expiry.records == 0; }
  // When its last entry may expire: what was read, or else as late as an entry of the last write can. UINT64_MAX: not
  // even that is known, because the clock was not set at that write.
  uint64_t ExpiryNs() const;
};

// The directory's names and MODEL; `expiry` stays unread.
Result<IdentitySurvey> SurveyIdentity(const OpenDirectory& data, const std::string& name);

// Reads segments from the newest to the oldest, until there is an entry that lives at `now_ns` or none is left, or
// `go_on` says no.
void ReadExpiry(const OpenDirectory& data, DiskIo* io, uint64_t now_ns, const std::function<bool()>& go_on,
                IdentitySurvey* survey);

}  // namespace sutra
