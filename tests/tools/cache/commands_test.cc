// sutra-cache on files at rest: what it shows is what is there, what it removes is gone and nothing else, what only
// looks changes no byte, and damage neither stops it nor goes unsaid.
#include <fcntl.h>
#include <sys/stat.h>

#include <set>

#include "shm/base/engine_lock.h"
#include "shm/base/time.h"
#include "shm/hot_table.h"
#include "tests/tools/cache/cache_tool_fixture.h"
#include "tools/cache/cache_options.h"

namespace sutra::test {
namespace {

class CacheCommands : public CacheToolTest {
 protected:
  // What looks changes nothing, not even a time.
  void ExpectUnchangedBy(const std::vector<std::string>& args, int code) {
    const auto before = SnapshotOf(data());
    RunAtRest(args, code);
    EXPECT_EQ(SnapshotOf(data()), before) << args[0];
  }
  std::string AuditLines() const { return BytesOfFile(data() + "/audit.log"); }
};

TEST_F(CacheCommands, WhatLooksChangesNoByte) {
  Fill(Numbered(300));
  Fill({"another"}, kOtherIdentity, "other model");
  const std::vector<std::string> own = {"--identity", kShardName};
  const auto with = [&](std::vector<std::string> args) {
    args.insert(args.end(), own.begin(), own.end());
    return args;
  };
  ExpectUnchangedBy(with({"stats"}), 0);
  ExpectUnchangedBy(with({"get", "text 1", "no such text"}), kCacheNotFound);
  ExpectUnchangedBy(with({"dump", "--vectors"}), 0);
  ExpectUnchangedBy(with({"export"}), 0);
  ExpectUnchangedBy({"verify"}, 0);
  ExpectUnchangedBy({"identities"}, 0);
  ExpectUnchangedBy(with({"erase", "text 1", "--dry-run"}), 0);
  ExpectUnchangedBy(with({"drop", "--all", "--dry-run"}), 0);
  ExpectUnchangedBy(with({"drop", "--contains", "7", "--dry-run"}), 0);
  ExpectUnchangedBy({"drop", "--model", "other model", "--dry-run"}, 0);
  ExpectUnchangedBy(with({"compact", "--dry-run"}), 0);
}

TEST_F(CacheCommands, GetAndDumpShowTheEntriesThatAreThere) {
  Fill(Numbered(300));
  const Finished got = RunAtRest({"get", "text 7", "nowhere", "--vectors"}, kCacheNotFound);
  const std::vector<Json> lines = Lines(got.output);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["text"], "text 7");
  EXPECT_EQ(lines[0]["vector"].get<std::vector<float>>(), UnitVectorOf("text 7", 1));
  EXPECT_EQ(lines[1]["error"], "not cached");
  std::set<std::string> texts;
  for (const Json& line : Lines(RunAtRest({"dump"}, 0).output)) {
    texts.insert(line["text"].get<std::string>());
    EXPECT_EQ(line["vector"].size(), 4u);
  }
  const std::vector<std::string> expected = Numbered(300);
  EXPECT_EQ(texts, std::set<std::string>(expected.begin(), expected.end()));
  EXPECT_EQ(Lines(RunAtRest({"stats", "--json"}, 0).output)[0]["entries"], 300);
}

TEST_F(CacheCommands, EraseTakesOutExactlyTheseTextsAndSaysSoInTheAuditLog) {
  Fill(Numbered(20));
  EXPECT_NE(RunAtRest({"erase", "text 1"}, kCacheError).errors.find("needs --yes"), std::string::npos);
  EXPECT_EQ(Entries().size(), 20u);
  const Finished finished = RunAtRest({"erase", "text 1", "text 2", "text 2", "nowhere", "--yes", "--json"}, 0);
  EXPECT_EQ(Lines(finished.output)[0]["removed"], 2);
  const auto entries = Entries();
  EXPECT_EQ(entries.size(), 18u);
  EXPECT_EQ(entries.count("text 1") + entries.count("text 2"), 0u);
  RunAtRest({"erase", "text 1", "--yes"}, kCacheNotFound);
  const std::string audit = AuditLines();
  EXPECT_NE(audit.find("cache erase"), std::string::npos) << audit;
  EXPECT_EQ(audit.find("text 1"), std::string::npos) << "no text of a cache stands in it: " << audit;
}

TEST_F(CacheCommands, ARemovalIsConfirmedWhenNoClientOfAnEngineThatDiedBeforeAnswersFromItsTable) {
  Fill(Numbered(20));
  const uint64_t before_ns = MonotonicNs();
  RunAtRest({"erase", "text 1", "--yes"}, 0);
  EXPECT_GE(MonotonicNs() - before_ns, 2 * kHotHeartbeatNsMax);
}

TEST_F(CacheCommands, EveryChangeLeavesItsLinesInTheAuditLog) {
  Fill(Numbered(20));
  RunAtRest({"export", "--output", temp_ / "all.jsonl"}, 0);
  RunAtRest({"drop", "--contains", "text 7", "--yes"}, 0);
  RunAtRest({"import", temp_ / "all.jsonl"}, 0);
  RunAtRest({"compact"}, 0);
  const std::string audit = AuditLines();
  for (const char* command : {"cache drop", "cache import", "cache compact"}) {
    EXPECT_NE(audit.find(command), std::string::npos) << command << " in " << audit;
  }
  EXPECT_EQ(audit.find("text 7"), std::string::npos) << "no text of a cache stands in it: " << audit;
}

TEST_F(CacheCommands, TextsComeFromFilesOfThreeForms) {
  const std::string odd = std::string("with \0 and\nline", 15);
  Fill({"one", "two", "three", odd});
  temp_.Write("lines", "one\r\nnowhere\n");
  temp_.Write("jsonl", "\"two\"\n{\"text\":\"three\"}\n");
  temp_.Write("nul", std::string("with \n", 6));
  EXPECT_EQ(Lines(RunAtRest({"get", "--input", temp_ / "lines"}, kCacheNotFound).output)[0]["text"], "one");
  EXPECT_EQ(Lines(RunAtRest({"get", "--input", temp_ / "jsonl", "--input-format", "jsonl"}, 0).output).size(), 2u);
  temp_.Write("odd", Json(odd).dump() + "\n");
  EXPECT_EQ(Lines(RunAtRest({"get", "--input", temp_ / "odd", "--input-format", "jsonl"}, 0).output)[0]["text"], odd);
  temp_.Write("nul", std::string("one\0two", 7));
  EXPECT_EQ(Lines(RunAtRest({"get", "--input", temp_ / "nul", "--input-format", "nul"}, 0).output).size(), 2u);
  temp_.Write("bad", "\"two\"\nnot json\n");
  RunAtRest({"erase", "--input", temp_ / "bad", "--input-format", "jsonl", "--yes"}, kCacheError);
  EXPECT_EQ(Entries().count("two"), 1u) << "a file with a faulty line removes nothing";
}

TEST_F(CacheCommands, DropTakesOutWhatMeetsAllConditions) {
  Fill(Numbered(30));
  const Json preview = Lines(RunAtRest({"drop", "--contains", "text 1", "--dry-run", "--json"}, 0).output)[0];
  EXPECT_EQ(preview["entries"], 11);
  EXPECT_EQ(preview["examined"], 30);
  EXPECT_EQ(preview["removed"], 0);
  EXPECT_NE(RunAtRest({"drop", "--contains", "text 1"}, kCacheError).errors.find("needs --yes"), std::string::npos);
  EXPECT_EQ(Entries().size(), 30u);
  RunAtRest({"drop", "--contains", "text 1", "--older-than", "1d", "--yes"}, kCacheNotFound);
  EXPECT_EQ(Lines(RunAtRest({"drop", "--contains", "text 1", "--yes", "--json"}, 0).output)[0]["removed"], 11);
  const auto entries = Entries();
  EXPECT_EQ(entries.size(), 19u);
  EXPECT_EQ(entries.count("text 2"), 1u);
  RunAtRest({"drop", "--all", "--yes"}, 0);
  EXPECT_TRUE(Entries().empty());
}

TEST_F(CacheCommands, DropByBytesThatNoArgumentCanHold) {
  const std::string odd = std::string("a\0b", 3);
  Fill({odd, "ab", std::string("x\0", 2)});
  temp_.Write("pattern", std::string("\0b", 2));
  RunAtRest({"drop", "--contains-file", temp_ / "pattern", "--yes"}, 0);
  const auto entries = Entries();
  EXPECT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries.count(odd), 0u);
}

