// The standbys that wait for this engine's end: who they are and how far they are. An entry lives as long as the
// standby's connection, so it is known at once when one ends. One that is stopped (SIGSTOP) or hangs keeps its entry,
// but is not ready: nobody would serve after a hand-over to it.
//
// Thread rule: the loop thread. Invariants: at most kStandbysMax entries; each serves what this engine serves.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "engine/control/control_frame.h"
#include "engine/model/model_info.h"
#include "shm/base/status.h"
#include "shm/base/time.h"
#include "shm/control_messages.h"

namespace sutra {

class StandbyRoster {
 public:
  struct Entry {
    uint32_t pid = 0;
    StandbyState state = StandbyState::kPreparing;
    uint64_t since_ns = 0;  // of its registration
    uint64_t heard_ns = 0;  // its last sign of life
  };

  explicit StandbyRoster(ModelInfo model) : model_(std::move(model)) {}

  // The standby on connection `id`. kRefused: it would serve something else; the message has both. kOverloaded: there
  // are as many as there may be.
  Status Add(uint64_t id, const StandbyHello& hello, uint64_t now_ns);
  // False: there is none on that connection.
  bool Update(uint64_t id, StandbyState state, uint64_t now_ns);
  void Remove(uint64_t id) { entries_.erase(id); }

  bool Has(uint64_t id) const { return entries_.count(id) != 0; }
  size_t size() const { return entries_.size(); }
  size_t Ready(uint64_t now_ns) const;
  // Of those that are ready, the one that waits longest; 0 if there is none.
  uint32_t ReadyPid(uint64_t now_ns) const;
  static bool IsSilent(const Entry& entry, uint64_t now_ns) { return now_ns > entry.heard_ns + kSilentNs; }
  const std::map<uint64_t, Entry>& entries() const { return entries_; }  // in the order of their registration

 private:
  static constexpr uint64_t kSilentNs = kStandbySilentMs * kNsPerMs;
  static bool IsReady(const Entry& entry, uint64_t now_ns) {
    return entry.state == StandbyState::kReady && !IsSilent(entry, now_ns);
  }

  const ModelInfo model_;
  std::map<uint64_t, Entry> entries_;
};

}  // namespace sutra
