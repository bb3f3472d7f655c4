// The weights that engines prepared and keep in DATA/packed for their next start (engine/cpu/int8/packed_file.h): a
// file named after its model identity, IDENTITY.int8. Each can be made again in seconds, so it goes as soon as the
// identity's cache is gone, and before any cache where the data directory holds too much.
//
// Thread rule: one thread, which may block on the disk.
// REQUIRES: the lock on DATA is held; `may_go_on` says for how long.
// Invariants:
//  - The file of the identity that is served stays, and so does what somebody wrote to within the last hour and has not
//    finished: an engine prepares before it holds the lock.
//  - Nothing outside of DATA/packed is touched: links are not followed. What has another name, or is no regular file,
//    is somebody else's, and is left alone.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cache/disk/open_directory.h"
#include "shm/base/log_line.h"
#include "shm/base/status.h"

namespace sutra {

inline constexpr char kPackedDirectory[] = "packed";  // in DATA

class PackedFiles {
 public:
  struct Options {
    std::string served;               // name of the cache directory that is served
    std::function<bool()> may_go_on;  // asked before every removal
    LogLine log;
  };
  explicit PackedFiles(Options options) : options_(std::move(options)) {}

  // Looks at what is there now. kRefused: DATA/packed is no directory; kStorageError: it cannot be read. Where there is
  // none, there is nothing.
  Status Survey(const OpenDirectory& data);

  // Removes what was half written over an hour ago, and the files of identities that have no directory of their own:
  // neither the served one nor one of `caches`, which are names in DATA. kStorageError: a file cannot be removed.
  Status RemoveOrphans(const std::set<std::string>& caches, uint64_t wall_ns);
  // Removes files of identities that are not served, the oldest first, until `bytes` have gone or none is left. `why`
  // follows "the weights that ... for int8: " in the log.
  Status RemoveBytes(uint64_t bytes, const std::string& why);

  // As of the survey and the removals after it.
  uint64_t bytes() const;                                               // that all files here take up on the disk
  uint64_t bytes_of_others() const;                                     // without the served identity's
  const std::vector<std::string>& foreign() const { return foreign_; }  // what is left alone, one description each

 private:
  struct File {
    std::string name;
    std::string cache;  // the name of its identity's directory in DATA
    uint64_t bytes = 0;
    uint64_t written_ns = 0;  // wall-clock time
    bool half = false;        // its writer has not finished
  };

  template <typename Choose>
  Status RemoveIf(const Choose& choose);

  const Options options_;
  std::optional<OpenDirectory> directory_;
  std::vector<File> files_;  // the oldest first
  std::vector<std::string> foreign_;
};

}  // namespace sutra
