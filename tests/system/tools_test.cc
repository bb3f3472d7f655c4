// The command-line tools, against real engines: programs can parse what they print, and it agrees with the client.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "shm/stats/stats_name.h"
#include "tests/kit/by_build.h"
#include "tests/system/system_fixture.h"

namespace sutra::test {
namespace {

using nlohmann::json;

class Tools : public SystemTest {
 protected:
  static Finished Run(std::vector<std::string> args) {
    SpawnOptions spawn;
    spawn.args = std::move(args);
    return RunToEnd(spawn, kWaitMs);
  }
  static Finished Stat(const EngineProcess& engine) {
    return Run({SUTRA_STAT_PROGRAM, "--json", "--socket", engine.socket()});
  }
  static void ExpectLife(const EngineProcess& engine, const std::string& life, int code) {
    const Finished finished = Stat(engine);
    EXPECT_TRUE(finished.status.exited && finished.status.code == code) << ToText(finished.status) << finished.errors;
    const json report = json::parse(finished.output, nullptr, false);
    ASSERT_TRUE(report.is_object()) << finished.output;
    EXPECT_EQ(report.value("life", ""), life);
    EXPECT_EQ(report.value("model", ""), kFakeName);
    EXPECT_EQ(report["counters"].value("replies_ok", uint64_t{0}), 3u);
    EXPECT_GE(report.value("heartbeat_age_ms", -1.0), 0.0);
  }
  static std::string VectorText(const std::vector<float>& vector) { return json(vector).dump(); }
};

TEST_F(Tools, StatTellsARunningAStoppedAPausedAndACrashedEngineApart) {
  EngineProcess engine;
  EXPECT_EQ(Stat(engine).status.code, 1);  // nothing there yet
  const std::vector<std::string> texts = NumberedTexts("counted", 3);
  ASSERT_TRUE(engine.Start());
  Attached(engine).EmbedBatch(texts);
  ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& s) { return s.counter("replies_ok") == 3; }, 1));
  ExpectLife(engine, "alive", 0);
  engine.process().Stop();
  // Stale once ten beats are missing; until then it still counts as alive.
  while (Stat(engine).status.code == 0) {
  }
  ExpectLife(engine, "stale", 4);
  engine.process().Continue();
  EXPECT_EQ(engine.Terminate().code, 0);
  ExpectLife(engine, "stopped", 2);

  ASSERT_TRUE(engine.Start());
  Attached(engine).EmbedBatch(texts);
  ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& s) { return s.counter("replies_ok") == 3; }, 1));
  engine.Kill();
  ExpectLife(engine, "crashed", 3);
}

TEST_F(Tools, StatPruneRemovesWhatEndedEnginesLeftAndSaysWhat) {
  // Every engine that starts prunes as well, so one of another test may be faster: then once more.
  std::string output, name;
  for (int attempt = 0; output.find(name) == std::string::npos || name.empty(); ++attempt) {
    ASSERT_LT(attempt, 20) << "it is removed, and " << output << " does not say so";
    const TempDir directory;
    std::filesystem::create_directory(directory / "run");
    EngineOptions options;
    options.socket = directory / "run/engine.sock";
    EngineProcess engine(options);
    ASSERT_TRUE(engine.Start());
    name = *StatsSegmentName(engine.socket(), geteuid());
    engine.Kill();
    const Finished early = Run({SUTRA_STAT_PROGRAM, "--prune"});
    EXPECT_EQ(early.output.find(name), std::string::npos) << early.output;  // its folder is there
    std::filesystem::remove_all(directory / "run");
    // Without its lock file a dead engine is told from a living one by its heartbeat, which must be old.
    while (std::filesystem::exists("/dev/shm/" + name)) {
      const Finished pruned = Run({SUTRA_STAT_PROGRAM, "--prune"});
      EXPECT_EQ(pruned.status.code, 0) << pruned.errors;
      output += pruned.output;
    }
  }
}

TEST_F(Tools, StatPrintsTextForPeople) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const Finished text = Run({SUTRA_STAT_PROGRAM, "--socket", engine.socket()});
  EXPECT_EQ(text.status.code, 0) << text.errors;
  EXPECT_EQ(text.output.rfind("engine", 0), 0u) << text.output;  // the heartbeat first
  EXPECT_NE(text.output.find("heartbeat"), std::string::npos);
  const Finished watch =
      Run({SUTRA_STAT_PROGRAM, "--socket", engine.socket(), "--json", "--watch", "0.05", "--count", "3"});
  EXPECT_EQ(watch.status.code, 0) << watch.errors;
  std::istringstream lines(watch.output);
  int views = 0;
  for (std::string line; std::getline(lines, line); ++views) EXPECT_TRUE(json::accept(line)) << line;
  EXPECT_EQ(views, 3);
}

