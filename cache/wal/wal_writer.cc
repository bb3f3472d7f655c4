// Writes a segment's header and name, then the groups behind them, in the order that each guarantee needs.
#include "cache/wal/wal_writer.h"

#include <cassert>
#include <cerrno>

#include "shm/base/checkpoint.h"
#include "shm/base/random.h"

namespace sutra {
namespace {

Status Stopped(const char* checkpoint) {
  return Status(StatusCode::kStorageError, std::string("checkpoint ") + checkpoint + " failed");
}

}  // namespace

void WalWriter::CloseFile() {
  assert(!syncing_);
  if (file_ >= 0) io_->Close(file_);
  file_ = kNoFile;
}

Status WalWriter::BeginSegment(FileHandle file, const std::string& path, const Begin& begin) {
  assert(begin.number > begin.previous_number && begin.previous_valid_through >= synced_through_);
  assert(begin.segment_bytes % kWalBlockBytes == 0 && begin.segment_bytes > kSegmentDataStart);
  CloseFile();
  SegmentHeader header;
  header.number = begin.number;
  header.model = model_;
  header.width = width_;
  header.segment_bytes = begin.segment_bytes;
  header.previous_number = begin.previous_number;
  header.previous_id = begin.previous_id;
  header.previous_valid_through = begin.previous_valid_through;
  header.wall_highest_ns = begin.wall_highest_ns;
  header.hash_seed = begin.hash_seed;
  header.removals = removals_;
  header.flags = begin.written_over ? kSegmentWrittenOver : 0;
  Status status;
  if (!FillRandom(header.id.data(), header.id.size())) {
    status = Status::FromErrno(StatusCode::kStorageError, "drawing random bytes for a segment's id", errno);
  }
  const AlignedBytes blocks = AllocateAligned(kSegmentDataStart);
  const std::string name = directory_ + "/" + SegmentName(begin.number);
  for (uint64_t copy = 0; copy < kSegmentHeaderCopies; ++copy) {
    EncodeSegmentHeader(header, blocks.get() + copy * kWalBlockBytes);
  }
  // P2: the header is durable before the name is, and the name before the first record.
  if (status.ok()) status = io_->Write(file, 0, {blocks.get(), kSegmentDataStart}, true);
  if (status.ok() && SUTRA_CHECKPOINT("segment.header_written")) status = Stopped("segment.header_written");
  if (status.ok()) status = io_->Rename(path, name);
  if (status.ok()) status = io_->SyncDirectory(directory_);
  if (status.ok() && SUTRA_CHECKPOINT("segment.dir_synced")) status = Stopped("segment.dir_synced");
  if (!status.ok()) return status;
  file_ = file;
  dead_ = false;
  number_ = begin.number;
  id_ = header.id;
  segment_bytes_ = begin.segment_bytes;
  position_ = kSegmentDataStart;
  written_through_ = synced_through_ = begin.previous_valid_through;
  index_.Begin(header);
  return {};
}

Status WalWriter::Write(WalGroup* group, bool then_sync, uint64_t wall_highest_ns) {
  const uint64_t bytes = group->bytes().size();
  assert(!dead_ && bytes <= room() && bytes > 0 && !(then_sync && syncing_));
  assert(bytes % kWalBlockBytes == 0 && position_ % kWalBlockBytes == 0);
  if (!Fits(bytes, group->records())) index_.GiveUp();
  RecordStamp last{written_through_, synced_through_, wall_highest_ns, removals_};
  group->Stamp(id_, position_, &last);
  assert(last.sequence == written_through_ + group->records());
  removals_ = last.removals;
  dead_ = true;  // until the write is known to have succeeded
  if (SUTRA_CHECKPOINT("wal.encoded")) return Stopped("wal.encoded");
  io_->Submit(file_, position_, group->bytes(), then_sync, group->urgent);
  const bool stop = SUTRA_CHECKPOINT("wal.submitted");
  Status status = io_->Reap();  // P1: nothing counts as written before its completion; P2 with then_sync
  if (!status.ok()) return status;
  if (stop) return Stopped("wal.submitted");
  if (SUTRA_CHECKPOINT("wal.completed")) return Stopped("wal.completed");
  index_.Add(group->bytes(), position_);
  position_ += bytes;
  written_through_ = last.sequence;
  if (then_sync) {
    if (SUTRA_CHECKPOINT("wal.synced")) return Stopped("wal.synced");
    synced_through_ = last.sequence;
  }
  assert(synced_through_ <= written_through_);
  dead_ = false;
  return {};
}

Status WalWriter::WriteIndex() {
  assert(is_settled());
  if (index_.BytesWith(0) == 0 || position_ == kSegmentDataStart) return {};
  const SegmentIndexBuilder::Blocks index = index_.Encode(position_);
  position_ = segment_bytes_;
  index_.GiveUp();  // this was it, even if it fails
  Status status = io_->Write(file_, segment_bytes_ - index.bytes, {index.memory.get(), index.bytes}, false);
  if (status.ok() && SUTRA_CHECKPOINT("segment.indexed")) status = Stopped("segment.indexed");
  return status;
}

FileHandle WalWriter::BeginSync() {
  assert(is_open() && !dead_ && !syncing_);
  syncing_ = true;
  sync_through_ = written_through_;
  io_->BeginSync(file_);
  return file_;
}

Status WalWriter::RunSync(FileHandle file) const {
  if (SUTRA_CHECKPOINT("wal.sync_submitted")) return Stopped("wal.sync_submitted");
  if (Status status = io_->EndSync(file); !status.ok()) return status;  // P2
  if (SUTRA_CHECKPOINT("wal.synced")) return Stopped("wal.synced");
  return {};
}

Status WalWriter::EndSync(Status result) {
  assert(syncing_ && sync_through_ >= synced_through_ && sync_through_ <= written_through_);
  syncing_ = false;
  if (result.ok()) {
    synced_through_ = sync_through_;
  } else {
    dead_ = true;
  }
  return result;
}

Status WalWriter::Sync() {
  assert(is_open() && !dead_ && synced_through_ <= written_through_);
  if (synced_through_ == written_through_) return {};
  return EndSync(RunSync(BeginSync()));
}

}  // namespace sutra
