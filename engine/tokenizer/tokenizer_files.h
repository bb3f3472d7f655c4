// The files of a model directory that say how its text becomes ids, read once: parsing, identity and messages all come
// from the same bytes, whatever happens to the files meanwhile.
// Thread rule: plain data after ReadTokenizerFiles.
#pragma once

#include <optional>
#include <string>

#include "shm/base/status.h"

namespace sutra {

struct TokenizerFiles {
  std::string directory;
  // The bytes of each file; none if there is no such file.
  std::optional<std::string> tokenizer_json;
  std::optional<std::string> vocab_txt;
  std::optional<std::string> tokenizer_config;    // tokenizer_config.json
  std::optional<std::string> special_tokens_map;  // special_tokens_map.json
  std::optional<std::string> added_tokens;        // added_tokens.json
  // Text is lower-cased although the tokenizer keeps case (do_lower_case of sentence_bert_config.json). As in
  // sentence-transformers 6, literals such as [SEP] are found before that.
  bool lowercase_text = false;
};

// Fails with kModelError for a file that cannot be read; absent files are no error here.
Result<TokenizerFiles> ReadTokenizerFiles(const std::string& model_dir);

}  // namespace sutra
