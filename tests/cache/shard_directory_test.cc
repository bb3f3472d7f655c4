// The directory of a shard: what is created, what is removed, which model it belongs to, and what survives a power cut.
#include "cache/shard_directory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>

#include "cache/disk/disk_io.h"
#include "cache/wal/wal_format.h"
#include "tests/cache/cache_test_support.h"
#include "tests/kit/temp_dir.h"
#include "tests/sim/sim_disk.h"

namespace sutra {
namespace {

const std::string kPath = "/data/" + test::kShardName;

ShardDirectory Mine() { return ShardDirectory{"/data", test::kIdentity, "test model", test::kWidth}; }

class ShardDirectoryTest : public testing::Test {
 protected:
  Result<ShardFiles> Prepare(const ShardDirectory& directory = Mine()) {
    return PrepareShardDirectory(&disk_, directory, [this](LogLevel level, const std::string& line) {
      levels_.push_back(level);
      lines_.push_back(line);
    });
  }
  std::string Model() const {
    const std::vector<std::byte> bytes = disk_.Bytes(kPath + "/MODEL");
    std::string text(bytes.size(), '\0');
    std::transform(bytes.begin(), bytes.end(), text.begin(), [](std::byte b) { return static_cast<char>(b); });
    return text;
  }
  void WriteFile(const std::string& name, const std::string& text) {
    std::vector<std::byte> bytes(text.size());
    std::transform(text.begin(), text.end(), bytes.begin(), [](char c) { return static_cast<std::byte>(c); });
    disk_.SetBytes(kPath + "/" + name, bytes);
  }

