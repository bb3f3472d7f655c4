// WalLog: the log as a whole: a chain of segments, the one being written, the groups not yet synced, and what happens
// when a segment is full, too many exist, or the disk fails.
//
// Thread rule: one thread at a time, which holds the log (of the committer; before it starts, the thread that opens the
// shard). Any thread may read `shared`, and RunSync runs beside everything else. Invariants:
//  - A sync acknowledges what was written before it began, and nothing more. Whatever needs the segment synced, closed
//    or given up waits for the sync under way first.
//  - A group is kept in memory until it is synced. After a failed write or sync the segment is never written again: a
//    new one is begun whose header says how far the old one counts, and the kept groups go there. If that fails too,
//    the log refuses records (storage_failed) and tries again once a second. A start on a full disk begins like this.
//  - The removal of a segment is durable before the next one: a gap in the chain would look like damage.
//  - The oldest segment is removed, or its file written over, only after its live entries are in a later one, synced,
//    or were evicted; the one being written never. One exception: where a full disk has no room for a segment to write,
//    the oldest one makes that room, and its live entries are appended again after that.
//  - The bytes of all segments, reserve included, stay within wal_bytes_max (they may exceed it while damage is cleaned
//    up at start, and by two segments during a compaction), and within what a full disk held when it was full. (Not
//    asserted: a disk that refuses to remove a file breaks it; the log then reports it.)
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cache/wal/believed_time.h"
#include "cache/wal/live_entries.h"
#include "cache/wal/recovery.h"
#include "cache/wal/running_sync.h"
#include "cache/wal/segment_preparer.h"
#include "cache/wal/wal_group.h"
#include "cache/wal/wal_writer.h"
#include "shm/base/log_line.h"

namespace sutra {

// Written by the log, read by anyone; every access is relaxed, because each value is independent.
struct WalShared {
  std::atomic<uint64_t> appends{0}, bytes{0}, syncs{0}, segments{0}, dropped_inserts{0}, evictions{0};
  std::atomic<uint64_t> lost_inserts{
      0};  // of the dropped ones: accepted, and lost before they were synced; see TakeLost
  std::atomic<uint64_t> current_segment{0};
  std::atomic<uint64_t> oldest_unsynced_ns{0};  // 0: all is synced
  struct {
    std::atomic<uint64_t> before{0}, left{0}, after{0};  // bytes: of all files, of those still to go, of all files
  } compaction;
  BelievedTime time;
  std::atomic<bool> failed{false};
  std::atomic<bool> full{false};  // the disk has no room for new records, and the log nothing to give back
};

class WalLog {
 public:
  struct Config {
    std::string directory;
    ModelIdentity model = {};
    uint32_t width = 0;
    uint64_t segment_bytes = 0;
    uint64_t wal_bytes_max = 0;
    uint64_t hash_seed = 0;  // of the keys' digests
    bool sync_each_group = false;
    bool threaded = true;
    // Makes the directory ready, where a full disk prevented that: called before each attempt to begin the first
    // segment until it succeeds. Empty: the directory is ready.
    std::function<Status()> make_ready;
    LogLine log_line;
  };
  WalLog(DiskIo* io, Clock* clock, LiveEntries* live, WalShared* shared, const Config& config);

  // Begins the first segment behind what recovery found, appends again what damage endangers, removes what is void.
  // Succeeds on a full disk too: the log has then failed, and Probe does all this when there is room.
  Status Start(RecoveryPlan plan);

