// Recovery: one recovery while it runs. The chain of segments is decided in recovery.cc; recovery_replay.cc reads what
// they hold. Internal to the two.
//
// Thread rule: one thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cache/wal/recovery.h"
#include "cache/wal/recovery_losses.h"
#include "cache/wal/wal_reader.h"

namespace sutra {

inline constexpr const char* kCheckTheDisk = "; check the disk (kernel messages, SMART)";

class Recovery {
 public:
  Recovery(DiskIo* io, const RecoveryRequest& request, RecoverySink* sink) : io_(io), request_(request), sink_(sink) {}

  Result<RecoveryPlan> Run();

 private:
  std::string PathOf(uint64_t number) const { return request_.directory + "/" + SegmentName(number); }
  // A disk that reads nothing says nothing about the log: its files are left alone. Headers do not count as read, they
  // may be in the page cache still.
  Status RefuseDeadDisk() const;
  Status ListSegments();
  Result<std::unique_ptr<WalReader>> OpenSegment(uint64_t number, const std::optional<SegmentId>& id);
  // What the disk could read of a segment; null: not even its file.
  void Note(const WalReader* reader);
  // Walks from the newest segment to the oldest by `previous_number`. Segments whose number a later header leaves out
  // were abandoned before anything in them counted; those below a gap have lost their successors and count as damaged.
  Status DecideChain();
  Status RefuseSegment(uint64_t number, HeaderState state) const;
  void RetireFirst(size_t count);
  // The first `count` segments are of an earlier version, whose identities of models are no longer made either.
  void SetAside(size_t count);
  // Takes the first `count` segments out of service; their entries are never read.
  void VoidFrom(size_t count);
  void Damage(uint64_t number, const std::string& message);
  void Warn(const std::string& message) { plan_.messages.push_back({LogLevel::kWarn, message}); }
  void Retire(uint64_t number, bool quarantine) {
    std::vector<uint64_t>& list = quarantine ? plan_.quarantine : plan_.remove;
    list.push_back(number);
  }
  // A segment that may have lost a removal is set aside, and all older ones with it: without it they could bring back
  // what it had removed. One that lost inserts or padding only stays: it reads the same at every start.
  void Conclude();

  // Replay (recovery_replay.cc).
  Status Replay(size_t index);
  Status ReplayRecords(size_t index, WalReader* reader);
  // Whether the index tells all that counts in its segment.
  bool Suffices(size_t position) const;
  void ApplyIndex(uint64_t segment);
  void Pass(const WalRecord& record, WalReader* reader, uint64_t* expected);
  // Records are lost here. Goes to the next place where there are some; false if there is none in this segment. If the
  // numbers of removals on both sides differ, or what follows is not known, everything read so far is dropped.
  Result<bool> Resume(size_t index, WalReader* reader, uint64_t valid_through, uint64_t* expected, Losses* losses);
  void Believed(uint64_t ns);
  void Apply(const WalRecord& record, uint64_t segment);

  DiskIo* const io_;
  const RecoveryRequest& request_;
  RecoverySink* const sink_;
  RecoveryPlan plan_;
  std::vector<uint64_t> numbers_;
  std::vector<uint64_t> found_;     // all of them
  bool unreadable_ = false;         // the disk could not read something
  bool reads_records_ = false;      // it read a block of records
  bool newest_unreadable_ = false;  // likewise, in the segment replayed last
  std::vector<uint64_t> damaged_;
  uint64_t removals_ = 0;             // up to the last record read
  uint64_t voided_through_ = 0;       // the newest segment that may have lost a removal
  std::string damage_;                // the latest message about damage
  std::vector<SegmentHeader> chain_;  // oldest first
  SegmentIndex index_;                // of the segment replayed last
  std::vector<uint64_t> file_bytes_;
};

}  // namespace sutra