  sim::SimDisk disk_;
  std::vector<std::string> lines_;
  std::vector<LogLevel> levels_;  // of the lines
};

TEST_F(ShardDirectoryTest, IsMadeWithAFileThatSaysWhoseItIs) {
  const Result<ShardFiles> files = Prepare();
  ASSERT_TRUE(files.ok()) << files.status().message();
  EXPECT_EQ(files->path, kPath);
  EXPECT_EQ(files->segments, 0u);
  EXPECT_EQ(Model(), "identity " + test::kIdentity + "\nwidth 16\nname test model\n");
  EXPECT_EQ(disk_.Paths(), std::vector<std::string>{kPath + "/MODEL"});
  EXPECT_TRUE(lines_.empty());
  EXPECT_TRUE(Prepare().ok()) << "it is its own the next time";
}

TEST_F(ShardDirectoryTest, ItsModelIsWholeOrMissingAfterAPowerCutAtAnyMoment) {
  for (uint64_t at = 1;; ++at) {
    sim::SimDisk disk(at);
    sim::SimDisk::Faults faults;
    faults.power_off_at = at;
    disk.SetFaults(faults);
    const bool prepared = PrepareShardDirectory(&disk, Mine(), {}).ok();
    disk.PowerCut();
    const Result<ShardFiles> again = PrepareShardDirectory(&disk, Mine(), {});
    ASSERT_TRUE(again.ok()) << "cut at operation " << at << ": " << again.status().message();
    if (prepared) {
      EXPECT_GT(at, 8u);
      break;
    }
  }
}

TEST_F(ShardDirectoryTest, CountsSegmentsAndRemovesOnlyWhatADeadEngineLeftUnfinished) {
  ASSERT_TRUE(Prepare().ok());
  WriteFile(SegmentName(1), "");
  WriteFile(SegmentName(2), "");
  WriteFile(SegmentName(1) + ".quarantined", "");
  WriteFile("reserve.tmp", "half");
  WriteFile("MODEL.tmp", "half");
  WriteFile("notes of a person", "kept");
  const Result<ShardFiles> files = Prepare();
  ASSERT_TRUE(files.ok());
  EXPECT_EQ(files->segments, 2u);
  EXPECT_EQ(disk_.List(kPath).value(),
            (std::vector<std::string>{"MODEL", "notes of a person", "reserve.tmp", SegmentName(1),
                                      SegmentName(1) + ".quarantined", SegmentName(2)}));
}

TEST_F(ShardDirectoryTest, SaysHowMuchRoomFilesSetAsideTake) {
  ASSERT_TRUE(Prepare().ok());
  WriteFile(SegmentName(1) + ".quarantined", std::string(1 << 20, 'x'));
  WriteFile(SegmentName(1) + ".2.quarantined", std::string(2 << 20, 'x'));
  const Result<ShardFiles> files = Prepare();
  ASSERT_TRUE(files.ok());
  EXPECT_EQ(files->quarantined, 2u);
  EXPECT_EQ(files->segments, 0u);
  ASSERT_EQ(lines_.size(), 1u);
  EXPECT_EQ(levels_[0], LogLevel::kWarn);
  EXPECT_EQ(lines_[0].find("2 damaged segments of earlier starts"), 0u) << lines_[0];
  EXPECT_NE(lines_[0].find(" 3 MiB"), std::string::npos) << lines_[0];
  EXPECT_NE(lines_[0].find("rm " + kPath + "/*.quarantined"), std::string::npos) << lines_[0];
}

TEST_F(ShardDirectoryTest, AFullDiskIsToldApartFromAnErrorAndTheNextAttemptMakesIt) {
  for (uint64_t at = 1;; ++at) {
    sim::SimDisk disk;
    sim::SimDisk::Faults faults;
    faults.fail_at = at;
    faults.fail_errno = ENOSPC;
    disk.SetFaults(faults);
    const Result<ShardFiles> files = PrepareShardDirectory(&disk, Mine(), {});
    const uint64_t operations = disk.operations();
    disk.SetFaults(sim::SimDisk::Faults());
    if (files.ok() && !files->disk_full.ok()) {
      EXPECT_TRUE(IsDiskFull(files->disk_full));
      EXPECT_EQ(files->path, kPath);
    }
    if (at == 1) {
      ASSERT_TRUE(files.ok());
      EXPECT_FALSE(files->disk_full.ok()) << "the directory could not be made";
    }
    const Result<ShardFiles> again = PrepareShardDirectory(&disk, Mine(), {});
    ASSERT_TRUE(again.ok() && again->disk_full.ok()) << at << ": " << again.status().message();
    if (operations < at) break;
  }
}

TEST_F(ShardDirectoryTest, AnotherModelOfTheSameDirectoryIsRefusedWithBothNames) {
  ASSERT_TRUE(Prepare().ok());
  ShardDirectory other = Mine();
  other.model_identity[40] = 'e';  // the first 16 digits, which name the directory, are the same
  Status status = Prepare(other).status();
  EXPECT_EQ(status.code(), StatusCode::kRefused);
  EXPECT_NE(status.message().find(kPath + "/MODEL says model " + test::kIdentity + ", width 16 (test model)"),
            std::string::npos)
      << status.message();
  EXPECT_NE(status.message().find(other.model_identity), std::string::npos);
  EXPECT_NE(status.message().find("move " + kPath + " away"), std::string::npos);
  other = Mine();
  other.width = 8;
  status = Prepare(other).status();
  EXPECT_EQ(status.code(), StatusCode::kRefused);
  EXPECT_EQ(Model(), "identity " + test::kIdentity + "\nwidth 16\nname test model\n") << "nothing was overwritten";
}

TEST_F(ShardDirectoryTest, AModelFileThatSaysNothingIsRefused) {
  ASSERT_TRUE(Prepare().ok());
  for (const std::string& text : {std::string(), std::string("width 16\n"), std::string(100, '\0')}) {
    WriteFile("MODEL", text);
    EXPECT_EQ(Prepare().status().code(), StatusCode::kRefused);
  }
}

TEST_F(ShardDirectoryTest, AModelsNameCannotForgeALine) {
  ShardDirectory directory = Mine();
  directory.model_name = "evil\nwidth 99";
  ASSERT_TRUE(Prepare(directory).ok());
  EXPECT_EQ(Model(), "identity " + test::kIdentity + "\nwidth 16\nname evil width 99\n");
  EXPECT_TRUE(Prepare(directory).ok());
}

TEST_F(ShardDirectoryTest, ItsModelFileCanBeReadBack) {
  ASSERT_TRUE(Prepare().ok());
  const ShardDirectory read = ParseModelFile(Model());
  EXPECT_EQ(read.model_identity, test::kIdentity);
  EXPECT_EQ(read.model_name, "test model");
  EXPECT_EQ(read.width, test::kWidth);
  for (const char* text : {"", "width x\n", "width 99999999999\n", "width -1\n"}) {
    const ShardDirectory nothing = ParseModelFile(text);
    EXPECT_EQ(nothing.width, 0u) << text;
    EXPECT_EQ(nothing.model_identity, "");
  }
}

TEST_F(ShardDirectoryTest, EveryNameThatAShardGivesIsKnownAndNoOther) {
  const std::string segment = SegmentName(7);
  for (const std::string& name : {std::string("MODEL"), std::string("MODEL.tmp"), std::string("reserve.tmp"), segment,
                                  segment + ".quarantined", segment + ".2.quarantined"}) {
    EXPECT_TRUE(IsShardFile(name)) << name;
  }
  for (const char* name : {"", "LOCK", "MODEL.old", "wal-7.log", "reserve", "x.quarantined"}) {
    EXPECT_FALSE(IsShardFile(name)) << name;
  }
  EXPECT_TRUE(IsShardName(test::kShardName));
  for (const char* name :
       {"", "LOCK", "001122334455667", "00112233445566777", "001122334455667G", "AA11223344556677"}) {
    EXPECT_FALSE(IsShardName(name)) << name;
  }
}

TEST(ShardDirectoryOnDisk, AFileInItsPlaceIsNamedWithTheFix) {
  const test::TempDir temp;
  std::unique_ptr<DiskIo> io = MakePosixDiskIo(false);
  ShardDirectory directory = Mine();
  directory.data = temp.path();
  io->Close(io->Open(temp / test::kShardName, OpenMode::kCreate).value());
  const Status status = PrepareShardDirectory(io.get(), directory, {}).status();
  EXPECT_EQ(status.code(), StatusCode::kStorageError);
  EXPECT_NE(status.message().find(temp / test::kShardName), std::string::npos) << status.message();
  EXPECT_NE(status.message().find("must be able to write in " + temp.path()), std::string::npos);
}

}  // namespace
}  // namespace sutra
