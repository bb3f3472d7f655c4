// sutra-embed and sutra-stat as programs, without an engine: invalid lines, usage errors, exit codes.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "shm/base/unique_fd.h"
#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

struct Outcome {
  int code = -1;
  std::string out, err;
  std::vector<nlohmann::json> lines() const {
    std::vector<nlohmann::json> parsed;
    std::istringstream stream(out);
    for (std::string line; std::getline(stream, line);) parsed.push_back(nlohmann::json::parse(line));
    return parsed;
  }
};

class ToolProgram : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directory(directory_ / "model");
    Write("model/vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\nworld\n##s\n");
    Write("model/tokenizer_config.json", R"({"do_lower_case": true, "tokenizer_class": "BertTokenizer"})");
    Write("model/config.json",
          R"({"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
              "intermediate_size": 16, "vocab_size": 8, "max_position_embeddings": 12, "hidden_act": "gelu"})");
    std::filesystem::create_directory(directory_ / "model/1_Pooling");
    Write("model/modules.json",
          R"([{"path": "", "type": "sentence_transformers.models.Transformer"},
              {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}])");
    Write("model/1_Pooling/config.json", R"({"pooling_mode": "mean"})");
    Write("model/sentence_bert_config.json", R"({"max_seq_length": 6, "do_lower_case": false})");
  }
  void Write(const std::string& name, const std::string& content) {
    std::ofstream(directory_ / name, std::ios::binary) << content;
  }
  std::string Read(const std::string& name) {
    std::ifstream file(directory_ / name, std::ios::binary);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }
  Outcome Run(const std::string& program, const std::string& arguments, const std::string& input = "") {
    Write("in", input);
    const std::string command = "cd '" + directory_.path() + "' && '" + program + "' " + arguments + " <in >out 2>err";
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128, Read("out"), Read("err")};
  }
  Outcome Ids(const std::string& arguments, const std::string& input) {
    return Run(SUTRA_EMBED_PROGRAM, "--ids --model model " + arguments, input);
  }

  // Starts sutra-embed; its descriptors 1 and 2 are these, or the files out and err.
  pid_t Spawn(const std::vector<std::string>& arguments, int output, int errors) {
    const pid_t child = fork();
    if (child != 0) return child;
    const auto file = [&](const char* name) {
      return open((directory_ / name).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    };
    dup2(output >= 0 ? output : file("out"), STDOUT_FILENO);
    dup2(errors >= 0 ? errors : file("err"), STDERR_FILENO);
    std::vector<char*> argv = {const_cast<char*>(SUTRA_EMBED_PROGRAM)};
    for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    execv(SUTRA_EMBED_PROGRAM, argv.data());
    _exit(127);
  }
  static bool WaitUntil(const std::function<bool()>& condition) {
    for (int i = 0; i < 2000; ++i) {
      if (condition()) return true;
      poll(nullptr, 0, 10);
    }
    return false;
  }
  static bool IsFull(int output) {
    pollfd ready{output, POLLOUT, 0};
    return poll(&ready, 1, 0) == 0;
  }
  static std::string StatusLine(pid_t child, const std::string& name) {
    std::ifstream status("/proc/" + std::to_string(child) + "/status");
    for (std::string line; std::getline(status, line);) {
      if (line.rfind(name + ":", 0) == 0) return line.substr(name.size() + 1);
    }
    return "";
  }
  static bool Sleeps(pid_t child) { return StatusLine(child, "State").find('S') != std::string::npos; }
  static bool CatchesSigint(pid_t child) {
    return (std::strtoull(StatusLine(child, "SigCgt").c_str(), nullptr, 16) >> (SIGINT - 1) & 1) != 0;
  }
  // The exit code of a child that ends by itself; -1 if it has to be killed, 1000 + its signal if one ended it.
  static int CodeOf(pid_t child) {
    int status = 0;
    const bool ended = WaitUntil([&] { return waitpid(child, &status, WNOHANG) == child; });
    if (!ended) {
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
      return -1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  }

  const test::TempDir directory_;
};

TEST_F(ToolProgram, IdsComeInInputOrderOneLineEach) {
  const Outcome run = Ids("", "Hello world\nworlds\n");
  EXPECT_EQ(run.code, 0) << run.err;
  ASSERT_EQ(run.lines().size(), 2u);
  EXPECT_EQ(run.lines()[0], (nlohmann::json{{"text", "Hello world"}, {"ids", {2, 5, 6, 3}}}));
  EXPECT_EQ(run.lines()[1]["ids"], (std::vector<int>{2, 6, 7, 3}));
  EXPECT_NE(run.err.find("2 texts in"), std::string::npos) << run.err;
  EXPECT_NE(run.err.find("tokens/s"), std::string::npos) << run.err;
}

TEST_F(ToolProgram, BadLinesLeaveErrorLinesInTheirPlacesAndAnExitCode) {
  const Outcome run =
      Ids("--input-format jsonl", "\"hello\"\n{\"text\": 3}\n[1\n\"\xff\"\n\"\"\n{\"text\": \"world\"}\n");
  EXPECT_EQ(run.code, 1);
  const auto lines = run.lines();
  ASSERT_EQ(lines.size(), 6u);
  EXPECT_TRUE(lines[0].contains("ids"));
  for (const size_t bad : {1, 2, 3}) {
    EXPECT_NE(lines[bad]["error"].get<std::string>().find("line " + std::to_string(bad + 1)), std::string::npos);
  }
  EXPECT_EQ(lines[4]["ids"], (std::vector<int>{2, 3})) << "an empty text has its special tokens";
  EXPECT_TRUE(lines[5].contains("ids"));
  EXPECT_NE(run.err.find("3 of 6 texts failed"), std::string::npos) << run.err;
}

TEST_F(ToolProgram, LongTextsAreTruncatedOrRejectedAsAsked) {
  const std::string text = "hello hello hello hello hello hello hello\n";
  EXPECT_EQ(Ids("", text).lines()[0]["ids"], (std::vector<int>{2, 5, 5, 5, 5, 3}));
  EXPECT_EQ(Ids("--max-tokens 4", text).lines()[0]["ids"], (std::vector<int>{2, 5, 5, 3}));
  const Outcome rejected = Ids("--reject", text);
  EXPECT_EQ(rejected.code, 1);
  EXPECT_NE(rejected.lines()[0]["error"].get<std::string>().find("6 tokens"), std::string::npos);
}

TEST_F(ToolProgram, IdsAreCutWhereTheEngineCuts) {
  const std::string text = "hello hello hello hello hello hello hello hello hello hello hello hello hello\n";
  // The position table has 12 rows: a longer max_seq_length means 12, as does none.
  Write("model/sentence_bert_config.json", R"({"max_seq_length": 1000})");
  EXPECT_EQ(Ids("", text).lines()[0]["ids"].size(), 12u);
  Write("model/sentence_bert_config.json", "{}");
  EXPECT_EQ(Ids("", text).lines()[0]["ids"].size(), 12u);
  // Without one the tokenizer's own limit counts.
  Write("model/tokenizer_config.json",
        R"({"do_lower_case": true, "tokenizer_class": "BertTokenizer", "model_max_length": 5})");
  EXPECT_EQ(Ids("", text).lines()[0]["ids"].size(), 5u);
}

TEST_F(ToolProgram, IdsHaveTheDefaultPromptAndTheCaseOfTheModelsFolder) {
  Write("model/config_sentence_transformers.json", R"({"prompts": {"q": "world "}, "default_prompt_name": "q"})");
  EXPECT_EQ(Ids("", "hello\n").lines()[0]["ids"], (std::vector<int>{2, 6, 5, 3}));
  Write("model/config_sentence_transformers.json", "{}");
  Write("model/tokenizer_config.json", R"({"do_lower_case": false, "tokenizer_class": "BertTokenizer"})");
  EXPECT_EQ(Ids("", "Hello hello\n").lines()[0]["ids"], (std::vector<int>{2, 1, 5, 3}));
}

TEST_F(ToolProgram, HelpListsTheExitCodes) {
  const Outcome help = Run(SUTRA_EMBED_PROGRAM, "--help");
  EXPECT_EQ(help.code, 0);
  for (const char* code : {"Exit codes:", "  0 ", "  1 ", "  2 ", "  3 ", "130 143"}) {
    EXPECT_NE(help.out.find(code), std::string::npos) << code << "\n" << help.out;
  }
}

TEST_F(ToolProgram, OutputGoesToAFileAndQuietSaysNothing) {
  const Outcome run = Ids("--quiet --output result.jsonl", "hello\n");
  EXPECT_EQ(run.code, 0);
  EXPECT_EQ(run.out + run.err, "");
  EXPECT_EQ(Read("result.jsonl"), "{\"text\":\"hello\",\"ids\":[2,5,3]}\n");
}

TEST_F(ToolProgram, AnOutputThatIsTheInputIsAWrongCallAndDestroysNothing) {
  Write("texts", "hello\n");
  std::filesystem::create_symlink("texts", directory_ / "link");
  for (const char* files : {"--input texts --output texts", "--input link --output ./texts", "--output link <texts",
                            "--input texts >>texts"}) {
    const std::string command =
        "cd '" + directory_.path() + "' && '" + SUTRA_EMBED_PROGRAM + "' --ids --model model " + files + " 2>err";
    const int status = std::system(command.c_str());
    EXPECT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : 128, 2) << files;
    EXPECT_NE(Read("err").find("is the input"), std::string::npos) << files << "\n" << Read("err");
    EXPECT_EQ(Read("texts"), "hello\n") << files;
  }
}

