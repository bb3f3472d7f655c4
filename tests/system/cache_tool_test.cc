// sutra-cache beside a running engine: what it does over the engine's socket is what the engine's clients see, and what
// it reads from the files of a live or a killed engine is sound.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "tests/system/system_fixture.h"

namespace sutra::test {
namespace {

using Json = nlohmann::json;

class CacheTool : public SystemTest {
 protected:
  void Start() { ASSERT_TRUE(engine_.Start()); }
  Finished Run(std::vector<std::string> args, int code) {
    args.insert(args.begin(), SUTRA_CACHE_PROGRAM);
    SpawnOptions spawn;
    spawn.args = std::move(args);
    Finished finished = RunToEnd(spawn, kWaitMs);
    EXPECT_TRUE(finished.status.exited && finished.status.code == code)
        << spawn.args[1] << ": " << ToText(finished.status) << "\n"
        << finished.output << finished.errors;
    return finished;
  }
  Finished Live(std::vector<std::string> args, int code = 0) {
    args.insert(args.end(), {"--socket", engine_.socket()});
    return Run(std::move(args), code);
  }
  Finished AtRest(std::vector<std::string> args, int code = 0) {
    args.insert(args.end(), {"--data", engine_.data()});
    return Run(std::move(args), code);
  }
  static std::vector<Json> Lines(const std::string& output) {
    std::vector<Json> lines;
    std::istringstream stream(output);
    for (std::string line; std::getline(stream, line);) lines.push_back(Json::parse(line));
    return lines;
  }
  static std::set<std::string> TextsOf(const std::string& output) {
    std::set<std::string> texts;
    for (const Json& line : Lines(output)) {
      if (line.contains("text")) texts.insert(line["text"].get<std::string>());
    }
    return texts;
  }
  std::string FileOf(const std::vector<std::string>& texts, const std::string& name = "texts") {
    std::string lines;
    for (const std::string& text : texts) lines += Json(text).dump() + "\n";
    engine_.directory().Write(name, lines);
    return engine_.directory() / name;
  }
  Json Warm(const std::vector<std::string>& texts) {
    return Lines(Live({"warm", FileOf(texts), "--input-format", "jsonl", "--json"}).output).at(0);
  }

