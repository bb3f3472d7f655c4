// Syncs: beside writes, or at once where the log cannot go on without; what they acknowledge; and the watermark that
// says so on the disk.
#include <cassert>
#include <new>
#include <utility>

#include "cache/wal/wal_log.h"
#include "shm/base/checkpoint.h"
#include "shm/base/clock.h"

namespace sutra {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;  // WalShared: each value is independent

}  // namespace

void WalLog::BeginSync() {
  assert(!failed_ && has_unsynced());
  sync_groups_ = unsynced_.size();
  sync_names_ = std::exchange(names_unsynced_, false);
  sync_file_ = writer_.BeginSync();
  sync_.Begin();
}

// Runs beside the holder of the log: uses what BeginSync has set, and no more.
Status WalLog::SyncStep() {
  try {
    Status status = writer_.RunSync(sync_file_);
    if (status.ok() && sync_names_) status = io_->SyncDirectory(config_.directory);
    return status;
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kOutOfMemory, "out of memory");  // short: needs none itself
  }
}

Status WalLog::JoinSync() {
  if (!sync_.begun()) return {};
  if (Status status = writer_.EndSync(sync_.End()); !status.ok()) {
    if (sync_names_) {
      names_unsynced_ = true;
      preparer_.Discard();
    }
    return status;
  }
  shared_->syncs.fetch_add(1, kRelaxed);
  Acknowledge(sync_groups_);
  return {};
}

void WalLog::EndSync() {
  Status status = JoinSync();
  if (status.ok()) status = RetireSynced();
  if (!status.ok()) Fail(status);
}

Status WalLog::SyncWriter() {
  if (Status status = JoinSync(); !status.ok()) return status;
  // P2: nothing is acknowledged before this returns.
  if (writer_.synced_through() != writer_.written_through()) {
    if (Status status = writer_.Sync(); !status.ok()) return status;
    shared_->syncs.fetch_add(1, kRelaxed);
  }
  Acknowledge(unsynced_.size());
  return {};
}

// The first `groups` of unsynced_ are durable.
void WalLog::Acknowledge(size_t groups) {
  assert(writer_.synced_through() <= writer_.written_through() && writer_.synced_through() >= synced_through_);
  assert(groups <= unsynced_.size());
  synced_through_ = writer_.synced_through();
  synced_at_ns_ = clock_->MonotonicNs();
  for (size_t i = 0; i < groups; ++i) {
    wants_watermark_ = wants_watermark_ || !unsynced_[i]->proof;
    unsynced_bytes_ -= unsynced_[i]->bytes().size();
    unsynced_[i]->commit->Finish(true);
    Spend(std::move(unsynced_[i]));
  }
  unsynced_.erase(unsynced_.begin(), unsynced_.begin() + static_cast<std::ptrdiff_t>(groups));
  shared_->oldest_unsynced_ns.store(oldest_unsynced_ns(), kRelaxed);
  if (groups > 0 && SUTRA_CHECKPOINT("wal.acked"))
    Say(LogLevel::kError, "checkpoint wal.acked cannot fail: it comes too late");
}

void WalLog::WriteWatermark() {
  wants_watermark_ = false;
  if (!writer_.Fits(kWalBlockBytes, 0)) {  // the next segment's header will record it
    Stamp();
    return;
  }
  auto group = std::make_unique<WalGroup>(kWalBlockBytes);
  group->first_accepted_ns = clock_->MonotonicNs();
  group->proof = true;
  group->Close();
  // A watermark that fails loses evidence, not data; the segment is dead nevertheless.
  if (Status status = Place(&group, false); !status.ok()) Fail(status);
}

}  // namespace sutra