TEST_F(Tools, StatOfAnotherUserSaysWhoseEngineItMayNotRead) {
  constexpr uid_t kNobody = 65534;
  std::string reason;
  if (!OtherUserCanRunEngine(kNobody, &reason)) GTEST_SKIP() << reason;
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  SpawnOptions spawn;
  spawn.args = {SUTRA_STAT_PROGRAM, "--socket", engine.socket()};
  spawn.uid = kNobody;
  const Finished finished = RunToEnd(spawn, kWaitMs);
  EXPECT_EQ(finished.status.code, 1);
  EXPECT_NE(finished.errors.find("an engine of uid " + std::to_string(geteuid()) + " publishes statistics"),
            std::string::npos)
      << finished.errors;
  EXPECT_NE(finished.errors.find("mode 0640"), std::string::npos) << finished.errors;
  EXPECT_NE(finished.errors.find("--stats-mode"), std::string::npos) << finished.errors;
  EXPECT_EQ(finished.errors.find("Start one"), std::string::npos) << finished.errors;

  EngineOptions readable;
  readable.args = {"--stats-mode", "0644"};
  EngineProcess open_engine(readable);
  ASSERT_TRUE(open_engine.Start());
  spawn.args = {SUTRA_STAT_PROGRAM, "--socket", open_engine.socket()};
  EXPECT_EQ(RunToEnd(spawn, kWaitMs).status.code, 0);
}

TEST_F(Tools, EmbedNamesTheLineAndTheCauseOfEachFailure) {
  EngineOptions options;
  options.args = {"--text-bytes-max", "4096"};
  options.environment = {"SUTRA_FAKE_TOKENS_MAX=100"};
  EngineProcess engine(options);
  ASSERT_TRUE(engine.Start());
  const std::string input = engine.directory() / "input";
  WriteFile(input, "good\n\nbad \xff\n" + std::string(5000, 'x') + "\n" + std::string(200, 'y') + "\n");
  const Finished finished = Run({SUTRA_EMBED_PROGRAM, "--socket", engine.socket(), "--input", input, "--reject"});
  EXPECT_EQ(finished.status.code, 1);
  const char* const causes[] = {"", "line 2: empty text: a blank line", "line 3: invalid UTF-8",
                                "line 4: text too long: 5000 bytes, the engine takes 4096",
                                "line 5: text too long: over 100 tokens (--reject)"};
  std::istringstream output(finished.output);
  size_t count = 0;
  for (std::string line; std::getline(output, line); ++count) {
    ASSERT_LT(count, std::size(causes));
    EXPECT_EQ(json::parse(line).value("error", "").rfind(causes[count], 0), 0u) << line;
  }
  EXPECT_EQ(count, std::size(causes));
  EXPECT_NE(finished.errors.find("4 of 5 texts failed"), std::string::npos) << finished.errors;
  EXPECT_NE(finished.errors.find("(first: line 2: empty text"), std::string::npos) << finished.errors;
}

TEST_F(Tools, EmbedWorksWithTheLongestTextsUnderTheDefaultLimits) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const std::string input = engine.directory() / "input";
  std::string lines;
  constexpr int kTexts = ByBuild(600, 600, 200);
  for (int i = 0; i < kTexts; ++i) {
    const size_t bytes = i % 100 == 50 ? 10'000'000 : i == kTexts - 1 ? 16u << 20 : 10;
    lines += std::string(bytes - 4, 'x') + std::to_string(1000 + i) + "\n";
  }
  WriteFile(input, lines);
  const Finished finished = Run({SUTRA_EMBED_PROGRAM, "--socket", engine.socket(), "--input", input});
  EXPECT_TRUE(finished.status.exited && finished.status.code == 0) << ToText(finished.status) << finished.errors;
  EXPECT_EQ(std::count(finished.output.begin(), finished.output.end(), '\n'), kTexts);
}

TEST_F(Tools, EmbedFillsTheRowOfABadLineWithNanAndSaysWhichItIs) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const std::string input = engine.directory() / "input";
  const std::string npy = engine.directory() / "vectors.npy";
  WriteFile(input, "one\n\nthree\n");
  const Finished finished = Run(
      {SUTRA_EMBED_PROGRAM, "--socket", engine.socket(), "--input", input, "--output", npy, "--output-format", "npy"});
  EXPECT_EQ(finished.status.code, 1) << finished.errors;
  EXPECT_NE(finished.errors.find("line 2: empty text"), std::string::npos) << finished.errors;
  EXPECT_NE(finished.errors.find("rows are NaN"), std::string::npos) << finished.errors;
  const std::string file = ReadFile(npy);
  std::vector<float> rows(3 * kTestWidth);
  ASSERT_EQ(file.size(), 128 + rows.size() * sizeof(float));
  std::memcpy(rows.data(), file.data() + 128, rows.size() * sizeof(float));
  EXPECT_TRUE(SameVector({rows.begin(), rows.begin() + kTestWidth}, ExpectedVector("one")));
  for (size_t i = kTestWidth; i < 2 * kTestWidth; ++i) EXPECT_TRUE(std::isnan(rows[i])) << i;
  EXPECT_TRUE(SameVector({rows.begin() + 2 * kTestWidth, rows.end()}, ExpectedVector("three")));
}

