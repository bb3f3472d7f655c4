// Caches of other models in a data directory: named, removed when they have expired, bounded, and nothing else touched.
#include "cache/other_identities.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>

#include "cache/wal/believed_time.h"
#include "tests/cache/old_identity.h"
#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

namespace fs = std::filesystem;
using test::OldConfig;
using test::ServeOnce;

constexpr uint64_t kHourNs = 3600 * kNsPerSecond;

class OtherIdentitiesTest : public ::testing::Test {
 protected:
  OtherIdentitiesTest() {
    served_ = ServeOnce(OldConfig(data(), '1'), {{"served", 60}});
    Start();
  }
  const std::string& data() const { return temp_.path(); }
  // A new engine's.
  void Start(uint64_t bytes_max = UINT64_MAX) {
    others_.emplace(OtherIdentities::Options{.data = data(),
                                             .served = served_,
                                             .bytes_max = bytes_max,
                                             .may_go_on = [this] { return may_go_on_(); },
                                             .clock = &clock_,
                                             .log =
                                                 [this](LogLevel level, const std::string& line) {
                                                   levels_.push_back(level);
                                                   lines_.push_back(line);
                                                 }});
  }
  // The clock keeps its time for as long as it takes to be believed.
  void Advance(uint64_t ns) { clock_.Advance(ns); }
  bool There(const std::string& name) const { return fs::exists(temp_ / name); }
  size_t Said(const std::string& words) const {
    size_t count = 0;
    for (const std::string& line : lines_) count += line.find(words) != std::string::npos ? 1 : 0;
    return count;
  }
  std::string AllSaid() const {
    std::string all;
    for (const std::string& line : lines_) all += line + "\n";
    return all;
  }
  // Sets the last use of all files of an identity back.
  void SetUsed(const std::string& name, uint64_t ago_ns) const {
    const timespec time = ToTimespec(clock_.WallNs() - ago_ns);
    const timespec times[2] = {time, time};
    for (const auto& entry : fs::directory_iterator(temp_ / name)) {
      ASSERT_EQ(utimensat(AT_FDCWD, entry.path().c_str(), times, 0), 0);
    }
  }
  // A directory of somebody else's, with names that a shard gives.
  std::string Precious() const {
    temp_.Write("precious/MODEL", "precious");
    return temp_ / "precious";
  }
  static int ReadFirst(const std::string& path) { return std::ifstream(path).get(); }
  uint64_t BytesOf(const std::string& name) const {
    const OpenDirectory data = OpenDirectory::Open(temp_.path()).value();
    return SurveyIdentity(data, name).value().bytes;
  }

  const test::TempDir temp_;
  sim::ManualClock clock_{WallNs()};
  std::string served_;
  std::function<bool()> may_go_on_ = [] { return true; };
  std::vector<std::string> lines_;
  std::vector<LogLevel> levels_;  // of the lines
  std::optional<OtherIdentities> others_;
};

