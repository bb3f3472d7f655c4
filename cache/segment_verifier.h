// Checks one segment of a log in every byte that counts: both copies of its header, each record with its checksums,
// its number and its count of removals, the vector and the text of entries, and the index against the records.
//
// Thread rule: one thread. It reads only.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "cache/key_digest.h"
#include "cache/verify_report.h"
#include "cache/wal/recovery_table.h"
#include "cache/wal/wal_reader.h"

namespace sutra {

// The entries that the records read so far leave, and what is wrong with what one holds: that counts only for as long
// as it is one.
class VerifiedEntries {
 public:
  void Insert(const WalRecord& record, uint64_t hash_seed, const std::string& path);
  void Clear(uint32_t slot);
  void Erase(const KeyDigest& digest);
  void DropAll();
  uint64_t count() const { return slots_.size(); }
  void Report(VerifyReport* report) const;

 private:
  struct Fault {
    std::string path;
    uint64_t offset = 0;
    std::string what;
  };
  struct HashDigest {
    size_t operator()(const KeyDigest& digest) const { return digest.low; }
  };
  std::unordered_map<uint32_t, KeyDigest> slots_;
  std::unordered_map<KeyDigest, uint32_t, HashDigest> keys_;
  std::map<uint32_t, Fault> faults_;  // by slot
};

class SegmentVerifier {
 public:
  // A millisecond or so apart; false ends the check with kCancelled.
  using GoOn = std::function<bool(uint64_t bytes)>;

  SegmentVerifier(DiskIo* io, std::string path, VerifiedEntries* entries, VerifyReport* report)
      : io_(io), path_(std::move(path)), entries_(entries), report_(report) {}

  // The copies of the header, each for itself.
  Status CheckHeader(const SegmentExpectation& expected);
  // Its records and its index. `next`: the header of the segment after it; null for the newest one. An error is one of
  // the disk as a whole.
  Status CheckRecords(const SegmentHeader& header, const SegmentHeader* next, const GoOn& go_on);

 private:
  void Damage(std::optional<uint64_t> offset, std::string what) {
    report_->Add(VerifyFinding::Kind::kDamage, path_, offset, std::move(what));
  }
  Status ReadIndex(const SegmentHeader& header, WalReader* reader);
  Status ReadRecords(const SegmentHeader& header, const SegmentHeader* next, WalReader* reader, const GoOn& go_on);
  void Take(const WalRecord& record, const SegmentHeader& header);
  // Where a record should be and is not. False: the segment ends here.
  Result<bool> Judge(RecordDecision decision, RecordState state, const WalRecord& record, WalReader* reader,
                     uint64_t* expected);
  Result<bool> PassOver(RecordState state, const WalRecord& record, WalReader* reader, uint64_t* expected);
  // The last record that the index knows of; 0 without one.
  uint64_t IndexedThrough() const;
  Result<bool> TornTail(uint64_t from, uint64_t end);
  Result<uint64_t> TornBytes(uint64_t from, uint64_t end);
  void CompareIndex(const SegmentHeader& header, const SegmentHeader* next);

  DiskIo* const io_;
  const std::string path_;
  VerifiedEntries* const entries_;
  VerifyReport* const report_;
  bool whole_ = true;  // every record was right
  uint64_t removals_ = 0;
  uint64_t records_end_ = kSegmentDataStart;
  IndexState index_state_ = IndexState::kNone;
  SegmentIndex index_;
  std::vector<IndexEntry> seen_;  // the entries that the index should have
};

}  // namespace sutra