// Standard output is a full pipe that nobody reads, and in the second round standard error too.
TEST_F(ToolProgram, OneInterruptionEndsARunWhoseOutputIsBlockedAndSaysWhatIsNotWritten) {
  for (const bool with_errors : {false, true}) {
    int pipe_ends[2];
    ASSERT_EQ(pipe(pipe_ends), 0);
    const UniqueFd unread(pipe_ends[0]), output(pipe_ends[1]);
    std::string many;
    for (int i = 0; i < 100'000; ++i) many += "hello world\n";  // several MiB of ids
    Write("texts", many);
    const pid_t child = Spawn({"--ids", "--model", directory_ / "model", "--input", directory_ / "texts"}, output.get(),
                              with_errors ? output.get() : -1);
    ASSERT_TRUE(WaitUntil([&] { return IsFull(output.get()) && Sleeps(child); })) << "the pipe never filled";
    kill(child, SIGINT);
    const int code = CodeOf(child);
    EXPECT_EQ(code, 128 + SIGINT) << "with_errors " << with_errors;
    if (with_errors) continue;
    EXPECT_NE(Read("err").find("interrupted by SIGINT"), std::string::npos) << Read("err");
    EXPECT_NE(Read("err").find("are not written"), std::string::npos) << Read("err");
    EXPECT_EQ(fcntl(output.get(), F_GETFL) & O_NONBLOCK, 0) << "others share this descriptor";
  }
}

TEST_F(ToolProgram, AnInterruptionEndsTheWaitForTheReaderOfAFifo) {
  ASSERT_EQ(mkfifo((directory_ / "fifo").c_str(), 0600), 0);
  Write("texts", "hello\n");
  const pid_t child = Spawn(
      {"--ids", "--model", directory_ / "model", "--input", directory_ / "texts", "--output", directory_ / "fifo"}, -1,
      -1);
  ASSERT_TRUE(WaitUntil([&] { return CatchesSigint(child) && Sleeps(child); })) << "it never waited";
  kill(child, SIGINT);
  EXPECT_EQ(CodeOf(child), 128 + SIGINT);
  EXPECT_NE(Read("err").find("nothing reads the output"), std::string::npos) << Read("err");
}

TEST_F(ToolProgram, NoInputGivesNoOutput) {
  const Outcome run = Ids("", "");
  EXPECT_EQ(run.code, 0);
  EXPECT_EQ(run.out, "");
}

TEST_F(ToolProgram, WrongUsageNamesWhatIsMissing) {
  EXPECT_EQ(Run(SUTRA_EMBED_PROGRAM, "").code, 2);
  EXPECT_NE(Run(SUTRA_EMBED_PROGRAM, "").err.find("--socket"), std::string::npos);
  EXPECT_NE(Run(SUTRA_EMBED_PROGRAM, "--ids").err.find("--model DIR"), std::string::npos);
  EXPECT_EQ(Run(SUTRA_EMBED_PROGRAM, "--nonsense").code, 2);
  EXPECT_EQ(Run(SUTRA_EMBED_PROGRAM, "--socket s --raw --normalize").code, 2);
  EXPECT_EQ(Run(SUTRA_EMBED_PROGRAM, "--ids --model model --input missing").code, 2);
  EXPECT_EQ(Run(SUTRA_EMBED_PROGRAM, "--ids --model nowhere").code, 2);
  EXPECT_EQ(Run(SUTRA_EMBED_PROGRAM, "--help").code, 0);
}

TEST_F(ToolProgram, WithoutAnEngineNoOutputFileIsTouched) {
  Write("old.jsonl", "precious");
  const Outcome run = Run(SUTRA_EMBED_PROGRAM, "--socket nobody.sock --output old.jsonl", "hello\n");
  EXPECT_EQ(run.code, 2);
  EXPECT_NE(run.err.find("nobody.sock"), std::string::npos) << run.err;
  EXPECT_EQ(Read("old.jsonl"), "precious");
}

TEST_F(ToolProgram, StatWithoutASegmentNamesTheFix) {
  const Outcome run = Run(SUTRA_STAT_PROGRAM, "--socket engine.sock");
  EXPECT_EQ(run.code, 1);
  EXPECT_NE(run.err.find("sutra-engine --model"), std::string::npos) << run.err;
  EXPECT_EQ(Run(SUTRA_STAT_PROGRAM, "--nonsense").code, 1);
}

}  // namespace
}  // namespace sutra
