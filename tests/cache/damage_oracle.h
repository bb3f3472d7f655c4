// For damage to the log of a whole shard: makes a log with random changes, remembers outside of it what was put and
// removed, and says where on the disk each record lies and which bytes were damaged. One thread.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "cache/wal/wal_format.h"
#include "tests/cache/cache_test_support.h"
#include "tests/cache/wal/log_fixture.h"
#include "tests/sim/manual_clock.h"
#include "tests/sim/sim_disk.h"

namespace sutra::test {

using States = std::map<std::string, int>;  // text -> version, -1: absent

inline std::string PathOf(uint64_t segment) { return "/data/" + kShardName + "/" + SegmentName(segment); }

inline std::vector<uint64_t> SegmentsOn(const sim::SimDisk& disk) {
  std::vector<uint64_t> numbers;
  for (const std::string& path : disk.Paths()) {
    const uint64_t number = SegmentNumber(path.substr(path.rfind('/') + 1));
    if (number != 0) numbers.push_back(number);
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

inline std::unique_ptr<sim::SimDisk> CopyOf(const sim::SimDisk& disk) {
  auto copy = std::make_unique<sim::SimDisk>();
  for (const std::string& path : disk.Paths()) copy->SetBytes(path, disk.Bytes(path));
  return copy;
}

// The bytes that are no longer what was written.
class DamageMap {
 public:
  std::map<uint64_t, uint64_t> foreign_headers;  // by segment; bit 0, bit 1: this copy is another's header

  void Add(uint64_t segment, uint64_t from, uint64_t to) { ranges_.push_back({segment, from, to}); }
  bool Touches(uint64_t segment, uint64_t from, uint64_t to) const {
    return std::any_of(ranges_.begin(), ranges_.end(),
                       [&](const Range& r) { return r.segment == segment && r.from < to && from < r.to; });
  }
  uint64_t newest() const {
    uint64_t newest = 0;
    for (const Range& range : ranges_) newest = std::max(newest, range.segment);
    return newest;
  }
  // Both copies of a header were replaced by valid ones of other segments.
  bool MayRefuse() const {
    return std::any_of(foreign_headers.begin(), foreign_headers.end(),
                       [](const auto& entry) { return entry.second == 3; });
  }
  std::string Text() const {
    std::string text = "; damaged:";
    for (const Range& r : ranges_) {
      text +=
          " segment " + std::to_string(r.segment) + " [" + std::to_string(r.from) + "," + std::to_string(r.to) + ")";
    }
    return text;
  }

 private:
  struct Range {
    uint64_t segment, from, to;
  };
  std::vector<Range> ranges_;
};

struct Place {
  uint64_t segment = 0;
  uint64_t offset = 0;
  SegmentId segment_id = {};
  RecordHeader header;
  std::string text;
  RecordType type() const { return static_cast<RecordType>(header.type); }
};

// Where the records of a sound log lie.
struct LogMap {
  std::vector<Place> places;          // by sequence
  std::map<std::string, Place> last;  // of each text, insert or removal

  static LogMap Of(const sim::SimDisk& disk) {
    LogMap log;
    std::map<uint64_t, std::string> texts;  // by the digest that a removal names
    for (const uint64_t number : SegmentsOn(disk)) {
      const std::vector<std::byte> bytes = disk.Bytes(PathOf(number));
      SegmentHeader header;
      std::memcpy(&header, bytes.data(), sizeof(header));
      Place place;
      place.segment = number;
      place.segment_id = header.id;
      for (place.offset = kSegmentDataStart; place.offset < bytes.size(); place.offset += place.header.length) {
        std::memcpy(&place.header, bytes.data() + place.offset, sizeof(place.header));
        // Behind the end are zeros, or what the file held as an older segment.
        if (place.header.header_crc != RecordHeaderCrc(place.header, header.id, place.offset)) break;
        WalRecord record;
        record.header = place.header;
        const bool parsed = ParseBody(bytes.data() + place.offset, kWidth, &record);
        if (parsed && place.type() == RecordType::kInsert) {
          place.text = std::string(record.text);
          texts[DigestOf(place.text, 0, header.hash_seed).digest_low] = place.text;
        } else {
          place.text = parsed && place.type() == RecordType::kErase ? texts[record.erase.digest_low] : "";
        }
        log.places.push_back(place);
        if (!place.text.empty()) log.last[place.text] = place;
      }
    }
    return log;
  }

  uint64_t UsedBytes(uint64_t segment) const {
    uint64_t used = 0;
    for (const Place& place : places) {
      if (place.segment == segment) used = place.offset + place.header.length;
    }
    return used;
  }
  // The first place of this type from `index` on, around the end.
  const Place* Pick(uint64_t index, RecordType type) const {
    for (size_t i = 0; i < places.size(); ++i) {
      const Place& place = places[(index + i) % places.size()];
      if (place.type() == type) return &place;
    }
    return nullptr;
  }
  // Whether something that is left says that the record had been synced: the header of a newer segment, or the header
  // of a later record in `newest`, the newest segment that is left.
  bool IsProven(const Place& record, uint64_t newest, const DamageMap& damage) const {
    if (record.segment != newest) return record.segment < newest;
    return std::any_of(places.begin(), places.end(), [&](const Place& place) {
      return place.segment == newest && place.header.acked_through >= record.header.sequence &&
             !damage.Touches(newest, place.offset, place.offset + sizeof(RecordHeader));
    });
  }
};

struct OpenReport {
  bool lost = false;  // the engine's log has an error
  uint64_t evictions = 0;
};

// Random changes of a shard with small segments, and what may be there afterwards.
class LogMaker {
 public:
  explicit LogMaker(std::mt19937_64* random) : random_(*random) {}

  sim::SimDisk& disk() { return disk_; }

  std::string Run() {
    config_ = SmallConfig("/data");
    config_.wal_bytes_max = 512 << 10;
    const uint64_t lives = 1 + Random(4);
    for (uint64_t life = 0; life < lives; ++life) {
      config_.policy = Random(2) == 0 ? DurabilityPolicy::kGroup : DurabilityPolicy::kInterval;
      const std::string failure = Open(&disk_, [&](LoggedShard* shard, const OpenReport&) {
        const uint64_t steps = 10 + Random(90);
        for (uint64_t step = 0; step < steps; ++step) Step(shard);
        return shard->Sync().ok() ? "" : std::string("not synced");
      });
      if (!failure.empty()) return failure;
      disk_.ProcessKill();
    }
    return "";
  }

  // Opens a shard on `disk` and hands it to `use`, whose answer it returns; then it ends, in half of the runs as by a
  // kill.
  std::string Open(sim::SimDisk* disk, const std::function<std::string(LoggedShard*, const OpenReport&)>& use) {
    OpenReport report;
    CacheConfig config = config_;
    config.log = [&](LogLevel level, const std::string& line) {
      if (verbose_) std::printf("  %s\n", line.c_str());
      report.lost = report.lost || level == LogLevel::kError;
    };
    Result<std::unique_ptr<LoggedShard>> shard = LoggedShard::Open(config, disk, &clock_, Inline());
    if (!shard.ok()) return "start refused: " + shard.status().message();
    report.evictions = (*shard)->Stats().wal_evictions;
    std::string failure = use(shard->get(), report);
    sim::SimDisk::Faults dead;
    dead.power_off_at = 1;
    if (Random(2) == 0) disk->SetFaults(dead);
    shard->reset();
    disk->ProcessKill();
    return failure;
  }

  States StatesOf(LoggedShard* shard) const {
    States states;
    for (int key = 0; key < kKeys; ++key) states[TextOf(key)] = VersionOf(shard, TextOf(key));
    return states;
  }

  // `tail_lost`: the last record of this text may be gone without a trace.
  std::string CheckState(const std::string& text, int state, bool tail_lost) const {
    if (state == -1) return "";
    const auto found = histories_.find(text);
    const std::vector<int> none;
    const std::vector<int>& changes = found == histories_.end() ? none : found->second;
    const auto at = std::find(changes.begin(), changes.end(), state);
    if (state == -2 || at == changes.end()) return text + " answers with a vector that was never put";
    if (std::find(at, changes.end(), -1) == changes.end() || tail_lost) return "";
    return text + " is back as " + std::to_string(state) + ", although it was removed later";
  }

  // Without damage the last change counts; only the log's bound may have taken an entry.
  std::string CheckWhole(const States& states) const {
    for (const auto& [text, changes] : histories_) {
      const int state = states.at(text);
      if (state != changes.back() && state != -1) return text + " is not the last one without any damage";
    }
    return "";
  }

 private:
  static constexpr int kKeys = 40;

  static std::string TextOf(int key) {
    return "key " + std::to_string(key) + std::string(key % 5 == 0 ? 5000 : 0, 'x');
  }
  uint64_t Random(uint64_t below) { return std::uniform_int_distribution<uint64_t>(0, below - 1)(random_); }

  void Step(LoggedShard* shard) {
    const std::string text = TextOf(static_cast<int>(Random(kKeys)));
    const uint64_t kind = Random(20);
    if (kind < 13) {
      histories_[text].push_back(++version_);
      Put(shard, text, static_cast<uint32_t>(version_));
    } else if (kind < 17) {
      if (shard->Erase(text, 0).ok()) histories_[text].push_back(-1);
    } else {
      clock_.Advance((kind == 17 ? 60 : 1100) * 1'000'000u);
      shard->Turn();
    }
  }

  const bool verbose_ = NumberFromEnvironment("SUTRA_SEED", 0) != 0;
  std::mt19937_64& random_;
  sim::SimDisk disk_;
  sim::ManualClock clock_;
  CacheConfig config_;
  std::map<std::string, std::vector<int>> histories_;  // versions put, -1 for a confirmed removal
  int version_ = 0;
};

}  // namespace sutra::test
