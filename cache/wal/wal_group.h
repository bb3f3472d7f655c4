// WalGroup: records on their way to the log, laid out as they will be in the file, in block-aligned memory. Inserting
// threads copy records in under the queue's lock; the committer closes the group, stamps and writes it from the same
// memory, and keeps it until it is synced, so that a failed segment can be replaced.
//
// WalCommit: tells the callers that wait for a group what became of it.
//
// Thread rule: a group belongs to its holder (the queue under its lock, then the committer). A commit is shared.
// Invariants (asserted here):
//  - The records of a group are numbered without a gap, and lie end to end at multiples of kRecordAlign.
//  - A commit is finished once.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cassert>
#include <cstring>
#include <memory>

#include "cache/disk/disk_io.h"
#include "cache/wal/wal_format.h"

namespace sutra {

class WalCommit {
 public:
  void Finish(bool durable) {
    // Pairs with the acquire loads below.
    const uint32_t before = state_.exchange(durable ? kDurable : kFailed, std::memory_order_release);
    assert(before == kOpen || before == kAwaited);
    if (before == kAwaited) syscall(SYS_futex, &state_, FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
  }
  bool finished() const { return IsFinal(state_.load(std::memory_order_acquire)); }
  // Waits for Finish; true when the group is durable. Sleeps at once: std::atomic's wait gives its CPU up four times
  // before it sleeps, which is four changes of thread for nothing, and four time slices where all CPUs compute.
  bool Wait() {
    uint32_t state = state_.load(std::memory_order_acquire);
    while (!IsFinal(state)) {
      if (state == kAwaited || state_.compare_exchange_weak(state, kAwaited, std::memory_order_acquire)) {
        syscall(SYS_futex, &state_, FUTEX_WAIT, kAwaited, nullptr, nullptr, 0);
        state = state_.load(std::memory_order_acquire);
      }
    }
    return state == kDurable;
  }

 private:
  static constexpr uint32_t kOpen = 0, kAwaited = 1, kDurable = 2, kFailed = 3;
  static constexpr bool IsFinal(uint32_t state) { return state >= kDurable; }
  std::atomic<uint32_t> state_{kOpen};
};

class WalGroup {
 public:
  explicit WalGroup(uint64_t capacity)
      : capacity_(RoundUp(capacity, kWalBlockBytes)), memory_(AllocateAligned(capacity_)) {}

  bool Fits(uint64_t record_bytes) const { return record_bytes <= capacity_ - used_; }
  void Append(const UnplacedRecord& record) {
    assert(Fits(record.length) && record.length % kRecordAlign == 0);
    record.CopyTo(memory_.get() + used_);
    used_ += record.length;
    ++records_;
    if (record.type == RecordType::kInsert) ++inserts_;
  }

  // Fills the last block with a watermark, which also takes the newest acked_through to the disk. A group without
  // records becomes one block that holds a watermark.
  void Close() {
    const uint64_t rest = used_ == 0 ? kWalBlockBytes : RoundUp(used_, kWalBlockBytes) - used_;
    if (rest == 0) return;
    EncodeWatermark(memory_.get() + used_, static_cast<uint32_t>(rest));
    used_ += rest;
    ++records_;
  }

  // Places the records at `offset` of a segment. `last`: the stamp of the record before them; becomes that of their
  // last.
  void Stamp(const SegmentId& id, uint64_t offset, RecordStamp* last) {
    assert(offset % kWalBlockBytes == 0);
    [[maybe_unused]] const uint64_t before = last->sequence;
    for (uint64_t at = 0; at < used_;) {
      RecordHeader header;
      std::memcpy(&header, memory_.get() + at, sizeof(header));
      assert(header.length >= kRecordAlign && header.length % kRecordAlign == 0 && header.length <= used_ - at);
      ++last->sequence;
      if (IsRemoval(static_cast<RecordType>(header.type))) ++last->removals;
      StampRecord(memory_.get() + at, id, offset + at, *last);
      at += header.length;
    }
    assert(last->sequence == before + records_);
  }

  void Reset() {
    used_ = 0;
    records_ = inserts_ = 0;
    first_accepted_ns = 0;
    urgent = copies = proof = false;
    commit = std::make_shared<WalCommit>();
  }

  std::span<const std::byte> bytes() const { return {memory_.get(), used_}; }
  uint64_t capacity() const { return capacity_; }
  bool empty() const { return used_ == 0; }
  uint32_t records() const { return records_; }
  uint32_t inserts() const { return inserts_; }

  uint64_t first_accepted_ns = 0;  // monotonic time of the oldest record
  bool urgent = false;             // must be written and synced at once
  bool copies = false;             // its records are in an older segment too: their loss costs nothing
  bool proof = false;              // a watermark alone
  std::shared_ptr<WalCommit> commit = std::make_shared<WalCommit>();

 private:
  const uint64_t capacity_;
  const AlignedBytes memory_;
  uint64_t used_ = 0;
  uint32_t records_ = 0;
  uint32_t inserts_ = 0;
};

}  // namespace sutra
