// The caches of other models in a data directory: named when an engine starts, removed once their last entry has
// expired, and bounded together with the one that is served. Each model identity has a directory DATA/<16 hex>/ of its
// own, so without this every change of a model, its precision or its settings leaves one behind for ever. The weights
// that were prepared for int8 (packed_files.h) count, too, and go with their cache or before any.
//
// Thread rule: Look comes from one thread, which may block on the disk for long; figures from any thread.
// REQUIRES: the lock on DATA is held; `may_go_on` says for how long.
// Invariants:
//  - The directory that is served is never touched, nor is anything outside of DATA: links are not followed.
//  - A directory goes wholly or not at all (identity_removal.h); a removal that a crash cut short is ended here.
//  - Nothing goes for its age that may hold an entry which lives. Whoever cannot be read counts as holding one of the
//    longest lifetime (kTtlSecondsMax), and the wall clock is believed only once it has kept its time for
//    kClockHoldNs: what is removed does not come back when a wrong clock is set right. (An empty log needs no clock.)
//  - A directory with a name in it that no engine gives is somebody else's, and is left alone.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cache/disk/disk_io.h"
#include "cache/disk/open_directory.h"
#include "cache/identity_removal.h"
#include "cache/identity_survey.h"
#include "cache/packed_files.h"
#include "shm/base/log_line.h"
#include "shm/base/status.h"

namespace sutra {

class Clock;

class OtherIdentities {
 public:
  struct Options {
    std::string data;                 // DATA
    std::string served;               // name of the directory in it that is served
    uint64_t bytes_max = UINT64_MAX;  // of all identities together, the served one and prepared weights included
    std::function<bool()> may_go_on;  // false: the engine ends, or its lock is lost. Asked before every change
    Clock* clock = nullptr;
    LogLine log;
  };
  struct Figures {
    uint64_t identities = 0;  // directories beside the served one
    uint64_t bytes = 0;       // that they take up, with weights that were prepared for others than the served one
    uint64_t removed = 0;     // directories since the start
  };

  explicit OtherIdentities(Options options);

  // Looks at them once: says what is new, removes what may go. To be repeated: entries expire, and the served log
  // grows. An error of the file system is logged, and the next look tries again.
  void Look();

  // As of the last look.
  Figures figures() const;

 private:
  bool ClockHolds();
  std::string Ago(uint64_t wall_ns) const;
  void Say(LogLevel level, const std::string& line);
  void SayOnce(LogLevel level, const std::string& line);
  std::vector<IdentitySurvey> Survey(const OpenDirectory& data, const std::vector<OpenDirectory::Item>& items);
  void LearnExpiry(const OpenDirectory& data, IdentitySurvey* survey);
  bool HasExpired(const IdentitySurvey& survey) const;
  void Introduce(const IdentitySurvey& survey);
  void LookAtPacked(const OpenDirectory& data);
  void RemoveOrphans(const OpenDirectory& data);  // prepared weights without a cache
  void SayPackedStay(const Status& status);
  uint64_t RemoveLeftOvers(const OpenDirectory& data, const std::vector<OpenDirectory::Item>& items);
  void RemoveExpired(const OpenDirectory& data, std::vector<IdentitySurvey>* others);
  void KeepBound(const OpenDirectory& data, uint64_t fixed_bytes, std::vector<IdentitySurvey>* others);
  // False: it is still there.
  bool Remove(const OpenDirectory& data, const IdentitySurvey& survey, LogLevel level, const std::string& why);

  const Options options_;
  const IdentityRemoval removal_;
  PackedFiles packed_;
  const std::unique_ptr<DiskIo> io_;
  std::optional<uint64_t> clock_offset_ns_;      // wall clock minus boot clock, modulo 2^64
  uint64_t clock_since_ns_ = 0;                  // on the boot clock: since when it has been that
  std::map<std::string, IdentitySurvey> known_;  // by name; what was read of their logs
  std::set<std::string> said_;                   // lines that are said once only
  std::atomic<uint64_t> identities_{0}, bytes_{0}, removed_{0};
};

}  // namespace sutra
