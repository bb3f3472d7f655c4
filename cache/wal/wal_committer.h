// WalCommitter: takes records from any thread, groups them, and decides when the log writes and syncs.
//
//   Push -> pending --(50 ms, 1 MiB, or a waiting caller)--> written --(1 s, 8 MiB, or a waiting caller)--> synced
//
// Writes go on while a sync runs, however long it takes: two equal threads take turns. One holds the log (`busy_`) and
// does what is due; a sync gives the log up while the disk works, and the other thread does what becomes due meanwhile.
// A waiting caller's group is then written when the sync under way ends, together with all that came in until then: it
// could not be synced earlier. Who waits alone is a third such thread, until its group is durable.
//
// Thread rule: Push..., RequestSync and the counters from any thread; the committer's threads own the log. Without
// threads (`threaded` false, for simulation) the caller drives it with RunDue, and a sync under way ends when the disk
// says so or somebody waits for it. Invariants:
//  - The pending bytes are bounded, and so is what is written and not synced: an insert that does not fit is dropped
//  and
//    counted, a removal always fits (its caller waits, so there are no more of them than threads, and
//    kRemovalGroupsMax groups of one that takes out many).
//  - Whenever the log is free and no work is due, a thread outside a sync waits for the next deadline.
//  - Records reach the log in the order of their Push; an entry's store lock is held around Push, so that log and
//    memory agree on the order of two changes of one entry. (Not asserted: this file does not know the store;
//    tests/cache/cache_threads_test.cc checks it.)
//  - A lack of memory drops an insert, fails a removal, or stops the log until a probe; it ends no thread.
//  - With nothing pending, unsynced or failed the threads sleep without a time limit.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "cache/wal/durability.h"
#include "cache/wal/wal_log.h"
#include "shm/base/mutex.h"

namespace sutra {

class Clock;

class WalCommitter {
 public:
  struct Config {
    DurabilityPolicy policy = DurabilityPolicy::kInterval;
    uint64_t interval_us_max = 0;
    uint64_t interval_bytes_max = 0;
    uint64_t sync_us_max = 0;
    bool threaded = true;
  };
  static constexpr int kRealTimePriority = 10;  // of its threads (SCHED_FIFO), where that is allowed

  WalCommitter(Clock* clock, WalLog* log, WalShared* shared, const Config& config);
  ~WalCommitter() { Close(); }

  // Starts the threads.
  void Start();
  // Writes and syncs what is pending (unless the log has failed) and stops the threads.
  void Close();

  // False when the record was dropped. Afterwards, with no lock held: Wake.
  bool PushInsert(const UnplacedRecord& record);
  // Wakes a thread if a push has made something due earlier than one will look. Not done by the push, because a thread
  // that runs first would run at once, and everyone else queue for the locks under which its waker had pushed.
  void Wake();
  // The commit to Await, or null when the log refuses records.
  std::shared_ptr<WalCommit> PushErase(const UnplacedRecord& record);
  // A part of a large removal: adds the commits of the groups that its records went to, behind those that are there.
  // False when the log refuses them. The caller awaits the commits, and before there are kRemovalGroupsMax not durable.
  bool PushRemovals(std::span<const UnplacedRecord> records, std::vector<std::shared_ptr<WalCommit>>* commits);
  static constexpr size_t kRemovalGroupsMax = 16;
  // The commit to Await until everything pushed so far is durable; null with *refused false: it is already.
  std::shared_ptr<WalCommit> RequestSync(bool* refused);
  // Has the log written anew: the commit is finished when that is done (true) or has failed; null when the log refuses
  // records. One at a time.
  std::shared_ptr<WalCommit> RequestCompaction();
  // Ends it before its time: the commit fails.
  void CancelCompaction();
  // Waits until the commit's group is durable (true) or lost. A caller who waits alone does the work itself where the
  // log is free: two changes of thread would take longer than the disk does.
  bool Await(WalCommit* commit);
  // How many inserts were accepted and then lost since the last call.
  uint64_t TakeLost() { return shared_->lost_inserts.exchange(0, std::memory_order_relaxed); }  // a count, no data

  // Does what is due until nothing is due any more (without a thread).
  void RunDue();

