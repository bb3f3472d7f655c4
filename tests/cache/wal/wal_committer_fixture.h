// What the tests of the log's committer share: a log on a simulated disk whose syncs can be held, on a manual clock.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "cache/wal/wal_committer.h"
#include "tests/cache/wal/fake_live_entries.h"

namespace sutra::test {

using CommitPtr = std::shared_ptr<WalCommit>;

inline constexpr uint64_t kMs = 1'000'000;

// Its syncs end only while the gate is open.
class GatedDisk final : public sim::SimDisk {
 public:
  void SetOpen(bool open) {
    MutexLock lock(gate_);
    open_ = open;
    changed_.NotifyAll();
  }
  void WaitForASync() {
    MutexLock lock(gate_);
    while (waiting_ == 0) changed_.Wait(gate_);
  }

  // Runs once, in the middle of the next write.
  void BesideTheNextWrite(std::function<void()> action) { beside_ = std::move(action); }

  // Who synced last.
  std::thread::id syncer() {
    MutexLock lock(gate_);
    return syncer_;
  }

 protected:
  void RawSubmit(const Operation& operation) override SUTRA_REQUIRES(in_flight_mutex_) {
    if (beside_) std::exchange(beside_, nullptr)();
    SimDisk::RawSubmit(operation);
  }
  int RawSync(FileHandle file) override {
    {
      MutexLock lock(gate_);
      ++waiting_;
      syncer_ = std::this_thread::get_id();
      changed_.NotifyAll();
      while (!open_) changed_.Wait(gate_);
      --waiting_;
    }
    return SimDisk::RawSync(file);
  }

 private:
  Mutex gate_;
  CondVar changed_;
  bool open_ SUTRA_GUARDED_BY(gate_) = true;
  int waiting_ SUTRA_GUARDED_BY(gate_) = 0;
  std::thread::id syncer_ SUTRA_GUARDED_BY(gate_);
  std::function<void()> beside_;  // without threads only
};

class WalCommitterTest : public ::testing::Test {
 protected:
  void Open(DurabilityPolicy policy, bool threaded = false) {
    committer_.reset();
    log_.reset();
    disk_ = std::make_unique<GatedDisk>();
    shared_ = std::make_unique<WalShared>();
    ASSERT_TRUE(disk_->MakeDirectory(kSmallLogDirectory).ok());
    WalLog::Config log;
    log.directory = kSmallLogDirectory;
    log.model = Model();
    log.width = kWidth;
    log.segment_bytes = segment_bytes_;
    log.wal_bytes_max = 128 << 20;
    log.sync_each_group = policy == DurabilityPolicy::kSync;
    log.threaded = threaded;
    log_ = std::make_unique<WalLog>(disk_.get(), &clock_, &live_, shared_.get(), log);
    ASSERT_TRUE(log_->Start(RecoveryPlan()).ok());
    WalCommitter::Config config;
    config.policy = policy;
    config.interval_us_max = kIntervalUsDefault;
    config.interval_bytes_max = interval_bytes_max_;
    config.sync_us_max = kSyncUsDefault;
    config.threaded = threaded;
    committer_ = std::make_unique<WalCommitter>(&clock_, log_.get(), shared_.get(), config);
    committer_->Start();
  }

  bool Push(const std::string& text, int version) {
    return WithRecord({text, version}, [&](const UnplacedRecord& record) { return committer_->PushInsert(record); });
  }
  bool Insert(const std::string& text, int version) {
    const bool taken = Push(text, version);
    committer_->Wake();
    return taken;
  }
  CommitPtr Erase(const std::string& text) {
    return committer_->PushErase(UnplacedRecord::Erase(DigestOf(text, 0, 0)));
  }
  void Advance(uint64_t ns) {
    clock_.Advance(ns);
    committer_->RunDue();
  }

  // False after ten seconds without it.
  bool Written(uint64_t records) const {
    const uint64_t end_ns = Clock::Real()->MonotonicNs() + 10'000 * kMs;
    while (appends() < records) {
      if (Clock::Real()->MonotonicNs() > end_ns) return false;
      std::this_thread::yield();
    }
    return true;
  }

  uint64_t appends() const { return shared_->appends.load(std::memory_order_relaxed); }
  uint64_t syncs() const { return shared_->syncs.load(std::memory_order_relaxed); }
  uint64_t dropped() const { return shared_->dropped_inserts.load(std::memory_order_relaxed); }
  void Fail(uint64_t at, bool forever) {
    sim::SimDisk::Faults faults;
    faults.fail_at = at;
    faults.fail_forever = forever;
    disk_->SetFaults(faults);
  }
  LogContent ContentAfterKill() {
    disk_->ProcessKill();
    return Recover(disk_.get(), kSmallLogDirectory).content;
  }

  std::unique_ptr<GatedDisk> disk_;
  sim::ManualClock clock_;
  FakeLiveEntries live_;
  std::unique_ptr<WalShared> shared_;
  uint64_t interval_bytes_max_ = kIntervalBytesDefault;
  uint64_t segment_bytes_ = 1 << 20;
  std::unique_ptr<WalLog> log_;
  std::unique_ptr<WalCommitter> committer_;
};

}  // namespace sutra::test
