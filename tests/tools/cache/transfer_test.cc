// export and import: what comes back is bit for bit what was there, whatever breaks off in the middle.
#include <fcntl.h>
#include <sys/stat.h>

#include <fstream>

#include "shm/base/unique_fd.h"
#include "tests/kit/small_disk.h"
#include "tests/tools/cache/cache_tool_fixture.h"
#include "tools/cache/cache_options.h"

namespace sutra::test {
namespace {

class CacheTransfer : public CacheToolTest {
 protected:
  static std::vector<std::string> OddTexts() {
    std::string every;
    for (int i = 1; i < 128; ++i) every += static_cast<char>(i);
    return {"plain",
            std::string("nul \0 in it", 11),
            "line\nline\r\n",
            every,
            "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80",
            std::string(1 << 20, 'x'),
            "{\"end\":true,\"entries\":0}",
            " leading and trailing "};
  }
  Json Imported(const std::vector<std::string>& args, int code = 0) {
    std::vector<std::string> all = {"import", "--json"};
    all.insert(all.end(), args.begin(), args.end());
    return Lines(RunAtRest(all, code).output).at(0);
  }
  // Without taking it even for a moment.
  static bool IsLocked(const std::string& path) {
    const UniqueFd file(open(path.c_str(), O_RDWR | O_CLOEXEC));
    struct flock lock = {};
    lock.l_type = F_WRLCK;
    return file && fcntl(file.get(), F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
  }
};

TEST_F(CacheTransfer, BothFormsGiveBackEveryTextBitForBit) {
  segment_bytes_ = 4 << 20;
  Fill(OddTexts());
  const auto before = Entries();
  ASSERT_EQ(before.size(), OddTexts().size());
  RunAtRest({"export", "--output", temp_ / "file.jsonl"}, 0);
  RunAtRest({"export", "--format", "npy", "--output", temp_ / "npy"}, 0);
  for (const std::string& from : {temp_ / "file.jsonl", temp_ / "npy"}) {
    RunAtRest({"drop", "--all", "--yes"}, 0);
    ASSERT_TRUE(Entries().empty());
    EXPECT_EQ(Imported({from})["stored"], before.size());
    EXPECT_EQ(Entries(), before) << from;
    EXPECT_EQ(Imported({from})["skipped"], before.size());
  }
  RunAtRest({"verify"}, 0);
}

TEST_F(CacheTransfer, TheNumpyFileIsOne) {
  Fill(Numbered(50));
  RunAtRest({"export", "--format", "npy", "--output", temp_ / "npy"}, 0);
  const std::string check =
      "import sys\n"
      "try:\n  import numpy\nexcept ImportError:\n  sys.exit(77)\n"
      "a = numpy.load(sys.argv[1])\n"
      "sys.exit(0 if a.shape == (50, 16) and a.dtype == numpy.float32 and a.flags['C_CONTIGUOUS'] else 1)\n";
  SpawnOptions spawn;
  spawn.args = {"/usr/bin/env", "python3", "-c", check, temp_ / "npy/vectors.npy"};
  const Finished finished = RunToEnd(spawn, kToolMs);
  if (finished.status.code == 77) GTEST_SKIP() << "SKIPPED: Python has no numpy here";
  EXPECT_EQ(finished.status.code, 0) << finished.errors;
}

TEST_F(CacheTransfer, AnotherModelsVectorsAreRefused) {
  Fill({"one"});
  Fill({"two"}, kOtherIdentity, "other model");
  RunAtRest({"export", "--identity", "ff", "--output", temp_ / "file"}, 0);
  const Finished finished = RunAtRest({"import", temp_ / "file", "--identity", kShardName}, kCacheError);
  EXPECT_NE(finished.errors.find("another model"), std::string::npos) << finished.errors;
  EXPECT_EQ(Entries().size(), 1u);
  // Without --identity the file's own is meant.
  EXPECT_EQ(Imported({temp_ / "file"})["skipped"], 1);
}

TEST_F(CacheTransfer, FaultyLinesAreNamedAndTheRestIsStored) {
  Fill(Numbered(10));
  RunAtRest({"export", "--output", temp_ / "file"}, 0);
  RunAtRest({"drop", "--all", "--yes"}, 0);
  std::istringstream lines(BytesOfFile(temp_ / "file"));
  std::string changed, line;
  for (int number = 1; std::getline(lines, line); ++number) {
    if (number == 3) line = "not json";
    if (number == 5) line.replace(line.find("\"tokens\""), 8, "\"tokenz\"");
    // A vector that has not the length 1.
    if (number == 7) line.replace(line.find("base64\":\"") + 9, 4, "AACA");
    changed += line + "\n";
  }
  temp_.Write("changed", changed);
  const Finished finished = RunAtRest({"import", temp_ / "changed", "--json", "--errors-shown", "2"}, kCacheError);
  const Json json = Lines(finished.output).at(0);
  EXPECT_EQ(json["stored"], 7);
  EXPECT_EQ(json["refused"], 3);
  EXPECT_NE(finished.errors.find("line 3: "), std::string::npos) << finished.errors;
  EXPECT_NE(finished.errors.find("line 5: "), std::string::npos) << finished.errors;
  EXPECT_EQ(finished.errors.find("line 7: "), std::string::npos) << "at most two are shown: " << finished.errors;
  EXPECT_EQ(Entries().size(), 7u);
}

TEST_F(CacheTransfer, WhatIsThereStaysUnlessItIsReplaced) {
  Fill({"one"});
  RunAtRest({"export", "--output", temp_ / "file"}, 0);
  const auto exported = Entries();
  {
    const auto shard = CacheShard::Open(Config(kIdentity), disk_.get(), Clock::Real()).value();
    PutUnit(shard.get(), "one", 2);
    shard->Close();
  }
  EXPECT_EQ(Imported({temp_ / "file"})["skipped"], 1);
  EXPECT_EQ(Entries().at("one"), UnitVectorOf("one", 2));
  EXPECT_EQ(Imported({temp_ / "file", "--replace"})["stored"], 1);
  EXPECT_EQ(Entries(), exported);
}

TEST_F(CacheTransfer, ADryRunCountsAndStoresNothing) {
  Fill(Numbered(10));
  RunAtRest({"export", "--output", temp_ / "file"}, 0);
  RunAtRest({"erase", "text 1", "--yes"}, 0);
  const auto before = SnapshotOf(data());
  const Json json = Imported({temp_ / "file", "--dry-run"});
  EXPECT_EQ(json["stored"], 1);
  EXPECT_EQ(json["skipped"], 9);
  EXPECT_EQ(SnapshotOf(data()), before);
}

TEST_F(CacheTransfer, AFileThatEndsEarlySaysSoAndAnotherKindOfFileIsNone) {
  Fill(Numbered(10));
  RunAtRest({"export", "--output", temp_ / "file"}, 0);
  const std::string whole = BytesOfFile(temp_ / "file");
  temp_.Write("cut", whole.substr(0, whole.rfind("{\"end\"")));
  EXPECT_NE(RunAtRest({"import", temp_ / "cut"}, kCacheError).errors.find("ends early"), std::string::npos);
  temp_.Write("texts", "a text\nanother\n");
  EXPECT_NE(RunAtRest({"import", temp_ / "texts"}, kCacheError).errors.find("sutra-cache warm"), std::string::npos);
  RunAtRest({"export", "--format", "npy", "--output", temp_ / "npy"}, 0);
  FlipBit(temp_ / "npy/vectors.npy", 300);
  EXPECT_NE(RunAtRest({"import", temp_ / "npy"}, kCacheError).errors.find("belong together"), std::string::npos);
}

// Lines come through a FIFO until some are stored; then the importer is killed, and the next one goes on.
TEST_F(CacheTransfer, AnImportThatIsKilledGoesOnWhereItWas) {
  std::vector<std::string> texts;
  for (int i = 0; i < 400; ++i) texts.push_back(std::string(10'000, 'a') + std::to_string(i));
  Fill(texts);
  const auto before = Entries();
  RunAtRest({"export", "--output", temp_ / "file"}, 0);
  RunAtRest({"drop", "--all", "--yes"}, 0);
  const std::string fifo = temp_ / "fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  SpawnOptions spawn;
  spawn.args = {SUTRA_CACHE_PROGRAM, "import", fifo, "--data", data()};
  spawn.log_path = temp_ / "log";
  ChildProcess importer(spawn);
  std::ofstream pipe(fifo, std::ios::binary);
  const std::string whole = BytesOfFile(temp_ / "file");
  const std::string half = whole.substr(0, whole.size() / 2);
  pipe << half << std::flush;
  uint64_t stored = 0;
  while (stored == 0) {
    ASSERT_TRUE(importer.Running()) << importer.Log();
    stored = Lines(RunAtRest({"stats", "--json"}, 0).output).at(0)["entries"].get<uint64_t>();
  }
  importer.Kill();
  pipe.close();
  const Json json = Imported({temp_ / "file"});
  EXPECT_GE(json["skipped"], stored);
  EXPECT_LT(json["stored"], texts.size());
  EXPECT_EQ(json["stored"].get<uint64_t>() + json["skipped"].get<uint64_t>(), texts.size());
  EXPECT_EQ(Entries(), before);
  RunAtRest({"verify"}, 0);
}

TEST_F(CacheTransfer, AnInterruptedImportSaysWhatWasDone) {
  Fill({"one"});
  const std::string fifo = temp_ / "fifo";
  RunAtRest({"export", "--output", temp_ / "file"}, 0);
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  SpawnOptions spawn;
  spawn.args = {SUTRA_CACHE_PROGRAM, "import", fifo, "--data", data(), "--json"};
  spawn.log_path = temp_ / "log";
  spawn.pipe_output = true;
  ChildProcess importer(spawn);
  std::ofstream pipe(fifo, std::ios::binary);
  const std::string whole = BytesOfFile(temp_ / "file");
  pipe << whole.substr(0, whole.find('\n') + 1) << std::flush;
  // It holds the lock from when it has read the first line.
  while (!IsLocked(data() + "/LOCK")) ASSERT_TRUE(importer.Running());
  importer.Signal(SIGINT);
  EXPECT_EQ(Lines(importer.ReadOutput(kToolMs)).at(0)["stored"], 0);
  EXPECT_EQ(importer.Wait(kToolMs).value_or(ExitStatus{}).code, 128 + SIGINT);
  EXPECT_EQ(Entries().size(), 1u);
}

TEST_F(CacheTransfer, AFullDiskLeavesNoHalfExport) {
  const SmallDisk disk(temp_ / "small", "64k");
  if (!disk.mounted()) GTEST_SKIP() << "SKIPPED: " << kCannotMount;
  Fill(Numbered(2000));
  for (const std::vector<std::string>& form : std::vector<std::vector<std::string>>{
           {"--output", temp_ / "small/file"}, {"--format", "npy", "--output", temp_ / "small/npy"}}) {
    std::vector<std::string> args = {"export"};
    args.insert(args.end(), form.begin(), form.end());
    const Finished finished = RunAtRest(args, kCacheError);
    EXPECT_NE(finished.errors.find("No space left"), std::string::npos) << finished.errors;
  }
  for (const auto& entry : std::filesystem::recursive_directory_iterator(temp_ / "small")) {
    EXPECT_TRUE(entry.is_directory()) << entry.path();
  }
}

}  // namespace
}  // namespace sutra::test
