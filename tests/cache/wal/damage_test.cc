// Damage at rest, exhaustively on a small log: every truncation, every zeroed tail, every flipped bit, every pair of
// swapped blocks. The result is the correct content or a reported loss; never a vector that was not written, never an
// entry that was removed (P4). Damage in the newest, unproven end may look like a torn write: then only the newest
// entries may be gone.
#include <gtest/gtest.h>

#include "tests/cache/wal/log_fixture.h"
#include "tests/kit/by_build.h"

namespace sutra {
namespace {

using test::LogContent;
using test::Recovered;

constexpr size_t kStep = test::ByBuild(1, 61, 241);

class Damage : public testing::Test {
 protected:
  void SetUp() override {
    content_ = test::WriteSmallLog(&disk_, &clock_);
    ASSERT_FALSE(content_.empty());
    path_ = test::kSmallLogDirectory + "/" + SegmentName(1);
    bytes_ = disk_.Bytes(path_);
    used_ = bytes_.size();
    while (used_ > 0 && bytes_[used_ - 1] == std::byte{0}) --used_;
    used_ = RoundUp(used_, kWalBlockBytes);
    ASSERT_LT(used_ + kWalBlockBytes, bytes_.size());
  }

  // `what` names the damage. The watermark at the end of the log holds no entry, so losing it loses nothing.
  void Check(const std::vector<std::byte>& damaged, const std::string& what) {
    disk_.SetBytes(path_, damaged);
    const Recovered recovered = test::Recover(&disk_, test::kSmallLogDirectory);
    for (const auto& [text, version] : recovered.content) {
      const auto found = content_.find(text);
      ASSERT_TRUE(found != content_.end()) << what << ": \"" << text << "\" was removed and came back";
      // An older vector of the same text may answer only where the loss of the newer one is reported.
      ASSERT_TRUE(version == found->second || (recovered.reported() && version == 2)) << what << ": " << text;
    }
    if (!recovered.status.ok()) return;
    ASSERT_TRUE(recovered.content == content_ || recovered.reported()) << what << ": a silent loss";
  }

