// Text to token ids. The one seam between the engine and a vocabulary; WordPiece implements it for the BERT family,
// the fake model maps bytes to ids. No torch, usable alone (`sutra-embed --ids`).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace sutra {

struct Encoded {
  uint32_t token_count = 0;  // ids appended, special tokens included
  bool truncated = false;    // the text had more tokens than fit
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Appends the ids of `text`, special tokens included and at most `tokens_max` of them, to `ids`.
  // Truncation keeps the first tokens, or the last ones where the model's settings say so.
  // REQUIRES: `text` is valid UTF-8; tokens_max >= 2. Never fails; throws only when out of memory.
  // Thread-safe: const and without shared mutable state (each thread has its own scratch).
  virtual Encoded Encode(std::string_view text, uint32_t tokens_max, std::vector<int32_t>* ids) const = 0;
};

}  // namespace sutra