TEST_F(CacheCommands, SeveralCachesAreToldApart) {
  Fill({"one"});
  Fill({"two", "three"}, kOtherIdentity, "other model");
  EXPECT_NE(RunAtRest({"stats"}, kCacheError).errors.find("--identity"), std::string::npos);
  EXPECT_EQ(Lines(RunAtRest({"stats", "--json", "--identity", "ff"}, 0).output)[0]["entries"], 2);
  EXPECT_EQ(Lines(RunAtRest({"stats", "--json", "--identity", kOtherIdentity}, 0).output)[0]["entries"], 2);
  RunAtRest({"stats", "--identity", "ab"}, kCacheNotFound);
  const std::vector<Json> identities = Lines(RunAtRest({"identities", "--json"}, 0).output);
  ASSERT_EQ(identities.size(), 2u);
  EXPECT_EQ(identities[0]["name"], kShardName);
  EXPECT_EQ(identities[0]["entries"], 1);
  EXPECT_EQ(identities[1]["model"], "other model");
  EXPECT_EQ(identities[1]["entries"], 2);
  EXPECT_GT(identities[1]["bytes"], 0);
  EXPECT_EQ(identities[1]["served"], false);
}

TEST_F(CacheCommands, AModelGoesWhollyAndNoOther) {
  Fill({"one"});
  Fill({"two"}, kOtherIdentity, "other model");
  RunAtRest({"drop", "--model", "other model"}, kCacheError);
  RunAtRest({"drop", "--model", "no such", "--yes"}, kCacheNotFound);
  EXPECT_TRUE(std::filesystem::exists(Shard(kOtherIdentity.substr(0, 16))));
  RunAtRest({"drop", "--model", "other model", "--yes"}, 0);
  EXPECT_FALSE(std::filesystem::exists(Shard(kOtherIdentity.substr(0, 16))));
  EXPECT_EQ(Entries().size(), 1u);
  EXPECT_NE(AuditLines().find("drop model"), std::string::npos);
  temp_.Write("data/" + kShardName + "/mine", "not an engine's");
  EXPECT_NE(RunAtRest({"drop", "--model", kShardName.substr(0, 6), "--yes"}, kCacheError).errors.find("left alone"),
            std::string::npos);
  EXPECT_TRUE(std::filesystem::exists(Shard() + "/mine"));
}

