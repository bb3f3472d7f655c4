// sutra-embed while its engine stops, dies, comes back or does not, and while somebody presses Ctrl-C: nothing that was
// answered is lost, and the exit code and the summary tell the truth.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/system/system_fixture.h"

namespace sutra::test {
namespace {

using nlohmann::json;

class EmbedRestart : public SystemTest {
 protected:
  // An engine that needs a while for each batch of a few texts, so that many are in flight whenever it ends.
  static EngineOptions Slow() {
    EngineOptions options;
    options.environment = {"SUTRA_FAKE_DELAY_US=3000"};
    options.args = {"--batch-tokens-max", "64"};
    return options;
  }

  static std::unique_ptr<ChildProcess> StartEmbed(const EngineProcess& engine, std::vector<std::string> further = {}) {
    SpawnOptions spawn;
    spawn.args = {SUTRA_EMBED_PROGRAM, "--socket", engine.socket(), "--input",
                  Input(engine),       "--output", Output(engine),  "--no-cache"};
    spawn.args.insert(spawn.args.end(), further.begin(), further.end());
    spawn.log_path = engine.directory() / "embed.log";
    return std::make_unique<ChildProcess>(spawn);
  }
  static std::string Input(const EngineProcess& engine) { return engine.directory() / "input"; }
  static std::string Output(const EngineProcess& engine) { return engine.directory() / "output"; }
  static void WriteInput(const EngineProcess& engine, const std::vector<std::string>& texts) {
    std::string lines;
    for (const std::string& text : texts) lines += text + "\n";
    WriteFile(Input(engine), lines);
  }
  static std::vector<json> Lines(const EngineProcess& engine) {
    std::istringstream stream(ReadFile(Output(engine)));
    std::vector<json> lines;
    for (std::string line; std::getline(stream, line);) lines.push_back(json::parse(line));
    return lines;
  }
  static bool Answered(const EngineProcess& engine, uint64_t count) {
    return engine.WaitStats([&](const StatsSnapshot& s) { return s.counter("replies_ok") >= count; });
  }
  static int CodeOf(ChildProcess& process) {
    const std::optional<ExitStatus> status = process.Wait(kWaitMs);
    return status.has_value() && status->exited ? status->code : -1;
  }

  struct Checked {
    size_t vectors = 0, errors = 0;  // errors that name their line
    std::vector<std::string> wrong;  // anything else
  };
  // What the output says about each text, in order.
  static Checked Check(const EngineProcess& engine, const std::vector<std::string>& texts) {
    const std::vector<json> lines = Lines(engine);
    Checked checked;
    if (lines.size() > texts.size()) checked.wrong.push_back("more lines than texts");
    for (size_t i = 0; i < std::min(lines.size(), texts.size()); ++i) {
      const bool vector = lines[i].contains("vector");
      const bool right = lines[i]["text"] == texts[i] &&
                         (vector ? SameVector(lines[i]["vector"].get<std::vector<float>>(), ExpectedVector(texts[i]))
                                 : lines[i].value("error", "").starts_with("line " + std::to_string(i + 1) + ": "));
      if (!right) checked.wrong.push_back(lines[i].dump());
      ++(vector ? checked.vectors : checked.errors);
    }
    return checked;
  }
  // Returns the number of vectors; an error is one too many unless `errors`.
  static size_t ExpectLines(const EngineProcess& engine, const std::vector<std::string>& texts, bool errors) {
    const Checked checked = Check(engine, texts);
    EXPECT_EQ(checked.wrong, std::vector<std::string>());
    EXPECT_TRUE(errors || checked.errors == 0) << checked.errors << " texts failed";
    return checked.vectors;
  }

