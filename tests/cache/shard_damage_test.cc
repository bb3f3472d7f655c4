// Random damage to the log of a whole shard, on the simulated disk: random changes with restarts, kills and recycling,
// then one to three damages, then two starts. A vector that was never put, a confirmed removal undone, a loss that is
// not reported, a start that is refused or a second start unlike the first is a failure (P4). Damaged inserts cost
// themselves only.
//   SUTRA_SEED=n runs one log; SUTRA_DAMAGE_RUNS=n sets how many are made, each damaged in several ways.
// The canaries give records that are wrong the right checksums: the same check must notice.
#include <gtest/gtest.h>

#include "shm/base/crc32c.h"
#include "tests/cache/damage_oracle.h"
#include "tests/kit/by_build.h"

namespace sutra::test {
namespace {

constexpr uint64_t kRunsDefault = ByBuild(150, 20, 5);
constexpr int kDamagesOfALog = 6;

enum class Kind { kFlip, kZeros, kOtherSegment, kOtherPlace, kTruncate, kDelete, kNoise, kUnreadable, kHeader };
constexpr uint64_t kKinds = 9;

class Damager {
 public:
  Damager(std::mt19937_64* random, sim::SimDisk* disk, const LogMap* log)
      : random_(*random), disk_(*disk), log_(*log) {}

  // One damage of any kind, mostly where records are.
  void Any(DamageMap* done) {
    const std::vector<uint64_t> numbers = SegmentsOn(disk_);
    const uint64_t number = numbers[Random(numbers.size())];
    std::vector<std::byte> bytes = disk_.Bytes(PathOf(number));
    if (bytes.empty()) return;
    const uint64_t used = std::max(kSegmentDataStart, log_.UsedBytes(number));
    const uint64_t at = Random(Random(4) == 0 ? bytes.size() : std::min<uint64_t>(bytes.size(), used));
    const uint64_t block = at - at % kWalBlockBytes;
    const auto kind = static_cast<Kind>(Random(kKinds));
    switch (kind) {
      case Kind::kFlip:
        bytes[at] ^= static_cast<std::byte>(1u << Random(8));
        return Write(number, std::move(bytes), at, at + 1, done);
      case Kind::kZeros: return Fill(number, std::move(bytes), block, kWalBlockBytes * (1 + Random(2)), false, done);
      case Kind::kNoise: return Fill(number, std::move(bytes), at - at % 512, 512, true, done);
      case Kind::kOtherSegment: return Copy(numbers[Random(numbers.size())], block, number, block, done);
      case Kind::kOtherPlace: return Copy(number, kWalBlockBytes * Random(16), number, block, done);
      case Kind::kHeader:
        return Copy(numbers[Random(numbers.size())], kWalBlockBytes * Random(2), number, kWalBlockBytes * Random(2),
                    done);
      case Kind::kTruncate: {
        const uint64_t size = bytes.size();
        bytes.resize(at);
        return Write(number, std::move(bytes), at, size, done);
      }
      case Kind::kDelete:
        if (numbers.size() == 1) return;
        done->Add(number, 0, UINT64_MAX);
        ASSERT_TRUE(disk_.Unlink(PathOf(number)).ok());
        return;
      case Kind::kUnreadable:
        done->Add(number, block, block + kWalBlockBytes);
        disk_.SpoilBlock(PathOf(number), block);
        return;
    }
  }

  // A flipped bit behind the header of an insert; its text, or "" if the log holds none.
  std::string InsertBody(DamageMap* done) {
    const Place* place = log_.Pick(Random(log_.places.size()), RecordType::kInsert);
    if (place == nullptr) return "";
    std::vector<std::byte> bytes = disk_.Bytes(PathOf(place->segment));
    const uint64_t at = place->offset + sizeof(RecordHeader) + Random(place->header.length - sizeof(RecordHeader));
    bytes[at] ^= static_cast<std::byte>(1u << Random(8));
    Write(place->segment, std::move(bytes), at, at + 1, done);
    return place->text;
  }

 private:
  uint64_t Random(uint64_t below) { return std::uniform_int_distribution<uint64_t>(0, below - 1)(random_); }