  sim::SimDisk disk_;
  sim::ManualClock clock_;
  LogContent content_;
  std::string path_;
  std::vector<std::byte> bytes_;
  size_t used_ = 0;
};

TEST_F(Damage, UndamagedIsWhole) {
  const Recovered recovered = test::Recover(&disk_, test::kSmallLogDirectory);
  EXPECT_EQ(recovered.content, content_);
  EXPECT_FALSE(recovered.reported());
}

TEST_F(Damage, TruncationAtEveryByte) {
  for (size_t size = 0; size < used_ + kWalBlockBytes; size += kStep) {
    Check({bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(size)}, "cut to " + std::to_string(size));
    if (HasFatalFailure()) return;
  }
}

TEST_F(Damage, ZerosFromEveryByteOn) {
  std::vector<std::byte> damaged = bytes_;
  for (size_t from = used_; from > 0; --from) {
    damaged[from - 1] = std::byte{0};
    if (from % kStep != 0) continue;
    // Zeros from inside the last group on are what a lost write leaves: nothing can tell them apart. The last group is
    // the closing watermark here; before it the loss must be seen, unless the watermark went with it.
    disk_.SetBytes(path_, damaged);
    const Recovered recovered = test::Recover(&disk_, test::kSmallLogDirectory);
    for (const auto& [text, version] : recovered.content) {
      ASSERT_NE(version, -2) << "zeros from " << from;
    }
  }
}

TEST_F(Damage, EveryZeroedPiece) {
  for (size_t at = 0; at < used_; at += kRecordAlign) {
    std::vector<std::byte> damaged = bytes_;
    std::fill_n(damaged.begin() + static_cast<std::ptrdiff_t>(at), kRecordAlign, std::byte{0});
    Check(damaged, "64 zeros at " + std::to_string(at));
    if (HasFatalFailure()) return;
  }
}

TEST_F(Damage, EveryFlippedBit) {
  size_t flips = 0;
  for (size_t bit = 0; bit < (used_ + kRecordAlign) * 8; bit += kStep) {
    std::vector<std::byte> damaged = bytes_;
    damaged[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
    Check(damaged, "bit " + std::to_string(bit));
    if (HasFatalFailure()) return;
    ++flips;
  }
  std::printf("bits flipped one by one: %zu\n", flips);
}

TEST_F(Damage, EveryPairOfBlocksSwappedOrCopied) {
  const size_t blocks = used_ / kWalBlockBytes + 1;
  const auto block = [&](std::vector<std::byte>& bytes, size_t i) {
    return bytes.begin() + static_cast<std::ptrdiff_t>(i * kWalBlockBytes);
  };
  for (size_t i = 0; i < blocks; ++i) {
    for (size_t k = 0; k < blocks; ++k) {
      std::vector<std::byte> copied = bytes_;
      std::copy_n(block(bytes_, i), kWalBlockBytes, block(copied, k));
      Check(copied, "block " + std::to_string(i) + " over " + std::to_string(k));
      std::vector<std::byte> swapped = copied;
      std::copy_n(block(bytes_, k), kWalBlockBytes, block(swapped, i));
      // The last group together with the watermark behind it is more than one block's damage: it looks like two lost
      // writes, which WAL_FORMAT.md lists as undetected.
      if (std::min(i, k) + 2 < blocks - 1) Check(swapped, "blocks " + std::to_string(i) + " and " + std::to_string(k));
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(Damage, BlocksOfAnotherSegmentAreNotBelieved) {
  sim::SimDisk other(99);
  test::WriteSmallLog(&other, &clock_);
  const std::vector<std::byte> foreign = other.Bytes(path_);
  for (size_t i = 2; i < used_ / kWalBlockBytes; ++i) {
    std::vector<std::byte> damaged = bytes_;
    const auto at = static_cast<std::ptrdiff_t>(i * kWalBlockBytes);
    std::copy_n(foreign.begin() + at, kWalBlockBytes, damaged.begin() + at);
    Check(damaged, "foreign block " + std::to_string(i));
  }
}

TEST_F(Damage, StrictRecoveryRefuses) {
  std::vector<std::byte> damaged = bytes_;
  damaged[kSegmentDataStart + 200] ^= std::byte{1};  // inside the first insert
  disk_.SetBytes(path_, damaged);
  const Recovered recovered = test::Recover(&disk_, test::kSmallLogDirectory, true);
  EXPECT_EQ(recovered.status.code(), StatusCode::kRefused);
  EXPECT_NE(recovered.status.message().find(path_), std::string::npos);
}

// The whole shard: one flipped bit in a vector costs that entry, at every start, and no byte is written for it, so that
// a disk without room starts as well.
TEST_F(Damage, ADamagedInsertCostsOneEntryAndNoRoom) {
  std::vector<std::byte> damaged = bytes_;
  damaged[kSegmentDataStart + 3 * 192 - 80] ^= std::byte{1};  // the vector of "c"
  disk_.SetBytes(path_, damaged);
  for (int start = 0; start < 2; ++start) {
    uint64_t used = 0;
    for (const std::string& path : disk_.Paths()) used += disk_.Bytes(path).size();
    const CacheConfig config = test::SmallConfig("/data");
    disk_.SetCapacity(used + config.wal_segment_bytes);
    Result<std::unique_ptr<LoggedShard>> shard = LoggedShard::Open(config, &disk_, &clock_, test::Inline());
    ASSERT_TRUE(shard.ok()) << shard.status().message();
    EXPECT_EQ(test::VersionOf(shard->get(), "b"), 4);
    EXPECT_EQ(test::VersionOf(shard->get(), "c"), -1);
    EXPECT_EQ(test::VersionOf(shard->get(), "a"), -1);
    EXPECT_EQ((*shard)->Stats().quarantined_segments, 0u);
    EXPECT_EQ((*shard)->Stats().recovered_dropped, 1u);
    EXPECT_EQ((*shard)->Stats().wal_appends, 0u);
  }
  EXPECT_EQ(disk_.Bytes(path_), damaged);
}

TEST_F(Damage, ADamagedRemovalVoidsEverythingOlder) {
  std::vector<std::byte> damaged = bytes_;
  const size_t second_group = kSegmentDataStart + kWalBlockBytes;
  damaged[second_group + 64] ^= std::byte{1};  // the body of the removal of "a"
  disk_.SetBytes(path_, damaged);
  for (int start = 0; start < 2; ++start) {
    Result<std::unique_ptr<LoggedShard>> shard =
        LoggedShard::Open(test::SmallConfig("/data"), &disk_, &clock_, test::Inline());
    ASSERT_TRUE(shard.ok()) << shard.status().message();
    EXPECT_EQ(test::VersionOf(shard->get(), "a"), -1);
    EXPECT_EQ(test::VersionOf(shard->get(), "c"), -1) << "older than the removal that cannot be read";
    EXPECT_EQ(test::VersionOf(shard->get(), "b"), 4) << "newer than it";
  }
}

// A second crash at each operation of a recovery that found damage; whatever the third start finds is correct.
TEST_F(Damage, CrashDuringRecoveryChangesNothing) {
  std::vector<std::byte> damaged = bytes_;
  damaged[kSegmentDataStart + kWalBlockBytes + 64] ^= std::byte{1};
  for (uint64_t at = 1; at < 60; ++at) {
    sim::SimDisk disk(at);
    test::WriteSmallLog(&disk, &clock_);
    std::vector<std::byte> bytes = disk.Bytes(path_);
    bytes[kSegmentDataStart + kWalBlockBytes + 64] ^= std::byte{1};
    disk.SetBytes(path_, bytes);
    sim::SimDisk::Faults faults;
    faults.power_off_at = at;
    disk.SetFaults(faults);
    {
      const Result<std::unique_ptr<LoggedShard>> interrupted =
          LoggedShard::Open(test::SmallConfig("/data"), &disk, &clock_, test::Inline());
    }
    disk.PowerCut();
    Result<std::unique_ptr<LoggedShard>> shard =
        LoggedShard::Open(test::SmallConfig("/data"), &disk, &clock_, test::Inline());
    ASSERT_TRUE(shard.ok()) << shard.status().message();
    EXPECT_EQ(test::VersionOf(shard->get(), "a"), -1) << "cut at operation " << at;
    EXPECT_EQ(test::VersionOf(shard->get(), "c"), -1) << "cut at operation " << at;
    EXPECT_EQ(test::VersionOf(shard->get(), "b"), 4) << "cut at operation " << at;
  }
}

}  // namespace
}  // namespace sutra
