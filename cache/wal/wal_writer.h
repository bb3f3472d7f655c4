// WalWriter: one open segment and the offset of its next group. Begins a segment, stamps and appends groups, syncs. It
// knows nothing about policies, waiting or what to do after a failure; wal_log does.
//
// Thread rule: one thread at a time; RunSync, between BeginSync and EndSync, on any thread beside the others.
// Invariants:
//  - A sync covers what was written before it began. The segment stays open while one is under way.
//  - The segment's header is durable, under its final name, before any record is written into it (P2).
//  - After a failed write or sync the segment is dead: nothing is written into it again.
//  - Groups are whole blocks, one behind the other, and their records are numbered without a gap; behind the last one
//    comes the index, if there is one, and nothing more.
//  - synced_through <= written_through; synced_through never decreases; written_through decreases only when a new
//    segment continues behind what was synced.
#pragma once

#include <cstdint>
#include <string>

#include "cache/disk/disk_io.h"
#include "cache/wal/segment_index.h"
#include "cache/wal/wal_format.h"
#include "cache/wal/wal_group.h"
#include "shm/base/status.h"

namespace sutra {

class WalWriter {
 public:
  WalWriter(DiskIo* io, std::string directory, ModelIdentity model, uint32_t width)
      : io_(io), directory_(std::move(directory)), model_(model), width_(width) {}
  ~WalWriter() { CloseFile(); }

  struct Begin {
    uint64_t number = 0;
    uint64_t segment_bytes = 0;
    uint64_t previous_number = 0;
    SegmentId previous_id = {};
    uint64_t previous_valid_through = 0;
    uint64_t wall_highest_ns = 0;
    uint64_t hash_seed = 0;
    bool written_over = false;  // the file was an older segment
  };
  // How many removals the log counts already. Before the first segment.
  void SetRemovals(uint64_t removals) { removals_ = removals; }
  // Leaves the current segment and begins another in the allocated file `file` at `path`, which is the writer's when
  // this succeeds, and the caller's to close when it does not: header, sync, rename to its name, directory sync.
  Status BeginSegment(FileHandle file, const std::string& path, const Begin& begin);

  bool is_open() const { return file_ >= 0; }
  // Whether nothing was written that is not synced, and nothing has failed.
  bool is_settled() const { return is_open() && !dead_ && !syncing_ && synced_through_ == written_through_; }
  // What is left of the segment, the place of its index included.
  uint64_t room() const { return is_open() ? segment_bytes_ - position_ : 0; }
  // Beside the index. `records`: of the group, at least those that are no watermarks.
  bool Fits(uint64_t group_bytes, uint64_t records) const { return group_bytes + index_.BytesWith(records) <= room(); }

  // Stamps and appends a closed group. REQUIRES: is_open, there is room; with `then_sync` no sync is under way.
  // Where the group takes the place of the index, there will be none.
  Status Write(WalGroup* group, bool then_sync, uint64_t wall_highest_ns);
  // A sync beside writes. EndSync is given what RunSync returned for the file that BeginSync returned.
  FileHandle BeginSync();
  bool SyncDone(FileHandle file) const { return io_->SyncDone(file); }
  Status RunSync(FileHandle file) const;
  Status EndSync(Status result);
  // The three steps at once, if there is something to sync.
  Status Sync();
  // Ends the segment with its index. REQUIRES: is_settled. If it fails, there is none; nothing else is
  // lost.
  Status WriteIndex();
  void CloseFile();

  uint64_t number() const { return number_; }
  const SegmentId& id() const { return id_; }
  uint64_t written_through() const { return written_through_; }
  uint64_t synced_through() const { return synced_through_; }

 private:
  DiskIo* const io_;
  const std::string directory_;
  const ModelIdentity model_;
  const uint32_t width_;
  FileHandle file_ = kNoFile;
  uint64_t number_ = 0;
  SegmentId id_ = {};
  uint64_t segment_bytes_ = 0;
  uint64_t position_ = 0;
  SegmentIndexBuilder index_;
  uint64_t written_through_ = 0;
  uint64_t synced_through_ = 0;
  uint64_t removals_ = 0;      // stamped so far
  uint64_t sync_through_ = 0;  // what the sync under way covers
  bool syncing_ = false;
  bool dead_ = false;  // a write or sync of this segment failed
};

}  // namespace sutra
