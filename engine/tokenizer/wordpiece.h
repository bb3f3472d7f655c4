// WordPiece for the BERT family: the ids of the Hugging Face fast tokenizer, on every Unicode string.
//
// Immutable after Load: Encode may be called from any number of threads; each thread keeps its own scratch and its own
// small cache of recent words. Invariants:
// - Work is linear in the bytes of the text, whatever they are, and no allocation depends on anything but the ids.
// - ASCII words take the fast path; a word with any other byte takes the exact path (wordpiece.cc, class Encoder).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/vocab_trie.h"
#include "shm/base/status.h"

namespace sutra {

// A literal that is found in the raw text before anything else, such as "[SEP]".
struct AddedToken {
  std::string content;
  int32_t id = 0;
};

// What a model directory says about its tokenizer.
struct WordPieceConfig {
  std::vector<std::pair<std::string, int32_t>> vocabulary;  // unique tokens
  std::vector<AddedToken> added_tokens;
  std::string continuing_prefix = "##";
  std::string unk_token = "[UNK]";
  int32_t cls_id = -1;
  int32_t sep_id = -1;
  uint32_t word_chars_max = 100;  // a longer word is one [UNK]
  bool clean_text = true;
  bool handle_chinese_chars = true;
  bool strip_accents = true;
  bool strip_accents_follows_lowercase = false;  // strip_accents is not set itself: it is what `lowercase` is
  bool lowercase = true;
  bool truncate_left = false;  // a text that is too long keeps its last tokens
};

struct TokenizerFiles;

class WordPieceTokenizer final : public Tokenizer {
 public:
  static constexpr uint32_t kWordCharsLimit = 1000;

  // From tokenizer.json, or vocab.txt where there is none, and the settings beside it (tokenizer_settings.h). The files
  // are untrusted: a missing, damaged or unsupported one is kModelError, and the message names the file and what was
  // found in it.
  static Result<std::unique_ptr<WordPieceTokenizer>> FromFiles(const TokenizerFiles& files);
  // Reads the files of `model_dir`.
  static Result<std::unique_ptr<WordPieceTokenizer>> Load(const std::string& model_dir);

  // From the text of a tokenizer.json alone; `name` stands for the file in messages.
  static Result<std::unique_ptr<WordPieceTokenizer>> FromJson(std::string_view json, const std::string& name);

  static Result<std::unique_ptr<WordPieceTokenizer>> FromConfig(WordPieceConfig config, const std::string& name);

  Encoded Encode(std::string_view text, uint32_t tokens_max, std::vector<int32_t>* ids) const override;

  // The largest id + 1: a model needs at least as many rows in its embedding table.
  uint32_t vocab_size() const { return vocab_size_; }
  int32_t cls_id() const { return config_.cls_id; }
  int32_t sep_id() const { return config_.sep_id; }
  int32_t unk_id() const { return unk_id_; }

  // What else but the vocabulary determines the ids, one canonical line per setting: part of a model's identity.
  std::vector<std::string> Settings() const;
  // 64 hex digits: SHA-256 over the tokens in the order of their ids.
  const std::string& vocabulary_digest() const { return vocabulary_digest_; }

 private:
  class Encoder;

  explicit WordPieceTokenizer(WordPieceConfig config);
  Status Prepare(const std::string& name);

  WordPieceConfig config_;  // without the vocabulary, which lives in the trie
  VocabTrie trie_;
  std::array<int32_t, 128> ascii_char_id_{};    // the id of each ASCII character as a word of its own
  std::array<bool, 128> added_token_starts_{};  // first bytes of added tokens
  uint32_t serial_;                             // tells this tokenizer's words apart in the per-thread caches
  uint32_t vocab_size_ = 0;
  int32_t unk_id_ = -1;
  std::string vocabulary_digest_;
};

}  // namespace sutra