  const std::vector<std::string> texts_ = NumberedTexts("in flight at the end", 3000);
};

TEST_F(EmbedRestart, AStoppedEnginesTextsGoToTheNextEngine) {
  EngineProcess engine(Slow());
  ASSERT_TRUE(engine.Start());
  WriteInput(engine, texts_);
  const auto embed = StartEmbed(engine);
  ASSERT_TRUE(Answered(engine, 200));
  EXPECT_EQ(engine.Terminate().code, 0);
  ASSERT_TRUE(engine.Start());
  EXPECT_EQ(CodeOf(*embed), 0) << embed->Log();
  EXPECT_EQ(ExpectLines(engine, texts_, false), texts_.size());
  EXPECT_NE(embed->Log().find("3000 texts in"), std::string::npos) << embed->Log();
}

TEST_F(EmbedRestart, AKilledEnginesTextsGoToTheNextEngine) {
  EngineProcess engine(Slow());
  ASSERT_TRUE(engine.Start());
  WriteInput(engine, texts_);
  const auto embed = StartEmbed(engine);
  for (uint64_t round = 0; round < 2; ++round) {
    ASSERT_TRUE(Answered(engine, 200));
    engine.Kill();
    ASSERT_TRUE(engine.Start());
  }
  EXPECT_EQ(CodeOf(*embed), 0) << embed->Log();
  EXPECT_EQ(ExpectLines(engine, texts_, false), texts_.size());
}

TEST_F(EmbedRestart, WithoutANextEngineEverythingThatWasAnsweredIsWritten) {
  EngineProcess engine(Slow());
  ASSERT_TRUE(engine.Start());
  WriteInput(engine, texts_);
  const auto embed = StartEmbed(engine, {"--wait-engine", "0"});
  ASSERT_TRUE(Answered(engine, 200));
  EXPECT_EQ(engine.Terminate().code, 0);
  const uint64_t answered = engine.Stats().counter("replies_ok");
  EXPECT_EQ(CodeOf(*embed), 3) << embed->Log();
  EXPECT_EQ(ExpectLines(engine, texts_, true), answered) << embed->Log();
  const std::string log = embed->Log();
  EXPECT_NE(log.find("shutting down"), std::string::npos) << log;
  EXPECT_EQ(log.find("overloaded"), std::string::npos) << "it contradicts itself: " << log;
}

TEST_F(EmbedRestart, TextsThatEndOneEngineAfterAnotherAreGivenUp) {
  EngineOptions options;
  options.environment = {"SUTRA_FAKE_DELAY_US=60000000"};
  EngineProcess engine(options);
  ASSERT_TRUE(engine.Start());
  WriteInput(engine, {"one", "two"});
  const auto embed = StartEmbed(engine);
  for (int death = 0; death < 4; ++death) {
    ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& s) { return s.counter("texts") == 2; }));
    engine.Kill();
    ASSERT_TRUE(engine.Start());
  }
  EXPECT_EQ(CodeOf(*embed), 3) << embed->Log();
  EXPECT_EQ(ExpectLines(engine, {"one", "two"}, true), 0u);
  EXPECT_NE(embed->Log().find("4 engines in a row"), std::string::npos) << embed->Log();
}

TEST_F(EmbedRestart, CanaryAnotherTextsVectorAndAnUnnumberedErrorAreNoticed) {
  EngineProcess engine;
  WriteFile(Output(engine), json({{"text", "a"}, {"vector", ExpectedVector("b")}}).dump() + "\n" +
                                json({{"text", "b"}, {"error", "engine gone"}}).dump() + "\n" +
                                json({{"text", "c"}, {"vector", ExpectedVector("c")}}).dump() + "\n");
  EXPECT_EQ(Check(engine, {"a", "b", "c"}).wrong.size(), 2u);
  EXPECT_EQ(Check(engine, {"a", "b"}).wrong.size(), 3u);
}

TEST_F(EmbedRestart, AfterAWaitInVainItSaysWhatItWaitedFor) {
  EngineProcess engine(Slow());
  ASSERT_TRUE(engine.Start());
  WriteInput(engine, texts_);
  const auto embed = StartEmbed(engine, {"--wait-engine", "1"});
  ASSERT_TRUE(Answered(engine, 1));
  engine.Kill();
  EXPECT_EQ(CodeOf(*embed), 3) << embed->Log();
  EXPECT_GT(ExpectLines(engine, texts_, true), 0u);
  const std::string log = embed->Log();
  EXPECT_NE(log.find("waiting up to 1 s"), std::string::npos) << log;
  EXPECT_NE(log.find("no engine serves " + engine.socket()), std::string::npos) << log;
}

