// The log written anew: everything that lives in the segments up to the present one is appended again, to files that
// held nothing before, and those segments are removed, the oldest first, each as soon as the next sync allows it.
#include <cassert>

#include "cache/wal/wal_log.h"

namespace sutra {
namespace {

constexpr uint64_t kStepBytes = 1u << 20;             // a removal waits no longer than for that
constexpr auto kRelaxed = std::memory_order_relaxed;  // WalShared: each value is independent

}  // namespace

void WalLog::BeginCompaction() {
  assert(!compacting());
  compacted_ = false;
  if (failed_ || !preparer_.has_room()) return;  // without room for another segment nothing can be written anew
  shared_->compaction.before.store(TotalBytes(), kRelaxed);
  compact_through_ = writer_.number();
  shared_->compaction.left.store(BytesToCompact(), kRelaxed);
  // Nothing that held texts is used again until the end.
  preparer_.Discard();
  if (Status status = Rotate(); !status.ok()) return Fail(status);
  RequestReserve();
}

void WalLog::CompactSome() {
  if (!compacting()) return;
  Status status = RecycleSome(kStepBytes, false);
  if (status.ok()) status = KeepBound();
  if (!status.ok()) return Fail(status);
  RequestReserve();
  shared_->compaction.left.store(BytesToCompact(), kRelaxed);
  if (segments_.front().number > compact_through_) {
    status = SyncNames();
    compact_through_ = 0;
    if (!status.ok()) return Fail(status);
    shared_->compaction.after.store(TotalBytes(), kRelaxed);
    compacted_ = true;
  } else if (retired_ > 0) {
    EndCompaction();  // the disk refuses to remove a file, which was said
  }
}

uint64_t WalLog::BytesToCompact() const {
  uint64_t bytes = 0;
  for (const RecoveredSegment& segment : segments_) bytes += segment.number <= compact_through_ ? segment.bytes : 0;
  return bytes;
}

}  // namespace sutra
