// What a directory of an unserved identity says about itself, and when its last entry expires.
#include "cache/identity_survey.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "cache/wal/believed_time.h"
#include "tests/cache/old_identity.h"
#include "tests/cache/wal/without_index.h"
#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

namespace fs = std::filesystem;
using test::OldEntry;

constexpr uint64_t kHourNs = 3600 * kNsPerSecond;

class IdentitySurveyTest : public ::testing::Test {
 protected:
  // As read at `now_ns`: 0 reads everything.
  IdentitySurvey Read(const std::string& name, uint64_t now_ns = UINT64_MAX) const {
    const OpenDirectory data = OpenDirectory::Open(temp_.path()).value();
    IdentitySurvey survey = SurveyIdentity(data, name).value();
    const std::unique_ptr<DiskIo> io = MakePosixDiskIo(false);
    ReadExpiry(
        data, io.get(), now_ns, [] { return true; }, &survey);
    return survey;
  }
  CacheConfig Config() const {
    CacheConfig config = test::OldConfig(temp_.path(), 'a');
    config.wal_bytes_max = 4 << 20;
    return config;
  }
  std::string File(const std::string& name, uint64_t segment) const {
    return temp_ / (name + "/" + SegmentName(segment));
  }
  // A segment whose records alone tell what is in it.
  FILE* OpenWithoutIndex(const std::string& name, uint64_t segment) const {
    const std::string path = name + "/" + SegmentName(segment);
    std::ifstream in(temp_ / path, std::ios::binary);
    std::string bytes{std::istreambuf_iterator<char>(in), {}};
    test::ZeroIndex(&bytes);
    temp_.Write(path, bytes);
    return std::fopen(File(name, segment).c_str(), "r+");
  }

  const test::TempDir temp_;
  const uint64_t now_ns_ = WallNs();
};

TEST_F(IdentitySurveyTest, SaysWhoseItIsHowLargeAndWhenItsLastEntryExpires) {
  const std::string name = test::ServeOnce(Config(), {{"a", 3600}, {"b", 7200}, {"c", 60}}, now_ns_);
  const IdentitySurvey survey = Read(name);
  EXPECT_EQ(survey.foreign, "");
  EXPECT_EQ(survey.model.model_name, "model a");
  EXPECT_EQ(survey.model.model_identity, Config().model_identity);
  EXPECT_EQ(survey.model.width, test::kWidth);
  EXPECT_GE(survey.bytes, 64u << 10);
  EXPECT_GT(survey.used_ns, now_ns_ - kHourNs);
  EXPECT_EQ(survey.expiry.records, 3u);
  EXPECT_EQ(survey.expiry.record_newest_ns, now_ns_);
  EXPECT_TRUE(survey.expiry.known);
  EXPECT_TRUE(survey.whole);
  EXPECT_EQ(survey.ExpiryNs(), now_ns_ + 7200 * kNsPerSecond);
  EXPECT_FALSE(survey.IsEmpty());
}

