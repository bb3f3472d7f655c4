// Recovery against a log that holds anything: segments of valid records with any numbers, then corrupted bytes.
// Oracle: no byte outside a record is read, every replayed record is one that the checksums vouch for, nothing is
// written, and a second run gives the same plan and the same entries.
#include <algorithm>
#include <map>
#include <memory>

#include "cache/disk/disk_io.h"
#include "cache/wal/recovery.h"
#include "cache/wal/wal_format.h"
#include "tests/fuzz/fuzz_target.h"

namespace sutra::fuzz {
namespace {

constexpr char kDirectory[] = "log";
constexpr uint32_t kWidth = 4;

using Bytes = std::vector<std::byte>;

// Files in memory, read only.
class MemoryDisk final : public DiskIo {
 public:
  std::map<std::string, Bytes> files;  // name in the directory
  uint32_t fail_at = 0;                // the read that fails; 0 = none

  const char* name() const override { return "memory"; }
  Result<uint64_t> Size(FileHandle file) override { return uint64_t{open_.at(file)->size()}; }
  void DropCache(FileHandle) override {}
  Status SyncDirectory(const std::string&) override { return {}; }
  Status Unlink(const std::string&) override { return Forbidden(); }
  Status MakeDirectory(const std::string&) override { return Forbidden(); }
  Result<std::vector<std::string>> List(const std::string&) override {
    std::vector<std::string> names;
    for (const auto& [name, bytes] : files) names.push_back(name);
    return names;
  }
  bool all_closed() const { return open_.empty(); }

 protected:
  Status RawRename(const std::string&, const std::string&) override { return Forbidden(); }
  int RawOpen(const std::string& path, OpenMode mode) override {
    FUZZ_CHECK(mode == OpenMode::kRead);
    const auto found = files.find(path.substr(path.rfind('/') + 1));
    if (found == files.end()) return -ENOENT;
    open_[++handle_last_] = &found->second;
    return handle_last_;
  }
  void RawClose(FileHandle file) override { FUZZ_CHECK(open_.erase(file) == 1); }
  int64_t RawRead(FileHandle file, uint64_t offset, std::span<std::byte> into) override {
    if (++reads_ == fail_at) return -EIO;
    const Bytes& bytes = *open_.at(file);
    if (offset >= bytes.size()) return 0;
    const size_t count = std::min<size_t>(into.size(), bytes.size() - offset);
    std::memcpy(into.data(), bytes.data() + offset, count);
    return static_cast<int64_t>(count);
  }
  int RawAllocate(FileHandle, uint64_t, AllocateFill) override { return -EROFS; }
  void RawSubmit(const Operation&) override { FUZZ_CHECK(false && "recovery writes"); }
  Completion RawReap() override { return {}; }
  int RawSync(FileHandle) override { return 0; }

 private:
  static Status Forbidden() {
    FUZZ_CHECK(false && "recovery changes the directory");
    return {};
  }
  std::map<FileHandle, const Bytes*> open_;
  FileHandle handle_last_ = 0;
  uint32_t reads_ = 0;
};

// Reads everything that recovery hands over, and remembers it.
class Sink final : public RecoverySink {
 public:
  struct Entry {
    std::string text, vector;
    bool operator==(const Entry&) const = default;
  };
  std::map<uint32_t, Entry> entries;  // by slot
  uint64_t received = 0;

  void Insert(const WalRecord& record, uint64_t segment) override {
    FUZZ_CHECK(record.type() == RecordType::kInsert && segment != 0);
    FUZZ_CHECK(record.vector.size() == kWidth * sizeof(float) && record.text.size() == record.insert.text_bytes);
    const std::string_view vector(reinterpret_cast<const char*>(record.vector.data()), record.vector.size());
    Touch(vector);
    Touch(record.text);
    ++received;
    entries[record.header.slot] = {std::string(record.text), std::string(vector)};
  }
  void InsertIndexed(const IndexEntry&, uint64_t) override { FUZZ_CHECK(false && "every record is read"); }
  void Begin(uint64_t) override { FUZZ_CHECK(received == 0 && entries.empty()); }
  void Clear(uint32_t slot) override {
    FUZZ_CHECK(slot != kNoRecordSlot);
    ++received;
    std::erase_if(entries, [&](const auto& entry) { return entry.first == slot; });
  }
  void Erase(const EraseBody& key) override {
    ++received;
    std::erase_if(entries, [&](const auto& entry) { return DigestOf(entry.second.text) == key.digest_low; });
  }
  static uint64_t DigestOf(const std::string& text) { return std::hash<std::string>()(text); }
  uint64_t DropAll() override {
    const uint64_t count = entries.size();
    entries.clear();
    return count;
  }
};

class LogMaker {
 public:
  LogMaker(Input* input, MemoryDisk* disk) : input_(input), disk_(disk) {}

  void Run() {
    const uint32_t count = 1 + input_->Below(3);
    for (uint32_t i = 0; i < count; ++i) MakeSegment();
    for (int spoilt = 0; spoilt < 64 && !input_->empty(); ++spoilt) Spoil();
  }