  struct Pending {
    uint64_t records = 0;
    uint64_t oldest_unwritten_us = 0;
    uint64_t oldest_unsynced_us = 0;
  };
  Pending GetPending() const;

 private:
  struct Append {
    bool urgent = false;  // to be written and synced at once
    bool waits = false;   // a caller will be inside Await
    bool bulk = false;    // shares a write and a sync with others, whatever the policy
  };
  enum class Work { kNone, kWrite, kSync, kEndSync, kWatermark, kProbe, kMakeRoom, kCompact };
  WalGroup* GroupForLocked(uint64_t record_bytes, bool own_sync) SUTRA_REQUIRES(mutex_);
  void AppendLocked(const UnplacedRecord& record, const Append& how) SUTRA_REQUIRES(mutex_);
  std::vector<std::unique_ptr<WalGroup>> TakePendingLocked() SUTRA_REQUIRES(mutex_);
  Work NextWorkLocked(uint64_t now_ns, uint64_t* deadline_ns) const SUTRA_REQUIRES(mutex_);
  void Compact(bool begin, bool cancel);
  void DoLocked(Work work) SUTRA_REQUIRES(mutex_);  // releases the lock while it works
  void RunSyncLocked() SUTRA_REQUIRES(mutex_);      // the same
  static void RunFirst();
  // Each decides that the next Wake is to wake a thread.
  void WantWakeLocked() SUTRA_REQUIRES(mutex_);
  void WantWakeForWorkLocked() SUTRA_REQUIRES(mutex_);
  // What a thread does when it holds nothing: false when nothing is due.
  bool StepLocked(uint64_t* deadline_ns) SUTRA_REQUIRES(mutex_);
  void Run();

  Clock* const clock_;
  WalLog* const log_;
  WalShared* const shared_;
  const Config config_;

  mutable Mutex mutex_;
  CondVar wake_;
  std::vector<std::unique_ptr<WalGroup>> pending_ SUTRA_GUARDED_BY(mutex_);
  uint64_t pending_bytes_ SUTRA_GUARDED_BY(mutex_) = 0;
  uint64_t pending_records_ SUTRA_GUARDED_BY(mutex_) = 0;
  uint64_t taken_first_accepted_ns_ SUTRA_GUARDED_BY(mutex_) = 0;  // of the groups being written; 0: none
  uint64_t taken_records_ SUTRA_GUARDED_BY(mutex_) = 0;            // in the groups being written
  bool urgent_ SUTRA_GUARDED_BY(mutex_) = false;                   // a caller waits for a pending group
  bool sync_requested_ SUTRA_GUARDED_BY(mutex_) = false;
  bool stopping_ SUTRA_GUARDED_BY(mutex_) = false;
  std::shared_ptr<WalCommit> compaction_ SUTRA_GUARDED_BY(mutex_);  // null: nobody waits for one
  bool compaction_begun_ SUTRA_GUARDED_BY(mutex_) = false;
  bool compaction_cancelled_ SUTRA_GUARDED_BY(mutex_) = false;
  std::shared_ptr<WalCommit> last_commit_ SUTRA_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<WalGroup>> free_ SUTRA_GUARDED_BY(mutex_);
  uint64_t watched_ns_ SUTRA_GUARDED_BY(mutex_) = UINT64_MAX;  // a thread waits until then, at the latest
  bool woken_ SUTRA_GUARDED_BY(mutex_) = false;         // a thread is, or is to be, woken, and has not looked yet
  std::atomic<bool> wake_wanted_{false};                // Wake has something to do; set under mutex_
  std::atomic<int> awaiting_{0};                        // callers inside Await
  bool helping_ SUTRA_GUARDED_BY(mutex_) = false;       // one of them works on the log
  bool busy_ SUTRA_GUARDED_BY(mutex_) = false;          // a thread holds the log
  int syncing_ SUTRA_GUARDED_BY(mutex_) = 0;            // threads that wait for the disk, without the log
  bool sync_awaited_ SUTRA_GUARDED_BY(mutex_) = false;  // a caller waits for the sync under way
  std::thread threads_[2];
};

}  // namespace sutra