  void Write(uint64_t number, std::vector<std::byte> bytes, uint64_t from, uint64_t to, DamageMap* done) {
    done->Add(number, from, to);
    disk_.SetBytes(PathOf(number), std::move(bytes));
  }
  void Fill(uint64_t number, std::vector<std::byte> bytes, uint64_t at, uint64_t size, bool noise, DamageMap* done) {
    const uint64_t end = std::min<uint64_t>(bytes.size(), at + size);
    for (uint64_t i = at; i < end; ++i) bytes[i] = static_cast<std::byte>(noise ? random_() : 0);
    Write(number, std::move(bytes), at, end, done);
  }
  void Copy(uint64_t from, uint64_t from_at, uint64_t to, uint64_t to_at, DamageMap* done) {
    const std::vector<std::byte> source = disk_.Bytes(PathOf(from));
    std::vector<std::byte> bytes = disk_.Bytes(PathOf(to));
    if (from_at + kWalBlockBytes > source.size() || to_at + kWalBlockBytes > bytes.size()) return;
    if (from == to && from_at == to_at) return;
    if (from == to && from_at < kSegmentDataStart && to_at < kSegmentDataStart) return;  // the copies are equal
    std::copy_n(source.begin() + static_cast<std::ptrdiff_t>(from_at), kWalBlockBytes,
                bytes.begin() + static_cast<std::ptrdiff_t>(to_at));
    if (from != to && from_at < kSegmentDataStart && to_at < kSegmentDataStart)
      done->foreign_headers[to] |= to_at == 0 ? 1 : 2;
    Write(to, std::move(bytes), to_at, to_at + kWalBlockBytes, done);
  }

  std::mt19937_64& random_;
  sim::SimDisk& disk_;
  const LogMap& log_;
};

// What both starts answered, or why there is none.
struct Starts {
  std::string failure;
  bool refused = false;
};

class DamagedShard {
 public:
  explicit DamagedShard(uint64_t seed) : random_(seed), maker_(&random_) {}

  // Changes, and what a start finds without damage; "" or the failure.
  std::string Make() {
    if (std::string failure = maker_.Run(); !failure.empty()) return failure;
    log_ = LogMap::Of(maker_.disk());
    std::unique_ptr<sim::SimDisk> copy = CopyOf(maker_.disk());
    return maker_.Open(copy.get(), [&](LoggedShard* shard, const OpenReport& report) {
      whole_ = maker_.StatesOf(shard);
      return report.lost ? "damage reported without damage" : maker_.CheckWhole(whole_);
    });
  }

  std::string RunOnce() {
    std::unique_ptr<sim::SimDisk> disk = CopyOf(maker_.disk());
    Damager damager(&random_, disk.get(), &log_);
    DamageMap damage;
    std::set<std::string> hit;
    const uint64_t count = 1 + random_() % 3;
    const bool inserts_only = random_() % 4 == 0;
    for (uint64_t i = 0; i < count; ++i) {
      if (!inserts_only) {
        damager.Any(&damage);
      } else if (const std::string text = damager.InsertBody(&damage); !text.empty()) {
        hit.insert(text);
      }
    }
    return Check(disk.get(), damage, inserts_only ? &hit : nullptr);
  }

  // `hit`: only inserts of these texts are damaged, in their bodies.
  std::string Check(sim::SimDisk* disk, const DamageMap& damage, const std::set<std::string>* hit) {
    const std::vector<uint64_t> left = SegmentsOn(*disk);
    States first;
    std::string failure = maker_.Open(disk, [&](LoggedShard* shard, const OpenReport& report) {
      first = maker_.StatesOf(shard);
      for (const auto& [text, state] : first) {
        if (std::string wrong = CheckText(text, state, damage, left, report, hit); !wrong.empty()) return wrong;
      }
      return std::string();
    });
    if (failure.find("belongs to another log") != std::string::npos && damage.MayRefuse()) return "";
    if (!failure.empty()) return failure + damage.Text();
    if (random_() % 2 == 0) disk->ProcessKill();
    failure = maker_.Open(disk, [&](LoggedShard* shard, const OpenReport&) {
      return maker_.StatesOf(shard) == first ? "" : std::string("the second start differs from the first");
    });
    return failure.empty() ? "" : failure + damage.Text();
  }

  LogMaker& maker() { return maker_; }
  const LogMap& log() const { return log_; }
  const States& whole() const { return whole_; }

