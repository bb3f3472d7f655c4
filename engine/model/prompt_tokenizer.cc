// The prompt and the text are one string for the tokenizer: words may form across their border.
#include "engine/model/prompt_tokenizer.h"

namespace sutra {

Encoded PromptTokenizer::Encode(std::string_view text, uint32_t tokens_max, std::vector<int32_t>* ids) const {
  thread_local std::string whole;
  whole = prompt_;
  whole += text;
  return tokenizer_->Encode(whole, tokens_max, ids);
}

}  // namespace sutra
