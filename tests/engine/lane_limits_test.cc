#include "engine/lane_limits.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "shm/layout.h"

namespace sutra {
namespace {

constexpr uint64_t kManyFiles = 1 << 20, kGibibyte = 1ull << 30;
constexpr uint32_t kWidth = 384;

class LaneLimitsTest : public ::testing::Test {
 protected:
  Result<ClientTable::Limits> Get(uint64_t files = kManyFiles) {
    return LaneLimits(config_, files, kWidth, [this](LogLevel, const std::string& line) { log_.push_back(line); });
  }
  uint64_t LaneBytes() const { return LaneGeometry{config_.slots, config_.text_bytes_max, kWidth}.charged_bytes(); }
  void ExpectError(const std::vector<std::string>& words) {
    const Result<ClientTable::Limits> limits = Get();
    EXPECT_EQ(limits.code(), StatusCode::kBadOption);
    for (const std::string& word : words) {
      EXPECT_NE(limits.status().message().find(word), std::string::npos) << word << ": " << limits.status().message();
    }
  }

  EngineConfig config_;
  std::vector<std::string> log_;
};

TEST_F(LaneLimitsTest, AClientProcessHasAQuarterAndTheOnlyUserEverything) {
  const ClientTable::Limits limits = Get().value();
  EXPECT_EQ(limits.total.lanes, 256u);
  EXPECT_EQ(limits.per_uid.lanes, 256u);
  EXPECT_EQ(limits.per_client.lanes, 64u);
  EXPECT_EQ(limits.total.bytes, 8 * kGibibyte);
  EXPECT_EQ(limits.per_uid.bytes, 8 * kGibibyte);
  EXPECT_EQ(limits.per_client.bytes, 2 * kGibibyte);
  config_.allow_uids = {geteuid()};
  EXPECT_EQ(Get().value().per_uid.lanes, 256u) << "the engine's own user is no other";
}

TEST_F(LaneLimitsTest, WhereOthersMayAttachAUserHasAnEighthUnlessItIsGiven) {
  config_.allow_gids = {5};
  EXPECT_EQ(Get().value().per_uid.lanes, 32u);
  EXPECT_EQ(Get().value().per_uid.bytes, kGibibyte);
  config_.lanes_per_uid_max = 200;
  config_.lane_bytes_per_uid_max = 3 * kGibibyte;
  EXPECT_EQ(Get().value().per_uid.lanes, 200u);
  EXPECT_EQ(Get().value().per_uid.bytes, 3 * kGibibyte);
}

TEST_F(LaneLimitsTest, ALimitOfOpenFilesLowersTheSharesWithTheTotal) {
  config_.allow_uids = {geteuid() + 1};
  const ClientTable::Limits limits = Get(64 + 6 * 40).value();
  EXPECT_EQ(limits.total.lanes, 40u);
  EXPECT_EQ(limits.per_uid.lanes, 5u) << "an eighth of what there is";
  ASSERT_EQ(log_.size(), 1u);
  EXPECT_NE(log_[0].find("40 lanes, not the 256"), std::string::npos) << log_[0];
  EXPECT_EQ(Get(1).value().total.lanes, 1u);
  EXPECT_EQ(Get(1).value().per_uid.lanes, 1u);
  config_.lanes_max_given = true;
  EXPECT_EQ(Get(64 + 6 * 40).code(), StatusCode::kBadOption);
}

TEST_F(LaneLimitsTest, ADefaultLaneFitsIntoADerivedShareHoweverLongTheTextsAre) {
  config_.allow_gids = {5};
  for (uint64_t bytes = kTextHeadBytes; bytes <= kTextBytesMaxLimit; bytes *= 2) {
    config_.text_bytes_max = static_cast<uint32_t>(bytes);
    const Result<ClientTable::Limits> limits = Get();
    ASSERT_TRUE(limits.ok()) << bytes << ": " << limits.status().message();
    EXPECT_GE(limits.value().per_client.bytes, LaneBytes()) << bytes;
    EXPECT_GE(limits.value().per_uid.bytes, LaneBytes()) << bytes;
    EXPECT_LE(limits.value().per_uid.bytes, limits.value().total.bytes) << bytes;
  }
}

TEST_F(LaneLimitsTest, ABoundThatDoesNotHoldOneLaneIsAnErrorThatNamesItAndTheFix) {
  config_.text_bytes_max = 16 << 20;
  config_.lane_bytes_per_client_max = LaneBytes();
  EXPECT_TRUE(Get().ok());
  --config_.lane_bytes_per_client_max;
  ExpectError({"256 slots", "16777216", std::to_string(LaneBytes()), std::to_string(LaneBytes() - 1),
               "--lane-bytes-per-client-max: raise", "--slots", "--text-bytes-max"});
  config_.lane_bytes_per_client_max = 0;
  config_.lane_bytes_per_uid_max = 1 << 20;
  ExpectError({"--lane-bytes-per-uid-max: raise"});
  config_.lane_bytes_per_uid_max = 0;
  config_.slots = 512;
  config_.lane_bytes_max = 16 << 20;
  ExpectError({"512 slots", "16777216 of --lane-bytes-max: raise"});
}

// What a lane is charged does not grow with slots x longest text.
TEST_F(LaneLimitsTest, ByDefaultAClientHasRoomForAllItsLanesWithTextsOfAnyLength) {
  ASSERT_EQ(config_.text_bytes_max, kTextBytesMaxLimit);
  EXPECT_GE(Get().value().per_client.bytes, config_.lanes_per_client_max * LaneBytes());
  config_.slots = kSlotsMax;
  EXPECT_LT(LaneBytes(), kTailBytesMax + (16u << 20));
}

}  // namespace
}  // namespace sutra