TEST_F(Tools, EmbedWritesTheClientsVectorsInTheOrderOfItsInput) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const std::vector<std::string> texts = {"first line", "zweite Zeile \xC3\xA4", "\xE6\xBC\xA2\xE5\xAD\x97",
                                          "first line", "with \"quotes\" and \\"};
  std::string lines, jsonl;
  for (const std::string& text : texts) {
    lines += text + "\n";
    jsonl += (jsonl.empty() ? json(text) : json({{"text", text}})).dump() + "\n";
  }
  const std::string input = engine.directory() / "input";
  std::vector<std::vector<float>> vectors;
  for (const char* format : {"lines", "jsonl"}) {
    WriteFile(input, std::string(format) == "lines" ? lines : jsonl);
    const Finished finished =
        Run({SUTRA_EMBED_PROGRAM, "--socket", engine.socket(), "--input", input, "--input-format", format});
    ASSERT_EQ(finished.status.code, 0) << finished.errors;
    std::istringstream output(finished.output);
    size_t count = 0;
    for (std::string line; std::getline(output, line); ++count) {
      ASSERT_LT(count, texts.size());
      const json object = json::parse(line);
      EXPECT_EQ(object["text"], texts[count]);
      const auto vector = object["vector"].get<std::vector<float>>();
      EXPECT_TRUE(SameVector(vector, ExpectedVector(texts[count]))) << line;
      if (std::string(format) == "lines") vectors.push_back(vector);
    }
    EXPECT_EQ(count, texts.size());
  }

  const std::string npy = engine.directory() / "vectors.npy";
  const Finished finished = Run({SUTRA_EMBED_PROGRAM, "--socket", engine.socket(), "--input", input, "--input-format",
                                 "jsonl", "--output", npy, "--output-format", "npy"});
  ASSERT_EQ(finished.status.code, 0) << finished.errors;
  const std::string file = ReadFile(npy);
  const size_t data = texts.size() * kTestWidth * sizeof(float);
  ASSERT_GT(file.size(), data);
  EXPECT_EQ(file.substr(0, 6), "\x93NUMPY");
  EXPECT_NE(file.find("(5, " + std::to_string(kTestWidth) + ")"), std::string::npos);
  for (size_t i = 0; i < texts.size(); ++i) {
    std::vector<float> row(kTestWidth);
    std::memcpy(row.data(), file.data() + file.size() - data + i * kTestWidth * sizeof(float),
                kTestWidth * sizeof(float));
    EXPECT_EQ(row, vectors[i]) << i;
  }
}

TEST_F(Tools, EmbedGivesABadLineItsOwnErrorAndTheOthersTheirVectors) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const std::string input = engine.directory() / "input";
  WriteFile(input, "good\n\nbad \xff\nalso good\n");
  const Finished finished = Run({SUTRA_EMBED_PROGRAM, "--socket", engine.socket(), "--input", input});
  EXPECT_EQ(finished.status.code, 1);
  std::istringstream output(finished.output);
  std::vector<json> objects;
  for (std::string line; std::getline(output, line);) objects.push_back(json::parse(line));
  ASSERT_EQ(objects.size(), 4u);
  EXPECT_TRUE(objects[0].contains("vector"));
  EXPECT_TRUE(objects[1].contains("error"));
  EXPECT_TRUE(objects[2].contains("error"));
  EXPECT_TRUE(SameVector(objects[3]["vector"].get<std::vector<float>>(), ExpectedVector("also good")));
}

TEST_F(Tools, EmbedWithoutAnEngineSaysSo) {
  EngineProcess engine;
  const Finished finished = Run({SUTRA_EMBED_PROGRAM, "--socket", engine.socket(), "--input", "/dev/null"});
  EXPECT_EQ(finished.status.code, 2);
  EXPECT_NE(finished.errors.find(engine.socket()), std::string::npos) << finished.errors;
}

TEST_F(Tools, CaseStudyIsColdThenWarm) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const Finished finished =
      Run({SUTRA_CASESTUDY_PROGRAM, "--socket", engine.socket(), "--json", "--companies", "3", "--days", "2"});
  ASSERT_EQ(finished.status.code, 0) << finished.errors;
  const json report = json::parse(finished.output);
  EXPECT_EQ(report["concepts"], 6);
  EXPECT_EQ(report["cold"]["computed"], report["unique_texts"]);
  EXPECT_EQ(report["warm"]["hits"], report["texts"]);
  EXPECT_EQ(report["warm"]["computed"], 0);
  EXPECT_LE(report["warm_difference_max"].get<double>(), 1e-6);
}

}  // namespace
}  // namespace sutra::test
