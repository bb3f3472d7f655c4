// sutra-embed and sutra-stat as programs, without an engine: invalid lines, usage errors, exit codes.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

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