 private:
  std::string CheckText(const std::string& text, int state, const DamageMap& damage, const std::vector<uint64_t>& left,
                        const OpenReport& report, const std::set<std::string>* hit) {
    const auto last = log_.last.find(text);
    // What no later record or header on the disk speaks of may be lost like a torn write.
    const bool provable = last == log_.last.end() || log_.IsProven(last->second, left.back(), damage);
    if (std::string wrong = maker_.CheckState(text, state, !provable); !wrong.empty()) return wrong;
    const int whole = whole_.at(text);
    if (state == whole || report.evictions > 0) return "";
    const std::string differs = text + " is " + std::to_string(state) + ", not " + std::to_string(whole);
    // Without its file the oldest segment looks as if it had been given back.
    const bool oldest_gone = last != log_.last.end() && last->second.segment < left.front();
    if (provable && !oldest_gone && !report.lost) return differs + ", and nothing was reported";
    if (last != log_.last.end() && last->second.segment > damage.newest()) return differs + ", older damage took it";
    if (hit != nullptr && provable && hit->count(text) == 0) return differs + ", but only others are damaged";
    return "";
  }

  std::mt19937_64 random_;
  LogMaker maker_;
  LogMap log_;
  States whole_;
};

TEST(ShardDamage, NeverServesAWrongVectorOrUndoesARemovalAndAlwaysStarts) {
  const uint64_t only = NumberFromEnvironment("SUTRA_SEED", 0);
  const uint64_t first = only != 0 ? only : 1;
  const uint64_t last = only != 0 ? only : NumberFromEnvironment("SUTRA_DAMAGE_RUNS", kRunsDefault);
  uint64_t segments = 0;
  for (uint64_t seed = first; seed <= last; ++seed) {
    DamagedShard shard(seed);
    ASSERT_EQ(shard.Make(), "") << "SUTRA_SEED=" << seed;
    segments += SegmentsOn(shard.maker().disk()).size();
    for (int i = 0; i < kDamagesOfALog; ++i) {
      ASSERT_EQ(shard.RunOnce(), "") << "SUTRA_SEED=" << seed << ", damage " << i;
    }
  }
  std::printf("damaged logs: seeds %llu..%llu, %d damages each, %.1f segments each\n",
              static_cast<unsigned long long>(first), static_cast<unsigned long long>(last), kDamagesOfALog,
              static_cast<double>(segments) / static_cast<double>(last - first + 1));
}

// Gives the record at `place` valid checksums again.
void Restamp(std::vector<std::byte>* bytes, const Place& place) {
  std::byte* at = bytes->data() + place.offset;
  const uint32_t body = Crc32c(at + sizeof(RecordHeader), place.header.length - sizeof(RecordHeader));
  std::memcpy(at + offsetof(RecordHeader, body_crc), &body, sizeof(body));
  StampRecord(at, place.segment_id, place.offset,
              {place.header.sequence, place.header.acked_through, place.header.wall_highest_ns, place.header.removals});
}

// Spoils the last record of a text that answers (or, for removals, that does not) in one log after another, until the
// check has noticed some.
template <typename Spoil>
int Caught(RecordType type, const std::string& noticed, const Spoil& spoil) {
  int caught = 0;
  for (uint64_t seed = 1; seed <= 20 && caught == 0; ++seed) {
    DamagedShard shard(seed);
    if (!shard.Make().empty()) continue;
    for (const auto& [text, place] : shard.log().last) {
      if (place.type() != type) continue;
      std::unique_ptr<sim::SimDisk> disk = CopyOf(shard.maker().disk());
      std::vector<std::byte> bytes = disk->Bytes(PathOf(place.segment));
      spoil(bytes.data() + place.offset, place);
      Restamp(&bytes, place);
      disk->SetBytes(PathOf(place.segment), bytes);
      DamageMap damage;
      damage.Add(place.segment, place.offset, place.offset + place.header.length);
      if (shard.Check(disk.get(), damage, nullptr).find(noticed) != std::string::npos) ++caught;
    }
  }
  return caught;
}

TEST(ShardDamage, CanaryAWrongVectorIsNoticed) {
  EXPECT_GT(Caught(RecordType::kInsert, "never put",
                   [](std::byte* at, const Place&) { at[sizeof(RecordHeader) + sizeof(InsertBody)] ^= std::byte{1}; }),
            0);
}

TEST(ShardDamage, CanaryAnUndoneRemovalIsNoticed) {
  EXPECT_GT(Caught(RecordType::kErase, "although it was removed",
                   [](std::byte* at, const Place& place) { EncodeWatermark(at, place.header.length); }),
            0);
}

}  // namespace
}  // namespace sutra::test
