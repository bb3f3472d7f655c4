#include "engine/lanes/lane_quota.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

namespace sutra {
namespace {

constexpr LaneQuota::Limits kLimits = {.lanes_max = 3, .lanes_per_uid_max = 2, .bytes_max = 1000};

std::string ErrorOf(LaneQuota* quota, uid_t uid, uint64_t bytes) {
  const Result<LaneQuota::Charge> charge = quota->Take(uid, bytes);
  EXPECT_EQ(charge.code(), StatusCode::kRefused);
  return charge.status().message();
}

TEST(LaneQuota, EachBoundNamesItsOption) {
  const auto quota = std::make_shared<LaneQuota>(kLimits);
  const LaneQuota::Charge first = quota->Take(1, 100).value();
  EXPECT_NE(ErrorOf(quota.get(), 2, 901).find("--lane-bytes-max"), std::string::npos);
  const LaneQuota::Charge second = quota->Take(1, 100).value();
  EXPECT_NE(ErrorOf(quota.get(), 1, 1).find("--lanes-per-uid-max"), std::string::npos);
  const LaneQuota::Charge third = quota->Take(2, 800).value();
  EXPECT_NE(ErrorOf(quota.get(), 3, 0).find("--lanes-max"), std::string::npos);
  EXPECT_EQ(quota->lanes(), 3u);
}

TEST(LaneQuota, AChargeIsGivenBackOnceWhereverItWent) {
  const auto quota = std::make_shared<LaneQuota>(kLimits);
  {
    LaneQuota::Charge charge = quota->Take(1, 1000).value();
    LaneQuota::Charge moved = std::move(charge);
    auto again = std::make_unique<LaneQuota::Charge>(std::move(moved));
    EXPECT_EQ(quota->lanes(), 1u);
    again.reset();
    EXPECT_EQ(quota->lanes(), 0u);
  }
  EXPECT_EQ(quota->lanes(), 0u);
  EXPECT_TRUE(quota->Take(1, 1000).ok());
}

TEST(LaneQuota, SumsOfBytesDoNotWrap) {
  const auto quota = std::make_shared<LaneQuota>(kLimits);
  const LaneQuota::Charge first = quota->Take(1, 999).value();
  EXPECT_FALSE(quota->Take(1, UINT64_MAX).ok());
  EXPECT_FALSE(quota->Take(1, UINT64_MAX - 998).ok());
  EXPECT_TRUE(quota->Take(1, 1).ok());
}

}  // namespace
}  // namespace sutra