TEST_F(OtherIdentitiesTest, EachIsNamedOnceWithItsModelSizeAndAge) {
  const std::string a = ServeOnce(OldConfig(data(), 'a'), {{"t", 86'400}}, clock_.WallNs() - 5 * kHourNs);
  const std::string b = ServeOnce(OldConfig(data(), 'b'), {{"t", 86'400}});
  others_->Look();
  others_->Look();
  ASSERT_EQ(lines_.size(), 2u) << AllSaid();
  EXPECT_EQ(levels_[0], LogLevel::kInfo);
  EXPECT_EQ(lines_[0], "the data directory also holds the cache of model model a at " + (temp_ / a) +
                           ", 1 MiB, newest entry 5 h ago; it is removed when all have expired, not before 19 h from "
                           "now. If it is not needed any more: rm -r " +
                           (temp_ / a));
  EXPECT_NE(lines_[1].find("model b at " + (temp_ / b)), std::string::npos);
  EXPECT_EQ(others_->figures().identities, 2u);
  EXPECT_EQ(others_->figures().bytes, BytesOf(a) + BytesOf(b));
  EXPECT_EQ(others_->figures().removed, 0u);
}

TEST_F(OtherIdentitiesTest, OneGoesOnceItsLastEntryHasExpiredAndNotBefore) {
  const std::string a = ServeOnce(OldConfig(data(), 'a'), {{"short", 60}, {"long", 3600}}, clock_.WallNs());
  others_->Look();
  Advance(kHourNs);
  others_->Look();
  EXPECT_TRUE(There(a)) << "clocks that agree may be a minute apart";
  Advance(kClockNearNs);
  others_->Look();
  EXPECT_FALSE(There(a));
  EXPECT_FALSE(There(a + ".removing"));
  EXPECT_EQ(Said("removed the cache of model model a"), 1u) << AllSaid();
  EXPECT_EQ(others_->figures().removed, 1u);
  EXPECT_EQ(others_->figures().identities, 0u);
  EXPECT_EQ(others_->figures().bytes, 0u);
  EXPECT_TRUE(There(served_)) << "its entry has expired, too, but it is served";
}

TEST_F(OtherIdentitiesTest, AClockThatHasJustJumpedExpiresNothing) {
  const std::string a = ServeOnce(OldConfig(data(), 'a'), {{"t", 3600}}, clock_.WallNs());
  others_->Look();
  clock_.SetWall(clock_.WallNs() + 1000 * kHourNs);
  others_->Look();
  Advance(kClockHoldNs - kNsPerSecond);
  others_->Look();
  EXPECT_TRUE(There(a));
  clock_.SetWall(clock_.WallNs() - 1000 * kHourNs);  // it was wrong
  others_->Look();
  Advance(kClockHoldNs);
  others_->Look();
  EXPECT_TRUE(There(a));
  clock_.SetWall(clock_.WallNs() + 1000 * kHourNs);  // and now it has kept the new time
  others_->Look();
  Advance(kClockHoldNs);
  others_->Look();
  EXPECT_FALSE(There(a));
}

TEST_F(OtherIdentitiesTest, AtAStartNothingExpiresBeforeTheClockIsBelieved) {
  const std::string a = ServeOnce(OldConfig(data(), 'a'), {{"t", 60}}, clock_.WallNs() - 48 * kHourNs);
  others_->Look();
  EXPECT_TRUE(There(a));
  EXPECT_EQ(Said("all expired: it is removed when the clock has kept its time for 5 min"), 1u) << AllSaid();
  Advance(kClockHoldNs);
  others_->Look();
  EXPECT_FALSE(There(a));
}

TEST_F(OtherIdentitiesTest, OneWithoutEntriesGoesAtOnce) {
  const std::string a = ServeOnce(OldConfig(data(), 'a'), {});
  others_->Look();
  EXPECT_FALSE(There(a));
  EXPECT_EQ(Said("it held no entries"), 1u) << AllSaid();
}

TEST_F(OtherIdentitiesTest, OneThatCannotBeReadStaysForTheLongestLifetime) {
  const std::string a = ServeOnce(OldConfig(data(), 'a'), {{"t", 60}});
  unlink((temp_ / (a + "/MODEL")).c_str());
  others_->Look();
  EXPECT_EQ(Said("an unknown model"), 1u) << AllSaid();
  EXPECT_EQ(Said("cannot be told, so it stays"), 1u);
  Advance((kTtlSecondsMax - 3600) * kNsPerSecond);
  others_->Look();
  EXPECT_TRUE(There(a));
  Advance(2 * kHourNs);
  others_->Look();
  EXPECT_FALSE(There(a));
}

TEST_F(OtherIdentitiesTest, OverTheBoundTheLongestUnusedGoesFirstAndWholly) {
  std::vector<std::string> names;
  for (const char digit : {'a', 'b', 'c'}) names.push_back(ServeOnce(OldConfig(data(), digit), {{"t", 86'400}}));
  SetUsed(names[0], 2 * kHourNs);
  SetUsed(names[1], 9 * kHourNs);
  SetUsed(names[2], 5 * kHourNs);
  SetUsed(served_, 20 * kHourNs);  // never touched, however old its files are
  Start(BytesOf(served_) + 2 * BytesOf(names[0]));
  others_->Look();
  EXPECT_TRUE(There(names[0]) && !There(names[1]) && There(names[2]) && There(served_));
  EXPECT_EQ(Said("it was last used 9 h ago, and all caches in " + data()), 1u) << AllSaid();
  EXPECT_EQ(Said("raise --data-bytes-max"), 1u);
  EXPECT_EQ(levels_.back(), LogLevel::kWarn);
  EXPECT_EQ(others_->figures().identities, 2u);
  EXPECT_EQ(others_->figures().bytes, 2 * BytesOf(names[0]));
  Start(1);
  others_->Look();
  EXPECT_TRUE(!There(names[0]) && !There(names[2]) && There(served_));
  EXPECT_EQ(Said("none of them may be removed"), 1u) << AllSaid();
  others_->Look();
  EXPECT_EQ(Said("none of them may be removed"), 1u) << "once is enough";
}

TEST_F(OtherIdentitiesTest, WithinTheBoundNothingGoes) {
  const std::string a = ServeOnce(OldConfig(data(), 'a'), {{"t", 86'400}});
  Start(BytesOf(served_) + BytesOf(a));
  others_->Look();
  EXPECT_TRUE(There(a));
}

// Weights that can be prepared again in seconds go before vectors that cost hours.
TEST_F(OtherIdentitiesTest, PreparedWeightsCountTowardsTheBoundAndGoFirst) {
  const std::string a = ServeOnce(OldConfig(data(), 'a'), {{"t", 86'400}});
  const auto weights = [](const std::string& cache) { return "packed/" + cache + std::string(48, '0') + ".int8"; };
  for (const std::string& cache : {a, served_}) temp_.Write(weights(cache), std::string(1 << 20, 'w'));
  const uint64_t caches = BytesOf(served_) + BytesOf(a);
  Start(caches + (2u << 20) + (1u << 16));
  others_->Look();
  EXPECT_TRUE(There(a) && There(weights(a)) && There(weights(served_)));
  EXPECT_GE(others_->figures().bytes, BytesOf(a) + (1u << 20));
  EXPECT_LT(others_->figures().bytes, BytesOf(a) + (2u << 20)) << "without those that are served";
  Start(caches + (1u << 20) + (1u << 16));
  others_->Look();
  EXPECT_TRUE(There(a) && !There(weights(a)) && There(weights(served_))) << AllSaid();
  EXPECT_EQ(Said("prepared for int8, " + (temp_ / weights(a)) + ", 1 MiB: all caches in " + data()), 1u) << AllSaid();
  Start(caches + (1u << 16));
  others_->Look();
  EXPECT_TRUE(!There(a) && There(weights(served_))) << "those that are served count, too";
}

TEST_F(OtherIdentitiesTest, PreparedWeightsGoWithTheirCache) {
  const std::string a = ServeOnce(OldConfig(data(), 'a'), {{"t", 60}}, clock_.WallNs());
  const std::string weights = "packed/" + a + std::string(48, '0') + ".int8";
  temp_.Write(weights, "weights");
  others_->Look();
  EXPECT_TRUE(There(weights));
  Advance(2 * kHourNs);
  others_->Look();
  EXPECT_TRUE(!There(a) && !There(weights)) << AllSaid();
}

TEST_F(OtherIdentitiesTest, WhatLiesAmongPreparedWeightsIsSaidOnceAndLeftAlone) {
  temp_.Write("packed/thesis", "the only copy");
  Start(1);
  others_->Look();
  others_->Look();
  EXPECT_TRUE(There("packed/thesis"));
  EXPECT_EQ(Said("/packed holds a regular file 'thesis', which no engine made there"), 1u) << AllSaid();
}

TEST_F(OtherIdentitiesTest, WhatIsNotOursIsSaidAndLeftAlone) {
  const test::TempDir elsewhere;
  elsewhere.Write("wal-0000000000000001.log", "precious");
  const std::string a = ServeOnce(OldConfig(data(), 'a'), {});
  temp_.Write(a + "/thesis.txt", "the only copy");
  fs::create_directory_symlink(elsewhere.path(), temp_ / "0123456789abcdef");
  temp_.Write("fedcba9876543210", "a file");
  const std::string b = ServeOnce(OldConfig(data(), 'b'), {});
  fs::create_symlink(elsewhere / "wal-0000000000000001.log", temp_ / (b + "/wal-00000000000000ff.log"));
  fs::create_directory(temp_ / "not one of ours");
  Start(1);
  others_->Look();
  Advance(20ull * 365 * 24 * kHourNs);
  others_->Look();
  EXPECT_TRUE(There(a + "/thesis.txt") && There(a + "/MODEL"));
  EXPECT_TRUE(fs::is_symlink(temp_ / "0123456789abcdef"));
  EXPECT_TRUE(There("fedcba9876543210") && There(b + "/MODEL") && There("not one of ours"));
  EXPECT_EQ(fs::file_size(elsewhere / "wal-0000000000000001.log"), 8u);
  EXPECT_EQ(Said("is left alone: it holds a regular file 'thesis.txt'"), 1u) << AllSaid();
  EXPECT_EQ(Said("0123456789abcdef is named like the cache of a model, but is left alone"), 1u);
  EXPECT_EQ(Said("fedcba9876543210"), 1u);
  EXPECT_EQ(Said("a symbolic link 'wal-00000000000000ff.log'"), 1u);
  EXPECT_EQ(Said("not one of ours"), 0u);
}

TEST_F(OtherIdentitiesTest, AModelsNameCannotForgeALine) {
  CacheConfig config = OldConfig(data(), 'a');
  config.model_name = "evil\rnext \x1b[2J";
  ServeOnce(config, {{"t", 60}});
  others_->Look();
  ASSERT_EQ(lines_.size(), 1u);
  for (const char c : lines_[0]) EXPECT_GE(c, ' ');
}

TEST_F(OtherIdentitiesTest, WhatALostLockOrAStopFindsIsLeftAsItIs) {
  const std::string a = ServeOnce(OldConfig(data(), 'a'), {});
  may_go_on_ = [] { return false; };
  others_->Look();
  EXPECT_TRUE(There(a + "/MODEL"));
  may_go_on_ = [] { return true; };
  others_->Look();
  EXPECT_FALSE(There(a));
}

// Every look is cut short after one step more than the one before; the identity is whole, or it is no model's any more.
TEST_F(OtherIdentitiesTest, ARemovalThatIsCutShortAnywhereIsEndedByTheNextEngine) {
  bool cut = true;
  int halves = 0;
  for (int steps = 1; cut; ++steps) {
    ASSERT_LT(steps, 100);
    const CacheConfig config = OldConfig(data(), 'a');
    std::vector<test::OldEntry> entries;
    for (int i = 0; i < 1200; ++i) entries.push_back({"text " + std::to_string(i), 60});
    const std::string a = ServeOnce(config, entries, clock_.WallNs());
    Start(1);
    int left = steps;
    cut = false;
    may_go_on_ = [&] {
      cut = cut || left == 0;
      return !cut && left-- > 0;
    };
    others_->Look();
    may_go_on_ = [] { return true; };
    if (There(a)) {
      EXPECT_EQ(test::FoundLater(config, entries, clock_.WallNs() + 1), entries.size()) << "half of it after " << steps;
    }
    halves += There(a + ".removing") ? 1 : 0;
    Start(1);
    others_->Look();
    EXPECT_FALSE(There(a));
    EXPECT_FALSE(There(a + ".removing"));
  }
  EXPECT_GT(halves, 2) << "the canary: some were cut short in the middle";
}

TEST_F(OtherIdentitiesTest, TheIdentityMayComeBackWhileWhatIsLeftOfItWaits) {
  const CacheConfig config = OldConfig(data(), 'a');
  const std::string a = ServeOnce(config, {{"old", 60}}, clock_.WallNs());
  fs::rename(temp_ / a, temp_ / (a + ".removing"));
  ServeOnce(config, {{"new", 3600}}, clock_.WallNs());
  others_->Look();
  EXPECT_TRUE(There(a));
  EXPECT_FALSE(There(a + ".removing"));
  EXPECT_EQ(test::FoundLater(config, {{"old", 0}, {"new", 0}}, clock_.WallNs() + 1), 1u);
}

TEST_F(OtherIdentitiesTest, WhatIsPutIntoALeftOverStaysAndIsSaidOnce) {
  const std::string a = ServeOnce(OldConfig(data(), 'a'), {{"t", 60}});
  fs::rename(temp_ / a, temp_ / (a + ".removing"));
  temp_.Write(a + ".removing/thesis.txt", "the only copy");
  others_->Look();
  others_->Look();
  EXPECT_TRUE(There(a + ".removing/thesis.txt"));
  EXPECT_EQ(Said("thesis.txt"), 1u) << AllSaid();
}

TEST_F(OtherIdentitiesTest, ALinkInTheLeftOversPlaceIsNotFollowed) {
  const test::TempDir elsewhere;
  elsewhere.Write("wal-0000000000000001.log", "precious");
  fs::create_directory_symlink(elsewhere.path(), temp_ / "0123456789abcdef.removing");
  others_->Look();
  EXPECT_TRUE(fs::exists(elsewhere / "wal-0000000000000001.log"));
  EXPECT_TRUE(fs::is_symlink(temp_ / "0123456789abcdef.removing"));
}

// Whoever may write in DATA puts something else into the name's place at the worst moment.
TEST_F(OtherIdentitiesTest, ADirectoryThatIsExchangedForAnotherBeforeItsRemovalIsPutBack) {
  const test::TempDir elsewhere;
  elsewhere.Write("wal-0000000000000001.log", "precious");
  for (const bool link : {false, true}) {
    const std::string a = ServeOnce(OldConfig(data(), 'a'), {});
    // Asked before the survey and once more before the rename; the directory is exchanged in between.
    int asked = 0;
    may_go_on_ = [&, link] {
      if (fs::exists(temp_ / a) && !fs::exists(temp_ / "away") && ++asked > 1) {
        fs::rename(temp_ / a, temp_ / "away");
        link ? fs::create_directory_symlink(elsewhere.path(), temp_ / a) : fs::rename(Precious(), temp_ / a);
      }
      return true;
    };
    others_->Look();
    EXPECT_TRUE(There("away")) << "the canary: it was exchanged";
    EXPECT_EQ(ReadFirst(link ? elsewhere / "wal-0000000000000001.log" : temp_ / (a + "/MODEL")), 'p');
    EXPECT_TRUE(There("away/MODEL")) << "and what was meant is whole, too";
    fs::remove_all(temp_ / "away");
    fs::remove_all(temp_ / a);
    fs::remove_all(temp_ / (a + ".removing"));
    Start();
  }
}

}  // namespace
}  // namespace sutra
