// A start by indexes that say anything under valid checksums, or whose bytes are spoilt, over a log whose records are
// right. Oracle: the store's bounds hold, nothing is left unread once everything was read, every text that is found
// answers with a vector that was written for exactly that text, and a second start finds the same.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>

#include "cache/entry_loader.h"
#include "cache/key_digest.h"
#include "cache/store_sink.h"
#include "shm/base/crc32c.h"
#include "tests/cache/wal/hand_made_log.h"
#include "tests/fuzz/fuzz_target.h"

namespace sutra::fuzz {
namespace {

using test::HandMadeLog;
using test::kWidth;

constexpr uint64_t kEntriesMax = 64, kBytesMax = 64 << 10;
constexpr uint64_t kWall = 1'700'000'000'000'000'000;
constexpr uint64_t kSegments = 2;

// The files of a log of two closed segments, the texts in it, and an index to make others of.
struct Log {
  std::map<std::string, std::vector<std::byte>> files;
  std::vector<std::string> texts;
  std::vector<IndexEntry> entries;  // of both indexes
};

std::vector<test::Change> ChangesOf(uint64_t segment) {
  if (segment == 1) return {{"a", 1}, {"b", 2}, {"gone", 3}, {"long" + std::string(3000, 'l'), 4}};
  return {{"a", 5}, {"gone", -1}, {"c", 6}, {"b", 7}, {"d" + std::string(40, 'd'), 8}};
}

constexpr size_t kTrailerAt = kSegmentBytesMin - sizeof(IndexTrailer);

IndexTrailer TrailerOf(const std::vector<std::byte>& file) {
  IndexTrailer trailer;
  std::memcpy(&trailer, file.data() + kTrailerAt, sizeof(trailer));
  return trailer;
}

size_t EntriesAt(uint64_t entries) {
  return kSegmentBytesMin - RoundUp(entries * sizeof(IndexEntry) + sizeof(IndexTrailer), kWalBlockBytes);
}

Log MakeLog() {
  Log log;
  sim::SimDisk disk(1);
  HandMadeLog writer(&disk);
  for (uint64_t segment = 1; segment <= kSegments; ++segment) {
    writer.Begin(segment);
    for (const test::Change& change : ChangesOf(segment)) {
      writer.Write({change});
      if (std::find(log.texts.begin(), log.texts.end(), change.text) == log.texts.end()) {
        log.texts.push_back(change.text);
      }
    }
    FUZZ_CHECK(writer.writer()->WriteIndex().ok());
  }
  for (uint64_t segment = 1; segment <= kSegments; ++segment) {
    std::vector<std::byte>& file = log.files[HandMadeLog::PathOf(segment)];
    file = disk.Bytes(HandMadeLog::PathOf(segment));
    FUZZ_CHECK(file.size() == kSegmentBytesMin);
    const IndexTrailer trailer = TrailerOf(file);
    FUZZ_CHECK(trailer.magic == kIndexMagic && trailer.entries == ChangesOf(segment).size());
    const size_t before = log.entries.size();
    log.entries.resize(before + trailer.entries);
    std::memcpy(&log.entries[before], file.data() + EntriesAt(trailer.entries), trailer.entries * sizeof(IndexEntry));
  }
  return log;
}

// Writes another index into the file of a closed segment.
class IndexMaker {
 public:
  IndexMaker(Input* input, const Log& log) : input_(input), log_(log) {}

  void Rewrite(std::vector<std::byte>* file) {
    IndexTrailer trailer = TrailerOf(*file);
    std::vector<IndexEntry> entries(trailer.entries);
    std::memcpy(entries.data(), file->data() + EntriesAt(trailer.entries), entries.size() * sizeof(IndexEntry));
    for (uint32_t change = input_->Below(8); change > 0; --change) Change(&entries);
    const size_t kept = std::min<size_t>(entries.size(), 300);
    entries.resize(kept);
    if (input_->Below(8) == 0) SpoilTrailer(&trailer);
    trailer.entries = input_->Below(32) == 0 ? input_->Edge(kept) : kept;
    trailer.entries_crc = Crc32c(entries.data(), kept * sizeof(IndexEntry));
    trailer.trailer_crc = Crc32c(&trailer, offsetof(IndexTrailer, trailer_crc));
    std::memcpy(file->data() + EntriesAt(kept), entries.data(), kept * sizeof(IndexEntry));
    std::memcpy(file->data() + kTrailerAt, &trailer, sizeof(trailer));
    for (uint32_t spoilt = input_->Below(4); spoilt > 2; --spoilt) {
      (*file)[EntriesAt(kept) + input_->U16() % (kSegmentBytesMin - EntriesAt(kept))] ^= std::byte{input_->Byte()};
    }
  }

