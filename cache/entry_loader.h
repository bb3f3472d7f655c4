// EntryLoader: brings unread entries to memory after a start, each from its record in the log: all of them, segment
// after segment, on a thread of its own, and before its turn the one that somebody asks for. What it reads counts only
// if the record is right in every byte and has the key that the store expects; an entry whose record is not is dropped,
// to be computed again.
//
// The thread stays as long as anything is unread, for what cannot be read now and is asked for later.
//
// Thread rule: any thread may call anything but Start, Stop and LoadAll, which belong to the shard's owner. Nothing
// holds the store's mutex while it waits for the disk.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "cache/store/slot_table.h"
#include "cache/wal/recovery.h"
#include "cache/wal/wal_reader.h"
#include "shm/base/log_line.h"
#include "shm/base/mutex.h"

namespace sutra {

class DiskIo;
class Clock;

class EntryLoader {
 public:
  // `chain`: the segments that the start has found.
  EntryLoader(SlotTable* store, DiskIo* io, Clock* clock, const RecoveryRequest& request,
              const std::vector<RecoveredSegment>& chain, LogLine log_line);
  ~EntryLoader() { Stop(); }

  // Reads everything on a thread of its own; `first` is what it does before. Without anything to read, `first` is done
  // here, and there is no thread.
  void Start(std::function<void()> first = {});
  // Ends it before its time: what is unread stays so. Load and LoadSegment still work.
  void Stop();
  // What the thread does.
  void LoadAll();

  // Lets the thread read the entry of this slot next. Never waits. False if that may take long: there is no thread, or
  // the disk fails or does not answer; whoever asks then does better without the entry.
  bool Ask(uint32_t slot);

  // Reads the entry of this slot, if it is unread. It stays so where the disk does not give its record: the file may
  // be where it belongs later, and the next read may do; until then, or until it is computed again, it is not found.
  void Load(uint32_t slot);
  // Reads the unread entries of a segment in the order of its records. What damage hides there stays unread.
  void LoadSegment(uint64_t number);
  // Reads the unread entry of this slot, with its segment, or drops it.
  void LoadOrDrop(uint32_t slot);
  // Before segments up to `through` are removed: none of them is open here from now on, since the disk gets no room
  // from a file that is. Waits for what is being read: not for a segment, but for a record, an index or the records
  // that somebody asked for.
  void LetGo(uint64_t through);

  // Entries whose records were not right.
  uint64_t lost() const { return lost_.load(std::memory_order_relaxed); }  // relaxed: a count

 private:
  class Reading;
  void Run(const std::function<void()>& first);
  void ReadAsked();
  void SayRead(uint64_t started_ns, uint64_t unread) const;
  void SayLost();
  std::string PathOf(uint64_t segment) const { return request_.directory + "/" + SegmentName(segment); }
  bool HasGone(uint64_t segment) const { return segment <= gone_through_.load(std::memory_order_relaxed); }
  Result<std::unique_ptr<WalReader>> Open(uint64_t segment) const;
  std::optional<SlotTable::LogPlace> PlaceOf(uint32_t slot) const;
  void TryReadSegment(uint64_t number, bool until_stopped);
  Status ReadSegment(uint64_t number, bool until_stopped);
  // Whether a right record is at that place. A status says that nobody knows.
  Result<bool> ReadRecord(uint32_t slot, const SlotTable::LogPlace& place);
  void Fill(const WalRecord& record, uint64_t segment);
  void Drop(uint32_t slot, const SlotTable::LogPlace& place);

  SlotTable* const store_;
  DiskIo* const io_;
  Clock* const clock_;
  const RecoveryRequest request_;
  std::map<uint64_t, SegmentId> segments_;
  const LogLine log_line_;
  std::atomic<uint64_t> lost_{0}, said_lost_{0};
  std::atomic<bool> stopping_{false};  // relaxed: no data behind it
  std::atomic<bool> running_{false};   // relaxed, like the next one: a wrong answer costs a turn
  std::atomic<bool> any_asked_{false};
  std::atomic<uint64_t> failed_at_ns_{0};  // when an entry that was asked for could not be read; 0: never
  Mutex mutex_;
  CondVar wake_;
  CondVar closed_;
  std::multiset<uint64_t> reading_ SUTRA_GUARDED_BY(mutex_);  // the segments that are open, once for each reader
  std::atomic<uint64_t> gone_through_{0};  // relaxed: whoever opens a segment looks after it has entered reading_
  std::vector<uint32_t> asked_ SUTRA_GUARDED_BY(mutex_);
  uint64_t asked_since_ns_ SUTRA_GUARDED_BY(mutex_) = 0;  // the oldest that is not read yet; 0: there is none
  std::thread thread_;
};

}  // namespace sutra
