// Commands about the caches in a data directory that nobody serves.
#include "tests/engine/control/cache_commands_fixture.h"

namespace sutra::test {
namespace {

TEST_F(CacheCommandsTest, IdentitiesAreListedAndAnotherOnesIsDropped) {
  const std::string other = MakeOther('0');
  json list = json::parse(PayloadOf(Run(Command::kCacheIdentities)));
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0]["identity"], other);
  EXPECT_EQ(list[0]["model"], "other");
  EXPECT_EQ(list[0]["served"], false);
  EXPECT_EQ(list[1]["served"], true);
  const CacheReply dropped = Run(Command::kCacheDropIdentity, {}, {}, other);
  ASSERT_TRUE(dropped.status.ok()) << dropped.status.message();
  EXPECT_EQ(dropped.body.bytes, list[0]["bytes"]);
  EXPECT_FALSE(fs::exists(temp_ / other.substr(0, 16)));
  EXPECT_FALSE(fs::exists(temp_ / (other.substr(0, 16) + ".removing")));
  list = json::parse(PayloadOf(Run(Command::kCacheIdentities)));
  EXPECT_EQ(list.size(), 1u);
  EXPECT_EQ(Run(Command::kCacheDropIdentity, {}, {}, other).status.code(), StatusCode::kBadOption);
}

TEST_F(CacheCommandsTest, ADropFinishesWhatAnEarlierOneLeft) {
  const std::string other = MakeOther('0');
  const fs::path path(temp_ / other.substr(0, 16));
  fs::rename(path, path.string() + ".removing");
  static_cast<void>(MakeOther('0'));
  EXPECT_TRUE(Run(Command::kCacheDropIdentity, {}, {}, other.substr(0, 16)).status.ok());
  EXPECT_FALSE(fs::exists(path) || fs::exists(path.string() + ".removing"));
}

TEST_F(CacheCommandsTest, WhatIsServedOrNoCacheIsNotDropped) {
  Put("text");
  EXPECT_EQ(Run(Command::kCacheDropIdentity, {}, {}, config_.model_identity).status.code(), StatusCode::kRefused);
  EXPECT_EQ(Run(Command::kCacheDropIdentity, {}, {}, std::string(16, 'a')).status.code(), StatusCode::kRefused);
  EXPECT_TRUE(Has("text"));
  const std::string other = MakeOther('0');
  std::string another = other;
  another.back() = 'f';
  EXPECT_EQ(Run(Command::kCacheDropIdentity, {}, {}, another).status.code(), StatusCode::kBadOption);
  std::ofstream(temp_ / (other.substr(0, 16) + "/precious")) << "mine";
  EXPECT_EQ(Run(Command::kCacheDropIdentity, {}, {}, other).status.code(), StatusCode::kRefused);
  EXPECT_TRUE(fs::exists(temp_ / (other.substr(0, 16) + "/precious")));
}

}  // namespace
}  // namespace sutra::test