// The invariant: nothing that a start would bring back expires after what is said here.
TEST_F(IdentitySurveyTest, NoEntryOutlivesWhatIsSaidWhateverWasStored) {
  std::mt19937_64 random(test::TestSeed());
  for (int run = 0; run < 8; ++run) {
    const CacheConfig config = test::OldConfig(temp_.path(), static_cast<char>('0' + run));
    std::vector<OldEntry> entries;
    for (int i = 0; i < 1500; ++i) entries.push_back({"text " + std::to_string(i), 60 + random() % 100'000});
    const std::string name = test::ServeOnce(config, entries, now_ns_);
    const IdentitySurvey survey = Read(name);
    ASSERT_TRUE(survey.expiry.known && survey.whole);
    ASSERT_GT(survey.segments.size(), 2u);
    EXPECT_GT(test::FoundLater(config, entries, now_ns_ + kNsPerSecond), 0u) << "the canary: they are there before";
    EXPECT_EQ(test::FoundLater(config, entries, survey.ExpiryNs()), 0u);
  }
}

TEST_F(IdentitySurveyTest, ReadsNoFurtherThanToAnEntryThatLives) {
  std::vector<OldEntry> entries;
  for (int i = 0; i < 2000; ++i) entries.push_back({"text " + std::to_string(i), 3600});
  const std::string name = test::ServeOnce(Config(), entries, now_ns_);
  const IdentitySurvey alive = Read(name, now_ns_);
  EXPECT_FALSE(alive.whole);
  EXPECT_GT(alive.ExpiryNs(), now_ns_);
  EXPECT_LT(alive.expiry.records, 1900u);
  EXPECT_EQ(Read(name).expiry.records, 2000u);
}

TEST_F(IdentitySurveyTest, ADirectoryWithoutEntriesIsEmptyAndOneThatCannotBeReadIsNot) {
  const std::string name = test::ServeOnce(Config(), {});
  EXPECT_TRUE(Read(name).IsEmpty());
  const std::string with = test::ServeOnce(test::OldConfig(temp_.path(), 'b'), {{"t", 60}});
  for (const char* model : {"", "identity 12\n"}) {
    temp_.Write(with + "/MODEL", model);
    const IdentitySurvey survey = Read(with);
    EXPECT_FALSE(survey.IsEmpty());
    if (!survey.foreign.empty()) continue;
    EXPECT_GT(survey.ExpiryNs(), now_ns_ + kTtlSecondsMax / 2 * kNsPerSecond);
  }
  unlink((temp_ / (with + "/MODEL")).c_str());
  EXPECT_FALSE(Read(with).IsEmpty());
  fs::create_directory(temp_ / "0123456789abcdef");
  EXPECT_TRUE(Read("0123456789abcdef").IsEmpty());
}

TEST_F(IdentitySurveyTest, DamageCostsNoEntryThatIsStillThere) {
  std::vector<OldEntry> entries;
  for (int i = 0; i < 300; ++i) entries.push_back({"text " + std::to_string(i), i == 250 ? 7200u : 60u});
  const std::string name = test::ServeOnce(Config(), entries, now_ns_);
  const IdentitySurvey whole = Read(name);
  ASSERT_EQ(whole.expiry.records, 300u);
  const uint64_t segment = whole.segments.front();
  FILE* const file = OpenWithoutIndex(name, segment);
  ASSERT_NE(file, nullptr);
  ASSERT_EQ(std::fseek(file, 3 * 4096 + 70, SEEK_SET), 0);
  std::fputs("damage", file);
  std::fclose(file);
  const IdentitySurvey damaged = Read(name);
  EXPECT_LT(damaged.expiry.records, 300u);
  EXPECT_EQ(damaged.ExpiryNs(), whole.ExpiryNs());
}

// A log in a format that this reader takes for its own, and finds nothing in.
TEST_F(IdentitySurveyTest, ASegmentInWhichNothingCanBeReadIsNotEmpty) {
  const std::string name = test::ServeOnce(Config(), {{"t", 60}});
  const uint64_t segment = Read(name).segments.back();
  FILE* const file = OpenWithoutIndex(name, segment);
  ASSERT_NE(file, nullptr);
  ASSERT_EQ(std::fseek(file, static_cast<long>(kSegmentDataStart), SEEK_SET), 0);
  for (int i = 0; i < 16; ++i) std::fputs("something else; ", file);
  std::fclose(file);
  const IdentitySurvey survey = Read(name);
  EXPECT_FALSE(survey.IsEmpty());
  EXPECT_FALSE(survey.expiry.known);
}

TEST_F(IdentitySurveyTest, ALogFromBeforeTheClockWasSetNeverExpires) {
  const std::string name = test::ServeOnce(Config(), {{"t", 60}}, 1000 * kNsPerSecond);
  timespec times[2] = {{1000, 0}, {1000, 0}};
  for (const auto& entry : fs::directory_iterator(temp_ / name)) {
    ASSERT_EQ(utimensat(AT_FDCWD, entry.path().c_str(), times, 0), 0);
  }
  EXPECT_EQ(Read(name).ExpiryNs(), UINT64_MAX);
}

TEST_F(IdentitySurveyTest, WhatNoEngineMadeIsForeign) {
  const auto foreign = [&](const std::string& name) { return Read(name).foreign; };
  const std::string name = test::ServeOnce(Config(), {{"t", 60}});
  EXPECT_EQ(foreign(name), "");
  for (const char* known : {"MODEL.tmp", "reserve.tmp", "wal-0000000000000001.log.quarantined"}) {
    temp_.Write(name + "/" + known, "x");
    EXPECT_EQ(foreign(name), "") << known;
  }
  for (const char* unknown : {"notes", "wal-1.log", "MODEL.old", ".hidden"}) {
    temp_.Write(name + "/" + unknown, "x");
    EXPECT_NE(foreign(name).find(unknown), std::string::npos);
    unlink((temp_ / (name + "/" + unknown)).c_str());
  }
  fs::create_directory(temp_ / (name + "/wal-00000000000000ff.log"));
  EXPECT_NE(foreign(name).find("a directory"), std::string::npos);
  fs::remove(temp_ / (name + "/wal-00000000000000ff.log"));
  fs::create_symlink("/etc/passwd", temp_ / (name + "/wal-00000000000000ff.log"));
  EXPECT_NE(foreign(name).find("a symbolic link"), std::string::npos);
  fs::remove(temp_ / (name + "/wal-00000000000000ff.log"));
  fs::rename(temp_ / name, temp_ / "ffffffffffffffff");
  EXPECT_NE(foreign("ffffffffffffffff").find("another identity"), std::string::npos);
  fs::create_directory_symlink("/", temp_ / "eeeeeeeeeeeeeeee");
  EXPECT_NE(foreign("eeeeeeeeeeeeeeee").find("no directory"), std::string::npos);
}

}  // namespace
}  // namespace sutra