  // Appends closed or open groups in order. Finished groups, synced or failed, can be fetched with TakeSpent for reuse.
  void Commit(std::vector<std::unique_ptr<WalGroup>> groups);
  // Begins to sync what is written; REQUIRES: !failed, has_unsynced, !syncing. Some thread then calls RunSync, which
  // waits for the disk, while the log is used as usual. EndSync then acknowledges, unless the log has ended the sync
  // itself, because it could not go on without: then it is not `syncing`.
  void BeginSync();
  void RunSync() { sync_.Run(); }
  void EndSync();
  bool syncing() const { return sync_.begun(); }
  // Whether EndSync would return at once.
  bool sync_done() const { return config_.threaded ? sync_.ran() : writer_.SyncDone(sync_file_); }
  // Records on the disk that everything before was synced, so that rot of the last group can be told from a torn write;
  // it is to be synced at once.
  void WriteWatermark();
  // Tries to begin a segment after a failure.
  void Probe();
  // Gives back the oldest segment, because the disk has no room for a reserve: the present size counts as the bound.
  void MakeRoom();
  // Begins to write the log anew: what lives is appended again, and all segments up to the present one are removed, in
  // steps of CompactSome, while the log is used as usual. It has ended when the log is no longer `compacting`, and
  // succeeded if it is then `compacted`; the latter is durable.
  void BeginCompaction();
  void CompactSome();
  void EndCompaction() { compact_through_ = 0; }
  bool compacting() const { return compact_through_ != 0; }
  bool compacted() const { return compacted_; }
  // Whether CompactSome could go on now, or waits for a sync.
  bool compacts() const { return compacting() && !wants_sync(); }
  // Ends the log at a clean stop, with an index for the next start. Nothing follows.
  void Finish();
  // Ends what one of these calls has left undone when it threw std::bad_alloc: the log refuses records until a Probe.
  // Needs no memory itself.
  void OutOfMemory();
  void PollReserve() { preparer_.Poll(); }

  bool failed() const { return failed_; }
  // Whether MakeRoom has something to do, from room_at_ns on.
  bool wants_room() const {
    return !failed_ && !preparer_.has_room() &&
           (segments_.size() > 1 || !shared_->full.load(std::memory_order_relaxed));
  }
  uint64_t room_at_ns() const { return shared_->full.load(std::memory_order_relaxed) ? room_at_ns_ : 0; }
  // Whether new inserts can be taken; any thread may ask. If not, the rest of the segment is kept for removals.
  bool has_room() const { return preparer_.has_room() || !shared_->full.load(std::memory_order_relaxed); }
  // `wake` is called, on any thread, when wants_room may have changed.
  void SetWake(std::function<void()> wake) { preparer_.SetFailureHook(std::move(wake)); }
  bool has_unsynced() const { return !unsynced_.empty(); }
  // A segment waits for a sync to be retired, and the next one for that: where segments are smaller than what is
  // written between two syncs, the log would reach its bound meanwhile and evict.
  bool wants_sync() const { return retire_after_.has_value() && has_unsynced(); }
  uint64_t unsynced_bytes() const { return unsynced_bytes_; }
  uint64_t oldest_unsynced_ns() const { return unsynced_.empty() ? 0 : unsynced_.front()->first_accepted_ns; }
  bool wants_watermark() const { return wants_watermark_; }
  uint64_t synced_at_ns() const { return synced_at_ns_; }
  // While the wall clock is not believed, only the log can tell the next start how much time passed: the believed time
  // must be written then, or UINT64_MAX.
  uint64_t restamp_at_ns() const { return restamp_at_ns_; }
  // Whether the next start would miss more than a minute of it.
  bool time_unwritten() const;
  uint64_t probe_at_ns() const { return probe_at_ns_; }
  uint64_t group_bytes() const { return group_bytes_; }

  // The groups finished since the last call, for reuse of their memory.
  std::vector<std::unique_ptr<WalGroup>> TakeSpent() { return std::exchange(spent_, {}); }

  // `take_pending` returns all groups that still wait for Commit. A record in them may replace one in the oldest
  // segment, which must not be removed before the new record is durable.
  void SetPendingSource(std::function<std::vector<std::unique_ptr<WalGroup>>()> take_pending) {
    take_pending_ = std::move(take_pending);
  }

 private:
  // What makes a line of the log necessary, counted until the line is said: at most once per minute.
  struct Occasions {
    uint64_t unsaid = 0;
    uint64_t next_ns = 0;
    // How many the line is to speak of now; 0: none, or not yet.
    uint64_t TakeIfDue(uint64_t now_ns);
  };