 private:
  void MakeSegment() {
    const uint64_t number = ++number_last_ + (input_->Below(8) == 0 ? input_->Below(3) : 0);
    number_last_ = number;
    SegmentHeader header;
    header.number = number;
    header.id.fill(static_cast<uint8_t>(number));
    header.width = kWidth;
    header.segment_bytes = kSegmentBytesMin;
    header.previous_number = previous_number_;
    header.previous_id.fill(static_cast<uint8_t>(previous_number_));
    header.previous_valid_through = sequence_next_ - 1 - (input_->Below(4) == 0 ? input_->Below(3) : 0);
    header.removals = removals_;
    SpoilHeader(&header);
    Bytes bytes(kSegmentBytesMin);
    for (uint64_t copy = 0; copy < kSegmentHeaderCopies; ++copy) {
      EncodeSegmentHeader(header, bytes.data() + copy * kWalBlockBytes);
    }
    offset_ = kSegmentDataStart;
    sequence_next_ = header.previous_valid_through + 1;
    const uint32_t records = input_->Below(12);
    for (uint32_t i = 0; i < records; ++i) AppendRecord(header.id, &bytes);
    if (input_->Below(16) == 0) bytes.resize(input_->U16());
    disk_->files[SegmentName(number)] = std::move(bytes);
    previous_number_ = number;
  }

  void SpoilHeader(SegmentHeader* header) {
    switch (input_->Below(32)) {
      case 0: header->number = input_->Edge(header->number); break;
      case 1: header->width = static_cast<uint32_t>(input_->Edge(kWidth)); break;
      case 2: header->segment_bytes = input_->Edge(kSegmentBytesMin); break;
      case 3: header->previous_number = input_->Edge(header->previous_number); break;
      case 4: header->previous_id[3] ^= 1; break;
      case 5: header->previous_valid_through = input_->Edge(sequence_next_); break;
      case 6: header->format_major = input_->U16(); break;
      case 7: header->incompatible_flags = input_->U32(); break;
      case 8: header->block_bytes = input_->U32(); break;
      case 9: header->format_minor = input_->U16(); break;
      case 10: header->removals = input_->Edge(removals_); break;
      default: break;
    }
  }

  // A record with valid checksums, whatever its numbers say.
  void AppendRecord(const SegmentId& id, Bytes* bytes) {
    const std::string text(1 + input_->Below(200), static_cast<char>('a' + input_->Below(4)));
    const float vector[kWidth] = {1, 2, 3, static_cast<float>(input_->Byte())};
    InsertBody body;
    body.text_bytes = static_cast<uint32_t>(text.size());
    body.width = kWidth;
    const uint32_t kind = input_->Below(8);
    if (kind == 0) body.text_bytes = static_cast<uint32_t>(input_->Edge(text.size()));
    if (kind == 1) body.width = static_cast<uint32_t>(input_->Edge(kWidth));
    UnplacedRecord record = UnplacedRecord::Insert(body, std::as_bytes(std::span(vector)), text);
    record.slot = input_->Below(16) == 0 ? input_->U32() : input_->Below(4);
    if (kind == 2) record = UnplacedRecord::Erase({Sink::DigestOf(text), 0, 0});
    if (kind == 6) record = input_->Below(8) == 0 ? UnplacedRecord::DropAll() : UnplacedRecord::Clear(input_->Below(4));
    if (kind == 3 && record.fixed_bytes >= 8) record.type = static_cast<RecordType>(input_->Byte());
    const uint64_t room = bytes->size() - offset_;
    if (record.length > room) return;
    std::byte* at = bytes->data() + offset_;
    if (kind == 4) {
      record.length = static_cast<uint32_t>(std::min<uint64_t>(room, kRecordAlign * (1 + input_->Below(4))));
      EncodeWatermark(at, record.length);
    } else {
      record.CopyTo(at);
    }
    if (kind == 5) {  // a false length, under a valid header checksum
      const auto length = static_cast<uint32_t>(input_->Edge(record.length));
      std::memcpy(at + offsetof(RecordHeader, length), &length, sizeof(length));
    }
    if (input_->Below(16) == 0) at[offsetof(RecordHeader, flags)] = std::byte{input_->Byte()};
    const uint64_t sequence = input_->Below(16) == 0 ? input_->Edge(sequence_next_) : sequence_next_;
    const uint64_t acked = input_->Below(2) == 0 ? 0 : input_->Edge(sequence_next_);
    // Mostly as the writer counts them.
    if (IsRemoval(static_cast<RecordType>(at[offsetof(RecordHeader, type)]))) ++removals_;
    const uint64_t removals = input_->Below(16) == 0 ? input_->Edge(removals_) : removals_;
    StampRecord(at, id, offset_, {sequence, acked, input_->Byte(), removals});
    sequence_next_ = sequence + 1;
    offset_ += record.length;
    if (input_->Below(16) == 0) offset_ += kRecordAlign * input_->Below(4);  // a hole
    if (offset_ > bytes->size()) offset_ = bytes->size();
  }