TEST_F(CacheCommands, AModelWithConditionsLosesWhatMeetsThem) {
  Fill({"one", "two"});
  RunAtRest({"drop", "--model", "test model", "--contains", "one", "--yes"}, 0);
  EXPECT_EQ(Entries().size(), 1u);
  RunAtRest({"drop", "--model", "no such", "--contains", "two", "--yes"}, kCacheNotFound);
  EXPECT_EQ(Entries().size(), 1u);
}

TEST_F(CacheCommands, CompactionTakesRemovedTextsOffTheDisk) {
  Fill(Numbered(100, "secret"));
  RunAtRest({"drop", "--contains", "secret 4", "--yes"}, 0);
  RunAtRest({"compact"}, 0);
  EXPECT_EQ(Entries().size(), 89u);
  for (const auto& file : std::filesystem::directory_iterator(Shard())) {
    EXPECT_EQ(BytesOfFile(file.path()).find("secret 42"), std::string::npos) << file.path();
  }
  RunAtRest({"verify"}, 0);
}

TEST_F(CacheCommands, VerifyTellsSoundFromDamaged) {
  Fill(Numbered(300));
  EXPECT_NE(RunAtRest({"verify"}, 0).output.find("sound"), std::string::npos);
  std::string segment;
  for (const auto& file : std::filesystem::directory_iterator(Shard())) {
    const std::string name = file.path();
    if (name.ends_with("01.log")) segment = name;
  }
  const uint64_t at = BytesOfFile(segment).find("text 3");
  ASSERT_NE(at, std::string::npos);
  FlipBit(segment, at);
  const auto before = SnapshotOf(data());
  const Finished text = RunAtRest({"verify"}, kCacheDamaged);
  EXPECT_NE(text.output.find("DAMAGED"), std::string::npos) << text.output;
  EXPECT_NE(text.output.find(segment), std::string::npos) << text.output;
  EXPECT_NE(text.output.find("a start would lose 1 entry"), std::string::npos) << text.output;
  const Json json = Lines(RunAtRest({"verify", "--json"}, kCacheDamaged).output)[0];
  EXPECT_EQ(json["sound"], false);
  EXPECT_EQ(json["lost"], 1);
  // The rest of it can still be read, and a start finds as much.
  EXPECT_EQ(Lines(RunAtRest({"dump"}, 0).output).size(), 299u);
  EXPECT_EQ(SnapshotOf(data()), before);
  EXPECT_EQ(Entries().size(), 299u);
}