  uint64_t Stamp();
  Status BeginSegment(uint64_t valid_through);
  Status BeginGivingBack();
  Status TakeUp();
  Status Rotate();
  void WriteIndex();
  Status Place(std::unique_ptr<WalGroup>* group, bool then_sync);
  // Places what is in unplaced_; what is left there afterwards was not placed.
  Status PlaceAll(bool sync_last);
  Status SyncWriter();
  Status SyncStep();
  // Waits for the sync under way, if there is one, and acknowledges what it covers.
  Status JoinSync();
  void Acknowledge(size_t groups);
  // Closes the segment and moves what is not synced, `unplaced_` included, to a new one.
  void Fail(const Status& reason);
  // Refuses all records from now on, until a Probe succeeds.
  void StopTaking(const Status& reason);
  void SayFailed(const Status& reason);
  void SayStopped(const Status& reason) const;
  // What a person can do against the lack of room.
  std::string RoomAdvice(const Status& reason) const;
  void RequestReserve();
  void LeaveOutEmpty();
  void Refuse(std::unique_ptr<WalGroup> group);
  void Spend(std::unique_ptr<WalGroup> group);
  uint64_t TotalBytes() const;
  uint64_t RetiredBytes() const;
  uint64_t BytesToCompact() const;
  bool WantsRecycling() const;
  // Whether the file of this segment is to be removed, and not written over.
  bool MustVanish(const RecoveredSegment& segment) const {
    return !segment.reusable || segment.number <= compact_through_;
  }
  // A closed group of live entries that segments up to `through` hold, of about `bytes`; null if there are none.
  std::unique_ptr<WalGroup> CollectLive(uint64_t through, uint64_t bytes, bool* done);
  Status RecycleSome(uint64_t budget, bool sync_at_once);
  Status PlacePending();
  Status RemoveOldest();
  Status RetireSynced();
  Status SyncNames();
  Status GiveBackOldest();
  void SayFull(const Status& reason);
  Status KeepBound();
  void Evict(uint64_t through);
  void SayEvictions();
  Status AppendAgain(uint64_t through);
  Status Retire(const RecoveryPlan& plan);
  Status SetAside(uint64_t number);
  void Say(LogLevel level, const std::string& line) const;

  DiskIo* const io_;
  Clock* const clock_;
  LiveEntries* const live_;
  WalShared* const shared_;
  const Config config_;
  const uint64_t group_bytes_;
  WalWriter writer_;
  SegmentPreparer preparer_;
  RunningSync sync_;
  FileHandle sync_file_ = kNoFile;  // of the sync under way, like the next two
  size_t sync_groups_ = 0;          // the first of unsynced_: those that it covers
  bool sync_names_ = false;         // it syncs the directory too
  bool names_unsynced_ = false;     // the removal of a segment may not be durable yet
  // The oldest segments hold nothing that is not durable in a later one: so many. They are the next reserves.
  size_t retired_ = 0;
  std::optional<uint64_t> retire_after_;   // the next one is retired once everything up to here is synced
  std::deque<RecoveredSegment> segments_;  // oldest first, the one being written last
  uint64_t bound_;                         // wal_bytes_max, or less on a smaller disk
  std::optional<RecoveryPlan> unfinished_start_;
  uint64_t number_next_ = 1;
  uint64_t previous_number_ = 0;  // the last segment that counts
  SegmentId previous_id_ = {};
  uint64_t synced_through_ = 0;
  WalWriter::Begin began_;           // the header of the segment being written
  std::vector<uint64_t> abandoned_;  // files that no header names; they will be removed
  std::vector<std::unique_ptr<WalGroup>> unsynced_;
  uint64_t unsynced_bytes_ = 0;
  std::vector<std::unique_ptr<WalGroup>> unplaced_;  // groups on their way to a segment
  std::vector<std::unique_ptr<WalGroup>> spent_;
  std::function<std::vector<std::unique_ptr<WalGroup>>()> take_pending_;
  LiveEntries::Cursor recycle_cursor_ = 0;
  // A compaction is under way: segments up to this one are to go, and none is written over; 0: there is none.
  uint64_t compact_through_ = 0;
  bool compacted_ = false;
  Occasions evictions_, failures_, giving_back_, dropping_;  // of a line each
  uint64_t room_at_ns_ = 0;  // not before this is another segment given back for the same reserve
  bool wants_watermark_ = false;
  bool failed_ = false;
  uint64_t synced_at_ns_ = 0;
  uint64_t probe_at_ns_ = 0;
  uint64_t stamped_ns_ = 0;  // the believed time that was written last
  uint64_t restamp_at_ns_ = UINT64_MAX;
};

}  // namespace sutra
