// A shard opened from its files alone: what it serves is what is there, and not a byte of the directory changes.
#include "cache/shard_at_rest.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>

#include "cache/disk/disk_io.h"
#include "cache/disk/disk_io_overlay.h"
#include "shm/base/clock.h"
#include "tests/cache/files_at_rest.h"
#include "tests/kit/temp_dir.h"

namespace sutra::test {
namespace {

constexpr int kEntries = 400;  // of several segments

std::string TextOf(int i) { return "text " + std::to_string(i); }

class ShardAtRest : public ::testing::Test {
 protected:
  CacheConfig Config() const {
    CacheConfig config = SmallConfig(temp_.path());
    config.wal_segment_bytes = 64 << 10;
    return config;
  }
  std::unique_ptr<CacheShard> Open(const CacheConfig& config) {
    return CacheShard::Open(config, disk_.get(), Clock::Real()).value();
  }
  void Fill() {
    const std::unique_ptr<CacheShard> shard = Open(Config());
    for (int i = 0; i < kEntries; ++i) {
      PutUnit(shard.get(), TextOf(i));
      if (i % 50 == 0) {
        ASSERT_TRUE(shard->Sync().ok());
      }
    }
    ASSERT_TRUE(shard->Erase(TextOf(7), 0).ok());
    shard->Close();
  }
  std::string Directory() const { return temp_ / kShardName; }
  IdentitySurvey Survey() const {
    return SurveyIdentity(OpenDirectory::Open(temp_.path()).value(), kShardName).value();
  }
  // What a look at the files finds, by version; and that it changed nothing.
  void ExpectFound(const std::vector<int>& texts) {
    const auto before = SnapshotOf(temp_.path());
    {
      OverlayDiskIo io;
      const Result<CacheConfig> config = ConfigAtRest(&io, Survey());
      ASSERT_TRUE(config.ok()) << config.status().message();
      const auto shard = CacheShard::Open(*config, &io, Clock::Real());
      ASSERT_TRUE(shard.ok()) << shard.status().message();
      std::vector<std::string> found, expected;
      uint64_t cursor = 0;
      ASSERT_TRUE((*shard)
                      ->Visit(CacheAdmin::Which::kAll, &cursor,
                              [&](const CacheEntry& entry) {
                                EXPECT_EQ(entry.vector, UnitVectorOf(entry.text, 1));
                                found.push_back(entry.text);
                                return true;
                              })
                      .ok());
      for (const int i : texts) expected.push_back(TextOf(i));
      std::sort(found.begin(), found.end());
      std::sort(expected.begin(), expected.end());
      EXPECT_EQ(found, expected);
      (*shard)->Close();
    }
    EXPECT_EQ(SnapshotOf(temp_.path()), before);
  }
  static std::vector<int> AllBut(int left_out) {
    std::vector<int> texts;
    for (int i = 0; i < kEntries; ++i) {
      if (i != left_out) texts.push_back(i);
    }
    return texts;
  }

  TempDir temp_;
  std::unique_ptr<DiskIo> disk_ = MakePosixDiskIo(false);
};

TEST_F(ShardAtRest, IsReadWithoutAByteOfItChanging) {
  Fill();
  EXPECT_GT(Survey().segments.size(), 1u);
  ExpectFound(AllBut(7));
}

TEST_F(ShardAtRest, IsReadWhileAShardIsOpenOnIt) {
  Fill();
  const std::unique_ptr<CacheShard> shard = Open(Config());
  ASSERT_TRUE(shard->Erase(TextOf(9), 0).ok());
  PutUnit(shard.get(), TextOf(kEntries));
  ASSERT_TRUE(shard->Sync().ok());
  OverlayDiskIo io;
  const CacheConfig config = ConfigAtRest(&io, Survey()).value();
  const auto looked = CacheShard::Open(config, &io, Clock::Real()).value();
  EXPECT_FALSE(looked->Get(TextOf(9), 0).ok());
  EXPECT_TRUE(looked->Get(TextOf(kEntries), 0).ok());
  looked->Close();
  EXPECT_EQ(VersionOf(shard.get(), "never put"), -1);
  shard->Close();
  ExpectFound([] {
    std::vector<int> texts = AllBut(7);
    std::erase(texts, 9);
    texts.push_back(kEntries);
    return texts;
  }());
}

TEST_F(ShardAtRest, ADamagedOneIsReadAsFarAsItGoes) {
  Fill();
  const std::string first = Directory() + "/" + SegmentName(Survey().segments.front());
  const std::string bytes = BytesOfFile(first);
  FlipBit(first, bytes.find(TextOf(3) + std::string(1, '\0')));
  const auto before = SnapshotOf(temp_.path());
  OverlayDiskIo io;
  const auto shard = CacheShard::Open(ConfigAtRest(&io, Survey()).value(), &io, Clock::Real()).value();
  EXPECT_FALSE(shard->Get(TextOf(3), 0).ok());
  EXPECT_TRUE(shard->Get(TextOf(4), 0).ok());
  shard->Close();
  EXPECT_EQ(SnapshotOf(temp_.path()), before);
}

TEST_F(ShardAtRest, WithoutItsModelFileTheSegmentsSayWhoseItIs) {
  Fill();
  std::filesystem::remove(Directory() + "/MODEL");
  OverlayDiskIo io;
  const ShardDirectory model = ModelAtRest(&io, Survey()).value();
  EXPECT_EQ(model.model_identity, kIdentity);
  EXPECT_EQ(model.width, kWidth);
  EXPECT_EQ(model.model_name, "");
  ExpectFound(AllBut(7));
  EXPECT_FALSE(std::filesystem::exists(Directory() + "/MODEL"));
}

TEST_F(ShardAtRest, WithoutAnythingThatSaysWhoseItIsItIsRefused) {
  std::filesystem::create_directory(Directory());
  OverlayDiskIo io;
  EXPECT_EQ(ModelAtRest(&io, Survey()).code(), StatusCode::kStorageError);
  EXPECT_EQ(ConfigAtRest(&io, Survey()).code(), StatusCode::kStorageError);
}

TEST_F(ShardAtRest, ASegmentOfItIsTheSizeOfTheNextOne) {
  Fill();
  OverlayDiskIo io;
  const CacheConfig config = ConfigAtRest(&io, Survey()).value();
  EXPECT_EQ(config.wal_segment_bytes, Config().wal_segment_bytes);
  EXPECT_EQ(config.model_name, "test model");
  EXPECT_EQ(config.directory, temp_.path());
}

}  // namespace
}  // namespace sutra::test