TEST_F(CacheCommands, VerifySaysWhatCannotBeRead) {
  RunAtRest({"verify"}, kCacheUnreadable);
  std::filesystem::create_directory(data());
  RunAtRest({"verify"}, kCacheNotFound);
  std::filesystem::create_directory(Shard());
  RunAtRest({"verify"}, kCacheDamaged);
}

TEST_F(CacheCommands, ADirectoryInUseIsReadAndNotChanged) {
  Fill(Numbered(5));
  const EngineLock lock = EngineLock::Take(data() + "/LOCK").value();
  EXPECT_EQ(Lines(RunAtRest({"dump"}, 0).output).size(), 5u);
  RunAtRest({"verify"}, 0);
  for (const std::vector<std::string>& args :
       std::vector<std::vector<std::string>>{{"drop", "--all", "--yes"},
                                             {"erase", "text 1", "--yes"},
                                             {"compact"},
                                             {"drop", "--model", "test model", "--yes"}}) {
    const Finished finished = RunAtRest(args, kCacheError);
    EXPECT_NE(finished.errors.find("in use"), std::string::npos) << finished.errors;
    EXPECT_NE(finished.errors.find("--socket PATH"), std::string::npos) << finished.errors;
  }
  EXPECT_EQ(Entries().size(), 5u);
}

TEST_F(CacheCommands, WhatRootChangesStaysItsOwners) {
  if (geteuid() != 0) GTEST_SKIP() << "SKIPPED: needs root";
  environment_ = {"ASAN_OPTIONS=detect_leaks=0"};  // whoever has become another user cannot trace itself for that
  constexpr uid_t kOwner = 65534;
  Fill(Numbered(20));
  ASSERT_EQ(chmod(temp_.path().c_str(), 0711), 0);
  ASSERT_EQ(chown(data().c_str(), kOwner, kOwner), 0);
  for (const auto& entry : std::filesystem::recursive_directory_iterator(data())) {
    ASSERT_EQ(chown(entry.path().c_str(), kOwner, kOwner), 0);
  }
  RunAtRest({"erase", "text 1", "--yes"}, 0);
  RunAtRest({"compact"}, 0);
  for (const auto& entry : std::filesystem::recursive_directory_iterator(data())) {
    struct stat info = {};
    ASSERT_EQ(lstat(entry.path().c_str(), &info), 0);
    EXPECT_EQ(info.st_uid, kOwner) << entry.path();
  }
  EXPECT_NE(AuditLines().find("\"uid\":0"), std::string::npos);
}

TEST_F(CacheCommands, TwoAtOnceTakeTurnsOrAreRefused) {
  Fill(Numbered(200));
  std::vector<std::unique_ptr<ChildProcess>> tools;
  for (int i = 0; i < 4; ++i) {
    SpawnOptions spawn;
    spawn.args = {SUTRA_CACHE_PROGRAM, "drop", "--data", data(), "--contains", "text " + std::to_string(i), "--yes"};
    spawn.log_path = temp_ / ("log" + std::to_string(i));
    tools.push_back(std::make_unique<ChildProcess>(spawn));
  }
  uint64_t gone = 0;
  std::vector<int> codes;
  for (const auto& tool : tools) codes.push_back(tool->Wait(kToolMs).value_or(ExitStatus{}).code);
  const auto entries = Entries();
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(codes[i] == kCacheDone || codes[i] == kCacheError) << tools[i]->Log();
    const bool there = entries.count("text " + std::to_string(i)) == 1;
    EXPECT_EQ(there, codes[i] == kCacheError) << tools[i]->Log();
    gone += there ? 0 : 1;
  }
  EXPECT_GE(gone, 1u);
  RunAtRest({"verify"}, 0);
}

}  // namespace
}  // namespace sutra::test