  void Spoil() {
    auto file = disk_->files.begin();
    std::advance(file, input_->Below(static_cast<uint32_t>(disk_->files.size())));
    Bytes& bytes = file->second;
    if (bytes.empty()) return;
    const size_t at = input_->U16() % std::min<size_t>(bytes.size(), kSegmentDataStart + 4096);
    switch (input_->Below(4)) {
      case 0: bytes[at] ^= static_cast<std::byte>(1u << input_->Below(8)); break;
      case 1: std::memset(bytes.data() + at, 0, std::min<size_t>(input_->U16(), bytes.size() - at)); break;
      case 2: {
        const size_t from = input_->U16() % bytes.size();
        std::memmove(bytes.data() + at, bytes.data() + from,
                     std::min<size_t>({input_->U16(), bytes.size() - at, bytes.size() - from}));
        break;
      }
      default: bytes[at] = static_cast<std::byte>(input_->Byte()); break;
    }
  }

  Input* const input_;
  MemoryDisk* const disk_;
  uint64_t number_last_ = 0;
  uint64_t previous_number_ = 0;
  uint64_t sequence_next_ = 1;
  uint64_t offset_ = 0;
  uint64_t removals_ = 0;
};

void CheckPlan(const RecoveryPlan& plan, const MemoryDisk& disk, bool strict) {
  const auto exists = [&](uint64_t number) { return disk.files.contains(SegmentName(number)); };
  for (const RecoveredSegment& segment : plan.chain) FUZZ_CHECK(exists(segment.number));
  for (const uint64_t number : plan.quarantine) FUZZ_CHECK(exists(number));
  for (const uint64_t number : plan.remove) {
    FUZZ_CHECK(exists(number));
    FUZZ_CHECK(std::count(plan.quarantine.begin(), plan.quarantine.end(), number) == 0);
  }
  FUZZ_CHECK(!exists(plan.number_next));
  // Damage may cost an insert only, which sets no file aside. But nothing is lost, set aside or written again without
  // damage, damage is an error in the engine's log, and there is no such error without damage.
  const bool damaged = plan.damaged_segments > 0;
  const bool older = std::any_of(plan.messages.begin(), plan.messages.end(), [](const RecoveryMessage& message) {
    return message.text.find("earlier version") != std::string::npos;
  });
  const bool costs = plan.records_dropped > 0 || (!plan.quarantine.empty() && !older) || plan.append_again_through > 0;
  FUZZ_CHECK(damaged || !costs);
  FUZZ_CHECK(damaged == std::any_of(plan.messages.begin(), plan.messages.end(), [](const RecoveryMessage& message) {
               return message.level == LogLevel::kError && !message.text.empty();
             }));
  FUZZ_CHECK(!damaged || !strict);
  // What must be written again is exactly what the files that go, and stay readable until then, still hold.
  const auto goes = [&](uint64_t number) {
    return std::count(plan.quarantine.begin(), plan.quarantine.end(), number) +
               std::count(plan.remove.begin(), plan.remove.end(), number) ==
           1;
  };
  for (const RecoveredSegment& segment : plan.chain) {
    FUZZ_CHECK(goes(segment.number) == (segment.number <= plan.append_again_through));
  }
}

}  // namespace

SUTRA_FUZZ_TARGET(wal, 4096) {
  MemoryDisk disk;
  Input input(data, size);
  const uint8_t flags = input.Byte();
  if (flags % 8 == 0) {
    const std::string_view raw = input.Rest();
    Bytes& bytes = disk.files[SegmentName(1)];
    bytes.resize(kSegmentBytesMin);
    std::transform(raw.begin(), raw.end(), bytes.begin(), [](char c) { return static_cast<std::byte>(c); });
  } else {
    LogMaker(&input, &disk).Run();
  }
  if (flags % 8 == 1) disk.fail_at = flags / 8;
  RecoveryRequest request;
  request.directory = kDirectory;
  request.width = kWidth;
  request.strict = flags % 8 == 2;

  Sink first, second;
  const Result<RecoveryPlan> plan = RecoverLog(&disk, request, &first);
  FUZZ_CHECK(disk.all_closed());
  if (!plan.ok()) {
    FUZZ_CHECK(!plan.status().message().empty());
    return;
  }
  CheckPlan(*plan, disk, request.strict);
  FUZZ_CHECK(plan->records >= first.received);
  if (disk.fail_at != 0) return;
  const Result<RecoveryPlan> again = RecoverLog(&disk, request, &second);
  FUZZ_CHECK(again.ok() && first.entries == second.entries);
  FUZZ_CHECK(again->valid_through == plan->valid_through && again->quarantine == plan->quarantine &&
             again->remove == plan->remove && again->number_next == plan->number_next &&
             again->damaged_segments == plan->damaged_segments && again->records_dropped == plan->records_dropped);
}

}  // namespace sutra::fuzz
