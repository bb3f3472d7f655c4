// Groups, and a log made of them segment by segment with the real writer: for tests of the code that writes, reads or
// continues a log. Thread rule: one thread.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cache/wal/wal_group.h"
#include "cache/wal/wal_writer.h"
#include "shm/base/mutex.h"
#include "tests/cache/wal/log_fixture.h"

namespace sutra::test {

// An insert of a version of a text, or with version -1 its removal.
struct Change {
  std::string text;
  int version = -1;
};

inline ModelIdentity Model() {
  ModelIdentity model;
  ParseIdentity(kIdentity, &model);
  return model;
}

// Each text has a slot of its own. Any thread.
inline uint32_t SlotOfText(const std::string& text) {
  static Mutex mutex;
  static std::map<std::string, uint32_t> slots;
  const MutexLock lock(mutex);
  return slots.emplace(text, static_cast<uint32_t>(slots.size())).first->second;
}

// Calls `use` with the record of a change; the record's views hold inside only.
template <typename Use>
auto WithRecord(const Change& change, const Use& use) {
  if (change.version < 0) return use(UnplacedRecord::Erase(DigestOf(change.text, 0, 0)));
  const auto version = static_cast<uint32_t>(change.version);
  const std::vector<float> vector = VectorOf(change.text, version);
  InsertBody body;
  body.wall_expiry_ns = UINT64_MAX;
  body.ttl_s = 1000;
  body.text_bytes = static_cast<uint32_t>(change.text.size());
  body.width = kWidth;
  body.token_count = version;
  body.norm = static_cast<float>(version);
  UnplacedRecord record = UnplacedRecord::Insert(body, std::as_bytes(std::span(vector)), change.text);
  record.slot = SlotOfText(change.text);
  return use(record);
}

// A closed group, as large as its records need it.
inline std::unique_ptr<WalGroup> GroupOf(const std::vector<Change>& changes) {
  uint64_t bytes = kWalBlockBytes;
  for (const Change& change : changes) {
    bytes += WithRecord(change, [](const UnplacedRecord& record) { return uint64_t{record.length}; });
  }
  auto group = std::make_unique<WalGroup>(bytes);
  for (const Change& change : changes) {
    WithRecord(change, [&](const UnplacedRecord& record) { group->Append(record); });
  }
  group->Close();
  return group;
}

// A file of `bytes` zeros at `path`, as the preparer leaves it.
inline FileHandle ReserveFile(DiskIo* io, const std::string& path, uint64_t bytes = kSegmentBytesMin) {
  const FileHandle file = io->Open(path, OpenMode::kCreateLog).value();
  EXPECT_TRUE(io->Allocate(file, bytes, AllocateFill::kZeroed).ok());
  return file;
}

class HandMadeLog {
 public:
  explicit HandMadeLog(DiskIo* io) : io_(io), writer_(io, kSmallLogDirectory, Model(), kWidth) {
    EXPECT_TRUE(io->MakeDirectory(kSmallLogDirectory).ok());
  }

  // Begins a segment whose header says that the previous one counts as far as it was synced.
  void Begin(uint64_t number, uint64_t bytes = kSegmentBytesMin) {
    BeginIn(ReserveFile(io_, kReserve, bytes), number, bytes, false);
  }
  // Begins a segment in the file of an older one, which is then gone.
  void BeginOver(uint64_t number, uint64_t retired) {
    EXPECT_TRUE(io_->Rename(PathOf(retired), kReserve).ok());
    EXPECT_TRUE(io_->SyncDirectory(kSmallLogDirectory).ok());
    const FileHandle file = io_->Open(kReserve, OpenMode::kWriteLog).value();
    BeginIn(file, number, io_->Size(file).value(), true);
  }
  void Write(const std::vector<Change>& changes, bool then_sync = true) {
    EXPECT_TRUE(writer_.Write(GroupOf(changes).get(), then_sync, 0).ok());
  }

  WalWriter* writer() { return &writer_; }
  static std::string PathOf(uint64_t number) { return kSmallLogDirectory + "/" + SegmentName(number); }

 private:
  void BeginIn(FileHandle file, uint64_t number, uint64_t bytes, bool written_over) {
    WalWriter::Begin begin;
    begin.number = number;
    begin.segment_bytes = bytes;
    begin.previous_number = writer_.number();
    begin.previous_id = writer_.id();
    begin.previous_valid_through = writer_.synced_through();
    begin.written_over = written_over;
    EXPECT_TRUE(writer_.BeginSegment(file, kReserve, begin).ok());
  }

  const std::string kReserve = kSmallLogDirectory + "/reserve.tmp";
  DiskIo* const io_;
  WalWriter writer_;
};

}  // namespace sutra::test