 private:
  void Change(std::vector<IndexEntry>* entries) {
    const uint32_t kind = input_->Below(8);
    if (kind == 0 || entries->empty()) {  // more of them, up to more than the store holds
      entries->insert(entries->end(), 1 + input_->Below(90), log_.entries[input_->Below(Count())]);
      for (uint32_t i = 0; i < entries->size() && kind != 0; ++i) (*entries)[i].slot = i;
      return;
    }
    IndexEntry& entry = (*entries)[input_->Below(static_cast<uint32_t>(entries->size()))];
    switch (kind) {
      case 1: entry = log_.entries[input_->Below(Count())]; break;
      case 2: entry.slot = static_cast<uint32_t>(input_->Edge(kEntriesMax)); break;
      case 3: entry.place = PlaceOf(); break;
      case 4: SpoilKey(&entry); break;
      case 5: entry.type = input_->Below(4) == 0 ? input_->Byte() : static_cast<uint8_t>(1 + input_->Below(5)); break;
      case 6: std::swap(entry, entries->back()); break;
      default: SpoilSizes(&entry); break;
    }
  }
  uint32_t Count() const { return static_cast<uint32_t>(log_.entries.size()); }
  uint32_t PlaceOf() {
    if (input_->Below(2) == 0) return log_.entries[input_->Below(Count())].place;
    return static_cast<uint32_t>(input_->Edge(kSegmentBytesMin / kRecordAlign));
  }
  void SpoilKey(IndexEntry* entry) {
    const IndexEntry& other = log_.entries[input_->Below(Count())];
    switch (input_->Below(4)) {
      case 0: entry->digest_low = other.digest_low; break;
      case 1: entry->digest_high = other.digest_high; break;
      case 2: entry->variant = input_->U32(); break;
      default:  // the whole key of another text, at the place of this one's record
        entry->digest_low = other.digest_low;
        entry->digest_high = other.digest_high;
        entry->text_bytes = other.text_bytes;
        break;
    }
  }
  void SpoilSizes(IndexEntry* entry) {
    switch (input_->Below(6)) {
      case 0: entry->text_bytes = static_cast<uint32_t>(input_->Edge(kBytesMax)); break;
      case 1: entry->ttl_s = static_cast<uint32_t>(input_->Edge(1000)); break;
      case 2: entry->wall_expiry_ns = input_->Edge(kWall); break;
      case 3: entry->wall_highest_ns = input_->Edge(kWall); break;
      case 4: entry->token_count = input_->U32(); break;
      default: entry->truncated = input_->Byte(); break;
    }
  }
  void SpoilTrailer(IndexTrailer* trailer) {
    switch (input_->Below(7)) {
      case 0: trailer->id[input_->Below(16)] ^= 1; break;
      case 1: trailer->records_end = input_->Edge(trailer->records_end); break;
      case 2: trailer->sequence_last = input_->Edge(trailer->sequence_last); break;
      case 3: trailer->removals = input_->Edge(trailer->removals); break;
      case 4: trailer->wall_highest_ns = input_->Edge(kWall); break;
      case 5: trailer->clock_set_ns = input_->Edge(kWall); break;
      default: trailer->hash_seed ^= 1; break;
    }
  }

  Input* const input_;
  const Log& log_;
};

// What a start finds: for each text the version whose vector it answers with; -1 for none.
std::vector<int> Start(sim::SimDisk* disk, const Log& log, bool all_first) {
  sim::ManualClock clock(kWall);
  SlotTable store(SlotTable::Limits{kWidth, kEntriesMax, kBytesMax});
  StoreSink sink(&store, &clock, kWall);
  RecoveryRequest request;
  request.directory = test::kSmallLogDirectory;
  request.width = kWidth;
  request.model = test::Model();
  const Result<RecoveryPlan> plan = RecoverLog(disk, request, &sink);
  if (!plan.ok()) return {};
  store.FinishReplay();
  const auto check_bounds = [&] {
    const SlotTable::Counts counts = store.GetCounts();
    FUZZ_CHECK(counts.entries <= kEntriesMax && counts.bytes <= kBytesMax && counts.unread <= counts.entries);
  };
  check_bounds();
  EntryLoader loader(&store, disk, &clock, request, plan->chain, {});
  if (all_first) loader.LoadAll();
  std::vector<int> found;
  for (const std::string& text : log.texts) {
    std::vector<float> vector(kWidth);
    CacheValue value;
    const auto read = [&](uint32_t slot) { loader.Load(slot); };
    found.push_back(-1);
    if (!store.Lookup(store.KeyOf(text, 0), clock.BootNs(), vector.data(), &value, read)) continue;
    for (uint32_t version = 0; version < 10 && found.back() < 0; ++version) {
      if (vector == test::VectorOf(text, version)) found.back() = static_cast<int>(version);
    }
    FUZZ_CHECK(found.back() >= 0 && "the vector of another text");
  }
  loader.LoadAll();
  check_bounds();
  FUZZ_CHECK(store.GetCounts().unread == 0);
  return found;
}

}  // namespace

SUTRA_FUZZ_TARGET(index, 1024) {
  static const Log log = MakeLog();
  Input input(data, size);
  sim::SimDisk disk(1);
  FUZZ_CHECK(disk.MakeDirectory(test::kSmallLogDirectory).ok());
  for (const auto& [path, bytes] : log.files) {
    std::vector<std::byte> file = bytes;
    if (input.Below(4) != 0) IndexMaker(&input, log).Rewrite(&file);
    disk.Close(test::ReserveFile(&disk, path));
    disk.SetBytes(path, std::move(file));
  }
  const std::vector<int> lazy = Start(&disk, log, false);
  FUZZ_CHECK(Start(&disk, log, true) == lazy);
}

}  // namespace sutra::fuzz
