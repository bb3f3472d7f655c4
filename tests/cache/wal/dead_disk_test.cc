// A disk that has stopped reading is not a damaged log: recovery leaves its files alone, so that everything is there
// again when the disk is.
#include <gtest/gtest.h>

#include <functional>
#include <utility>

#include "tests/cache/wal/hand_made_log.h"

namespace sutra {
namespace {

using test::Change;
using test::HandMadeLog;
using test::LogContent;
using test::Recovered;

class DeadDisk : public testing::Test {
 protected:
  void SetUp() override {
    int version = 0;
    for (uint64_t number = 1; number <= 3; ++number) {
      log_.Begin(number);
      for (int group = 0; group < 3; ++group, ++version) {
        log_.Write({{std::to_string(version), version}, {"gone", 100 + version}, {"gone"}});
        content_[std::to_string(version)] = version;
      }
    }
  }

  // Blocks from `first` on; `keep` stays readable.
  void Spoil(uint64_t number, uint64_t first, uint64_t keep = UINT64_MAX) {
    for (uint64_t block = first; block < kSegmentBytesMin / kWalBlockBytes; ++block) {
      if (block != keep) disk_.SpoilBlock(HandMadeLog::PathOf(number), block * kWalBlockBytes);
    }
  }
  void Revive() {
    for (uint64_t number = 1; number <= 3; ++number) {
      disk_.SetBytes(HandMadeLog::PathOf(number), disk_.Bytes(HandMadeLog::PathOf(number)));
    }
  }
  // The whole shard refuses and touches no file; when the disk reads again, everything is there.
  void ExpectLeftAlone() {
    const std::vector<std::string> paths = disk_.Paths();
    const Status status = LoggedShard::Open(test::SmallConfig("/data"), &disk_, &clock_, test::Inline()).status();
    EXPECT_EQ(status.code(), StatusCode::kStorageError);
    EXPECT_NE(status.message().find(test::kSmallLogDirectory + ": not one record block of its 3 segments can be read"),
              std::string::npos)
        << status.message();
    EXPECT_NE(status.message().find("check the disk"), std::string::npos) << status.message();
    std::vector<std::string> left = disk_.Paths();
    std::erase(left, test::kSmallLogDirectory + "/MODEL");
    EXPECT_EQ(left, paths);
    Revive();
    EXPECT_EQ(test::Recover(&disk_, test::kSmallLogDirectory).content, content_);
  }

  sim::SimDisk disk_;
  sim::ManualClock clock_;
  HandMadeLog log_{&disk_};
  LogContent content_;
};

TEST_F(DeadDisk, WithoutOneReadableBlockNoFileIsTouched) {
  for (uint64_t number = 1; number <= 3; ++number) Spoil(number, 0);
  ExpectLeftAlone();
}

// The headers may still be in the page cache.
TEST_F(DeadDisk, HeadersAloneProveNothing) {
  for (uint64_t number = 1; number <= 3; ++number) Spoil(number, kSegmentHeaderCopies);
  ExpectLeftAlone();
}

TEST_F(DeadDisk, OneReadableSegmentMakesTheRestDamage) {
  Spoil(1, 0);
  Spoil(3, 0);
  const Recovered recovered = test::Recover(&disk_, test::kSmallLogDirectory);
  ASSERT_TRUE(recovered.status.ok()) << recovered.status.message();
  EXPECT_TRUE(recovered.reported());
  EXPECT_EQ(recovered.plan.quarantine, (std::vector<uint64_t>{1, 2, 3}));
}

// There is no block of records that the disk could refuse to read.
TEST_F(DeadDisk, HeadersThatCannotBeReadOfFilesThatWereCutOffAreDamage) {
  for (uint64_t number = 1; number <= 3; ++number) {
    std::vector<std::byte> bytes = disk_.Bytes(HandMadeLog::PathOf(number));
    bytes.resize(kWalBlockBytes / 2);
    disk_.SetBytes(HandMadeLog::PathOf(number), bytes);
    disk_.SpoilBlock(HandMadeLog::PathOf(number), 0);
  }
  const Recovered recovered = test::Recover(&disk_, test::kSmallLogDirectory);
  ASSERT_TRUE(recovered.status.ok()) << recovered.status.message();
  EXPECT_TRUE(recovered.reported());
  EXPECT_EQ(recovered.plan.quarantine, (std::vector<uint64_t>{1, 2, 3}));
}

TEST_F(DeadDisk, ANewestSegmentThatCannotBeReadIsNotRemoved) {
  Spoil(3, kSegmentHeaderCopies);
  const Recovered recovered = test::Recover(&disk_, test::kSmallLogDirectory);
  ASSERT_TRUE(recovered.status.ok()) << recovered.status.message();
  EXPECT_TRUE(recovered.plan.remove.empty());
  EXPECT_EQ(recovered.plan.previous_number, 3u);
  LogContent older = content_;
  for (const char* text : {"6", "7", "8"}) older.erase(text);
  EXPECT_EQ(recovered.content, older);
}

// Dropping the page cache may take the header away that was just read.
class ForgettingDisk : public sim::SimDisk {
 public:
  void DropCache(FileHandle file) override {
    SimDisk::DropCache(file);
    if (forget) std::exchange(forget, nullptr)();
  }
  std::function<void()> forget;
};

TEST(DeadDiskHeader, WhatWasReadOnceIsStillKnown) {
  ForgettingDisk disk;
  HandMadeLog log(&disk);
  log.Begin(1);
  log.Write({{"a", 1}});
  log.Begin(2);
  log.Write({{"a"}, {"b", 2}});
  disk.forget = [&] {
    disk.SpoilBlock(HandMadeLog::PathOf(2), 0);
    disk.SpoilBlock(HandMadeLog::PathOf(2), kWalBlockBytes);
  };
  const Recovered recovered = test::Recover(&disk, test::kSmallLogDirectory);
  ASSERT_TRUE(recovered.status.ok()) << recovered.status.message();
  EXPECT_EQ(recovered.content, (LogContent{{"b", 2}}));
  EXPECT_TRUE(recovered.plan.remove.empty());
}

}  // namespace
}  // namespace sutra