  EngineProcess engine_;
};

TEST_F(CacheTool, WarmPutsTextsInTheCacheAndGoesOnWhereItWas) {
  Start();
  const std::vector<std::string> texts = NumberedTexts("warm", 500);
  const std::string file = FileOf(texts);
  EXPECT_EQ(Lines(Live({"warm", file, "--input-format", "jsonl", "--dry-run", "--json"}).output).at(0)["missing"], 500);
  const Json first = Warm({texts.begin(), texts.begin() + 200});
  EXPECT_EQ(first["computed"], 200);
  const Json second = Warm(texts);
  EXPECT_EQ(second["texts"], 500);
  EXPECT_EQ(second["hits"], 200);
  EXPECT_EQ(second["computed"], 300);
  EXPECT_EQ(Lines(Live({"stats", "--json"}).output).at(0)["entries"], 500);
}

TEST_F(CacheTool, ShowsWhatTheEngineHolds) {
  Start();
  const std::vector<std::string> texts = NumberedTexts("shown", 300);
  Warm(texts);
  EXPECT_EQ(TextsOf(Live({"dump"}).output), std::set<std::string>(texts.begin(), texts.end()));
  const std::vector<Json> got = Lines(Live({"get", texts[7], "nowhere", "--vectors"}, 2).output);
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(got[0]["text"], texts[7]);
  EXPECT_EQ(got[0]["vector"].size(), size_t{kTestWidth});
  EXPECT_EQ(got[1]["error"], "not cached");
  const Json served = Lines(Live({"identities", "--json"}).output).at(0);
  EXPECT_EQ(served["served"], true);
  EXPECT_EQ(served["model"], kFakeName);
  const Json seen = Lines(AtRest({"identities", "--json"}).output).at(0);
  EXPECT_EQ(seen["served"], true);
  EXPECT_EQ(seen["identity"], served["identity"]);
}

TEST_F(CacheTool, WhatItRemovesIsComputedAgain) {
  Start();
  const std::vector<std::string> texts = NumberedTexts("gone", 50);
  Warm(texts);
  const Json preview = Lines(Live({"drop", "--contains", texts[3], "--dry-run", "--json"}).output).at(0);
  EXPECT_GE(preview["entries"], 1);
  EXPECT_EQ(Warm(texts)["computed"], 0);
  EXPECT_NE(Live({"drop", "--all"}, 1).errors.find("needs --yes"), std::string::npos);
  Live({"erase", texts[0], texts[1], "--yes"});
  EXPECT_EQ(Warm(texts)["computed"], 2);
  // The data directory leads to the engine that has it.
  const Finished dropped = AtRest({"drop", "--all", "--yes", "--json"});
  EXPECT_NE(dropped.errors.find("asking it at " + engine_.socket()), std::string::npos) << dropped.errors;
  EXPECT_EQ(Lines(dropped.output).at(0)["removed"], 50);
  EXPECT_EQ(Warm(texts)["computed"], 50);
  Live({"drop", "--model", kFakeName, "--yes"});
  EXPECT_EQ(Warm(texts)["computed"], 50);
  Live({"drop", "--contains", "no text has this", "--yes"}, 2);
  EXPECT_EQ(engine_.Terminate().code, 0);
  EXPECT_EQ(TextsOf(AtRest({"dump"}).output).size(), 50u);
}

TEST_F(CacheTool, ExportAndImportGoFromEngineToFilesAndBack) {
  Start();
  const std::vector<std::string> texts = NumberedTexts("moved", 400);
  Warm(texts);
  const std::string file = engine_.directory() / "export";
  const std::string before = Live({"dump", "--vectors"}).output;
  Live({"export", "--output", file});
  Live({"drop", "--all", "--yes"});
  const Json imported = Lines(Live({"import", file, "--json"}).output).at(0);
  EXPECT_EQ(imported["stored"], 400);
  const auto vectors = [](const std::string& dump) {
    std::map<std::string, Json> found;
    for (const Json& line : Lines(dump)) found[line["text"].get<std::string>()] = line["vector"];
    return found;
  };
  EXPECT_EQ(vectors(Live({"dump", "--vectors"}).output), vectors(before));
  EXPECT_EQ(Lines(Live({"import", file, "--json"}).output).at(0)["skipped"], 400);
  EXPECT_EQ(Warm(texts)["hits"], 400) << "clients are answered from what was imported";
  EXPECT_EQ(engine_.Terminate().code, 0);
  EXPECT_EQ(vectors(AtRest({"dump", "--vectors"}).output), vectors(before));
  AtRest({"verify"});
}

TEST_F(CacheTool, ReadsTheFilesOfAnEngineThatWritesAndOfOneThatWasKilled) {
  Start();
  Warm(NumberedTexts("first", 100));
  ASSERT_TRUE(engine_.WaitWritten());
  SpawnOptions spawn;
  spawn.args = {SUTRA_CACHE_PROGRAM, "warm",  FileOf(NumberedTexts("while it is read", 60'000), "many"),
                "--input-format",    "jsonl", "--socket",
                engine_.socket()};
  spawn.log_path = engine_.directory() / "warm.log";
  ChildProcess warming(spawn);
  do {
    AtRest({"verify"});
    EXPECT_GE(TextsOf(AtRest({"dump"}).output).size(), 100u);
  } while (warming.Running());
  EXPECT_EQ(warming.Wait(kWaitMs).value_or(ExitStatus{}).code, 0) << warming.Log();
  engine_.Kill();
  AtRest({"verify"});
  EXPECT_GE(TextsOf(AtRest({"dump"}).output).size(), 100u);
  EXPECT_EQ(TextsOf(AtRest({"get", NumberedTexts("first", 100)[5]}).output).size(), 1u);
}

// The segments that are about to be read become others meanwhile: then it says so, and never calls that damage.
TEST_F(CacheTool, ALogThatGoesRoundWhileItIsReadIsNotDamaged) {
  engine_.options().args = {"--wal-bytes-max", "4194304"};
  Start();
  SpawnOptions spawn;
  spawn.args = {SUTRA_CACHE_PROGRAM, "warm",  FileOf(NumberedTexts("round and round", 80'000)),
                "--input-format",    "jsonl", "--socket",
                engine_.socket()};
  spawn.log_path = engine_.directory() / "warm.log";
  ChildProcess warming(spawn);
  do {
    for (const char* command : {"verify", "dump"}) {
      SpawnOptions look;
      look.args = {SUTRA_CACHE_PROGRAM, command, "--data", engine_.data()};
      const Finished finished = RunToEnd(look, kWaitMs);
      ASSERT_TRUE(finished.status.exited);
      if (finished.status.code == 0) continue;
      EXPECT_NE(finished.errors.find("faster than it can be read"), std::string::npos)
          << command << " " << finished.status.code << finished.output.substr(0, 1000) << finished.errors;
    }
  } while (warming.Running());
  EXPECT_EQ(warming.Wait(kWaitMs).value_or(ExitStatus{}).code, 0) << warming.Log();
  AtRest({"verify"});
  AtRest({"dump"});
}

TEST_F(CacheTool, ACacheThatIsNotServedGoesByItsModelsName) {
  engine_.options().args = {"--fake-width", "8"};
  Start();
  Warm(NumberedTexts("old", 20));
  EXPECT_EQ(engine_.Terminate().code, 0);
  const Json old = Lines(AtRest({"identities", "--json"}).output).at(0);
  engine_.options().args.clear();
  Start();
  Warm(NumberedTexts("new", 20));
  ASSERT_EQ(Lines(AtRest({"identities", "--json"}).output).size(), 2u);
  const std::string name = old["name"].get<std::string>();
  Live({"drop", "--model", name}, 1);
  EXPECT_EQ(Lines(Live({"drop", "--model", name, "--yes", "--json"}).output).at(0)["identities"].size(), 1u);
  EXPECT_EQ(Lines(AtRest({"identities", "--json"}).output).size(), 1u);
  EXPECT_EQ(TextsOf(Live({"dump"}).output).size(), 20u);
  Live({"drop", "--model", name, "--yes"}, 2);
}

TEST_F(CacheTool, WithoutAnEngineThereTheSocketIsNamed) {
  const Finished finished = Live({"stats"}, 1);
  EXPECT_NE(finished.errors.find(engine_.socket()), std::string::npos) << finished.errors;
}

}  // namespace
}  // namespace sutra::test