TEST_F(EmbedRestart, VectorsOfAnotherModelAreNotMixedIn) {
  EngineProcess engine(Slow());
  ASSERT_TRUE(engine.Start());
  WriteInput(engine, texts_);
  const auto embed = StartEmbed(engine);
  ASSERT_TRUE(Answered(engine, 200));
  EXPECT_EQ(engine.Terminate().code, 0);
  engine.options().args.insert(engine.options().args.end(), {"--fake-width", "64"});
  ASSERT_TRUE(engine.Start());
  EXPECT_EQ(CodeOf(*embed), 3) << embed->Log();
  EXPECT_GE(ExpectLines(engine, texts_, true), 200u);
  EXPECT_NE(embed->Log().find("another model"), std::string::npos) << embed->Log();
}

TEST_F(EmbedRestart, CtrlCWritesWhatWasAnsweredAndSaysSo) {
  for (const int signal : {SIGINT, SIGTERM}) {
    EngineProcess engine(Slow());
    ASSERT_TRUE(engine.Start());
    WriteInput(engine, texts_);
    const auto embed = StartEmbed(engine);
    ASSERT_TRUE(Answered(engine, 100));
    embed->Signal(signal);
    EXPECT_EQ(CodeOf(*embed), 128 + signal) << embed->Log();
    EXPECT_GE(ExpectLines(engine, texts_, true), 100u);
    EXPECT_NE(embed->Log().find(" texts in "), std::string::npos) << "no summary: " << embed->Log();
    EXPECT_NE(embed->Log().find("interrupted by"), std::string::npos) << embed->Log();
  }
}

TEST_F(EmbedRestart, CtrlCEndsARunWhoseEngineIsStopped) {
  EngineProcess engine(Slow());
  ASSERT_TRUE(engine.Start());
  WriteInput(engine, texts_);
  const auto embed = StartEmbed(engine);
  ASSERT_TRUE(Answered(engine, 100));
  engine.process().Stop();
  embed->Signal(SIGINT);
  EXPECT_EQ(CodeOf(*embed), 128 + SIGINT) << embed->Log();
  EXPECT_GE(ExpectLines(engine, texts_, true), 100u);
  engine.process().Continue();
}

TEST_F(EmbedRestart, CtrlCEndsAWaitForInputThatDoesNotCome) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  ASSERT_EQ(mkfifo(Input(engine).c_str(), 0600), 0);
  const auto embed = StartEmbed(engine);
  const int writer = open(Input(engine).c_str(), O_WRONLY | O_CLOEXEC);  // returns when the other end is open too
  ASSERT_GE(writer, 0);
  ASSERT_EQ(write(writer, "one\n", 4), 4);
  ASSERT_TRUE(Answered(engine, 1));
  while (Lines(engine).empty()) usleep(1000);  // written at once, though the input goes on
  embed->Signal(SIGINT);
  EXPECT_EQ(CodeOf(*embed), 128 + SIGINT) << embed->Log();
  EXPECT_EQ(ExpectLines(engine, {"one"}, false), 1u);
  close(writer);
}

TEST_F(EmbedRestart, AnInterruptedNumpyFileIsAbsentAndTheMessageSaysSo) {
  EngineProcess engine(Slow());
  ASSERT_TRUE(engine.Start());
  WriteInput(engine, texts_);
  const auto embed = StartEmbed(engine, {"--output-format", "npy"});
  ASSERT_TRUE(Answered(engine, 100));
  embed->Signal(SIGINT);
  EXPECT_EQ(CodeOf(*embed), 128 + SIGINT) << embed->Log();
  EXPECT_NE(embed->Log().find("no NumPy file is written"), std::string::npos) << embed->Log();
  for (const auto& entry : std::filesystem::directory_iterator(engine.directory().path())) {
    EXPECT_NE(entry.path().filename().string().rfind("output", 0), 0u) << entry.path();
  }
}

}  // namespace
}  // namespace sutra::test
