// The bounds of the engine that wrote the log stand nowhere, so they are made as large as what is in it.
#include "cache/shard_at_rest.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "cache/disk/disk_io.h"
#include "cache/wal/recovery.h"
#include "cache/wal/wal_format.h"
#include "shm/base/hex.h"

namespace sutra {
namespace {

constexpr uint64_t kEntryBytes = 1024;  // more than an entry takes beside its vector and a text in the heap

// The highest place in memory that the log names.
class HighestSlot final : public RecoverySink {
 public:
  void Begin(uint64_t) override {}
  void Insert(const WalRecord& record, uint64_t) override { See(record.header.slot); }
  void InsertIndexed(const IndexEntry& entry, uint64_t) override { See(entry.slot); }
  void Clear(uint32_t) override {}
  void Erase(const EraseBody&) override {}
  uint64_t DropAll() override { return 0; }
  uint64_t slots() const { return slots_; }

 private:
  void See(uint32_t slot) {
    if (slot != kNoRecordSlot) slots_ = std::max<uint64_t>(slots_, uint64_t{slot} + 1);
  }
  uint64_t slots_ = 0;
};

// A header that is right in itself, of whatever log.
std::optional<SegmentHeader> AnyHeader(DiskIo* io, const std::string& path) {
  const Result<FileHandle> file = io->Open(path, OpenMode::kRead);
  if (!file.ok()) return std::nullopt;
  std::optional<SegmentHeader> found;
  for (uint64_t copy = 0; copy < kSegmentHeaderCopies && !found; ++copy) {
    std::vector<std::byte> block(kWalBlockBytes);
    const Result<size_t> read = io->Read(*file, copy * kWalBlockBytes, block);
    if (!read.ok() || *read != block.size()) continue;
    SegmentHeader header;
    std::memcpy(&header, block.data(), sizeof(header));
    SegmentHeader parsed;
    const SegmentExpectation itself{header.number, header.model, header.width, header.id};
    if (ParseSegmentHeader(block, itself, &parsed) == HeaderState::kGood) found = parsed;
  }
  io->Close(*file);
  return found;
}

uint64_t SizeOf(DiskIo* io, const std::string& path) {
  const Result<FileHandle> file = io->Open(path, OpenMode::kRead);
  if (!file.ok()) return 0;
  const Result<uint64_t> size = io->Size(*file);
  io->Close(*file);
  return size.ok() ? *size : 0;
}

bool IsSegmentSize(uint64_t bytes) {
  return bytes >= kSegmentBytesMin && bytes <= kSegmentBytesMax && bytes % kWalBlockBytes == 0;
}

}  // namespace

Result<ShardDirectory> ModelAtRest(DiskIo* io, const IdentitySurvey& survey) {
  ShardDirectory directory = survey.model;
  directory.data = survey.path.substr(0, survey.path.size() - survey.name.size() - 1);
  for (auto number = survey.segments.rbegin(); number != survey.segments.rend(); ++number) {
    const std::optional<SegmentHeader> header = AnyHeader(io, survey.path + "/" + SegmentName(*number));
    if (!header || header->width == 0 || header->width > kCacheWidthMax) continue;
    const std::string text = ToHex(header->model);
    if (ShardName(text) != survey.name) continue;
    directory.model_identity = text;
    directory.width = header->width;
    return directory;
  }
  ModelIdentity identity;
  const bool said = ParseIdentity(directory.model_identity, &identity) && directory.width > 0 &&
                    directory.width <= kCacheWidthMax && ShardName(directory.model_identity) == survey.name;
  if (said) return directory;
  return Status(StatusCode::kStorageError,
                survey.path + " does not say which model it belongs to: its MODEL file is missing or damaged, and no " +
                    "segment has a header that can be read");
}

Result<CacheConfig> ConfigAtRest(DiskIo* io, const IdentitySurvey& survey) {
  const Result<ShardDirectory> model = ModelAtRest(io, survey);
  if (!model.ok()) return model.status();
  CacheConfig config;
  config.directory = model->data;
  config.model_identity = model->model_identity;
  config.model_name = model->model_name;
  config.width = model->width;
  uint64_t log_bytes = 0;
  for (const uint64_t number : survey.segments) {
    const uint64_t bytes = SizeOf(io, survey.path + "/" + SegmentName(number));
    log_bytes += bytes;
    if (IsSegmentSize(bytes)) config.wal_segment_bytes = bytes;
  }
  RecoveryRequest request;
  request.directory = survey.path;
  request.width = config.width;
  ParseIdentity(config.model_identity, &request.model);
  HighestSlot sink;
  const Result<RecoveryPlan> plan = RecoverLog(io, request, &sink);
  if (!plan.ok()) return plan.status();
  config.entries_max = std::max(config.entries_max, sink.slots());
  const uint64_t vector_bytes = uint64_t{config.width} * sizeof(float);
  config.bytes_max = std::max(config.bytes_max, config.entries_max * (vector_bytes + kEntryBytes) + 2 * log_bytes);
  config.wal_bytes_max =
      std::max({config.wal_bytes_max, 2 * log_bytes, (kWalSegmentsMin + 1) * config.wal_segment_bytes});
  return config;
}

}  // namespace sutra
