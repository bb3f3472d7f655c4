// Puts the model's default prompt in front of every text, as sentence-transformers does. The prompt is a setting of the
// model, so it is part of the model's identity and not of an entry's key.
// Thread rule: as Tokenizer, any number of threads.
#pragma once

#include <memory>
#include <string>

#include "engine/tokenizer/tokenizer.h"

namespace sutra {

class PromptTokenizer final : public Tokenizer {
 public:
  // REQUIRES: the prompt is valid UTF-8.
  PromptTokenizer(std::string prompt, std::unique_ptr<Tokenizer> tokenizer)
      : prompt_(std::move(prompt)), tokenizer_(std::move(tokenizer)) {}

  Encoded Encode(std::string_view text, uint32_t tokens_max, std::vector<int32_t>* ids) const override;

 private:
  const std::string prompt_;
  const std::unique_ptr<Tokenizer> tokenizer_;
};

}  // namespace sutra
