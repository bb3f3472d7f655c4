// The configuration and tokenizer files of a model directory, with any content: a checked configuration, a tokenizer
// that works, or a Status that names the file. Never an exception.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <optional>

#include "engine/model/loaded_model.h"
#include "engine/model/model_config.h"
#include "engine/tokenizer/wordpiece.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/kit/temp_dir.h"

namespace sutra::fuzz {
namespace {

constexpr std::array kFiles = {"config.json",
                               "modules.json",
                               "1_Pooling/config.json",
                               "sentence_bert_config.json",
                               "tokenizer_config.json",
                               "vocab.txt",
                               "tokenizer.json",
                               "config_sentence_transformers.json",
                               "special_tokens_map.json",
                               "added_tokens.json"};

constexpr std::array<const char*, kFiles.size()> kRight = {
    R"({"model_type":"bert","hidden_size":4,"num_hidden_layers":1,"num_attention_heads":2,"intermediate_size":8,)"
    R"("vocab_size":9,"max_position_embeddings":16,"hidden_act":"gelu","layer_norm_eps":1e-12})",
    R"([{"idx":0,"name":"0","path":"","type":"sentence_transformers.models.Transformer"},)"
    R"({"idx":1,"name":"1","path":"1_Pooling","type":"sentence_transformers.models.Pooling"},)"
    R"({"idx":2,"name":"2","path":"2_Normalize","type":"sentence_transformers.models.Normalize"}])",
    R"({"word_embedding_dimension":4,"pooling_mode_cls_token":false,"pooling_mode_mean_tokens":true})",
    R"({"max_seq_length":8,"do_lower_case":false})",
    R"({"do_lower_case":true,"model_max_length":12,"tokenizer_class":"BertTokenizer","unk_token":"[UNK]"})",
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\n##s\na\n,\n",
    R"({"added_tokens":[{"id":2,"content":"[CLS]","special":true}],"normalizer":{"type":"BertNormalizer",)"
    R"("clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},)"
    R"("pre_tokenizer":{"type":"BertPreTokenizer"},"post_processor":{"type":"BertProcessing","sep":["[SEP]",3],)"
    R"("cls":["[CLS]",2]},"model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##",)"
    R"("max_input_chars_per_word":100,"vocab":{"[PAD]":0,"[UNK]":1,"[CLS]":2,"[SEP]":3,"the":4,"##s":5,"a":6}}})",
    R"({"__version__":{},"prompts":{"q":"the "},"default_prompt_name":"q","truncate_dim":3})",
    R"({"cls_token":"[CLS]","sep_token":{"content":"[SEP]","lstrip":false}})",
    "{}"};

struct Directory {
  // In memory where there is such a place: the files are written again and again.
  const test::TempDir temp{access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"};
  const std::string path = temp.path();
  Directory() { FUZZ_CHECK(mkdir((temp / "1_Pooling").c_str(), 0700) == 0); }
  // Writes `bytes` into the file, or removes it if there is no value. A file that holds them already is left alone:
  // writing is most of the time.
  void Set(size_t index, const std::optional<std::string>& bytes) {
    if (now_[index] == bytes) return;
    now_[index] = bytes;
    const char* file = kFiles[index];
    if (!bytes.has_value()) {
      unlink((path + "/" + file).c_str());
      return;
    }
    const int fd = open((path + "/" + file).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FUZZ_CHECK(fd >= 0 && write(fd, bytes->data(), bytes->size()) == static_cast<ssize_t>(bytes->size()));
    close(fd);
  }

 private:
  std::array<std::optional<std::string>, kFiles.size()> now_;
};

// Replaces a part of the valid content, or all of it.
std::string Content(Input* input, size_t file) {
  std::string text = kRight[file];
  const uint8_t edits = input->Byte();
  if (edits % 16 == 0) return std::string(input->Rest());
  for (unsigned i = 0; i < edits % 4u; ++i) {
    const size_t at = input->U16() % (text.size() + 1);
    const size_t cut = input->Byte() % 24u;
    const uint8_t kind = input->Byte();
    static constexpr std::array kValues = {
        "null", "-1",  "1e999",  "18446744073709551616", "\"\\u0000\"", "[]",   "{}",
        "true", "0.5", "\"..\"", "4294967296",           "\"/\"",       "[[[[", "\"\xff\""};
    const std::string value = kind < 128 ? kValues[kind % kValues.size()] : std::string(input->Take(kind % 16u));
    text.replace(at, std::min(cut, text.size() - at), value);
  }
  return text;
}

// `word_piece`, where it is known, bounds the ids.
void UseTokenizer(const Tokenizer& tokenizer, const WordPieceTokenizer* word_piece) {
  for (const char* text : {"", "the cats, a [CLS] \u00e9\u4e2d", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}) {
    for (const uint32_t tokens_max : {2u, 3u, 64u}) {
      std::vector<int32_t> ids;
      const Encoded encoded = tokenizer.Encode(text, tokens_max, &ids);
      FUZZ_CHECK(encoded.token_count == ids.size() && ids.size() <= tokens_max && ids.size() >= 2);
      for (const int32_t id : ids) {
        FUZZ_CHECK(id >= 0 && (word_piece == nullptr || static_cast<uint32_t>(id) < word_piece->vocab_size()));
      }
    }
  }
}

}  // namespace

SUTRA_FUZZ_TARGET(model_files, 4096) {
  static Directory directory;
  Input input(data, size);
  const uint32_t spoilt = input.Below(static_cast<uint32_t>(kFiles.size()));
  const bool old_tokenizer = input.Below(2) == 0;  // no tokenizer.json
  for (size_t file = 0; file < kFiles.size(); ++file) {
    const bool absent = kFiles[file] == std::string_view("tokenizer.json") && old_tokenizer;
    if (absent)
      directory.Set(file, std::nullopt);
    else
      directory.Set(file, file == spoilt ? Content(&input, file) : kRight[file]);
  }
  const Result<ModelConfig> config = LoadModelConfig(directory.path);
  if (config.ok()) {
    FUZZ_CHECK(config->spec.heads > 0 && config->spec.hidden % config->spec.heads == 0 && config->spec.hidden <= 8192);
    FUZZ_CHECK(config->spec.tokens_max >= 2 && config->spec.tokens_max <= config->spec.positions);
    FUZZ_CHECK(config->weights_path.starts_with(directory.path));
    FUZZ_CHECK(config->width >= 1 && config->width <= config->spec.hidden);
    const Result<std::unique_ptr<Tokenizer>> made = MakeTokenizer(*config);
    if (made.ok()) UseTokenizer(**made, nullptr);
  } else {
    FUZZ_CHECK(config.code() == StatusCode::kModelError && !config.status().message().empty());
  }
  const Result<std::unique_ptr<WordPieceTokenizer>> tokenizer = WordPieceTokenizer::Load(directory.path);
  if (tokenizer.ok())
    UseTokenizer(**tokenizer, tokenizer->get());
  else
    FUZZ_CHECK(tokenizer.code() == StatusCode::kModelError && !tokenizer.status().message().empty());
}

}  // namespace sutra::fuzz
