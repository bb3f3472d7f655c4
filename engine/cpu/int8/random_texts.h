// Texts of random words of a vocabulary, between the special tokens (and the prompt) that the tokenizer puts around
// every text. No corpus is needed: what products see in such texts is as varied as in real ones. Where a text repeats
// few words (rulers, runs of signs, lists), attention and the residual stream go in directions that no text of unlike
// words takes; `distinct_max` makes texts of that kind. Thread rule: stateless.
#pragma once

#include <cstdint>

#include "engine/cpu/int8/token_texts.h"
#include "engine/tokenizer/tokenizer.h"

namespace sutra::cpu {

struct RandomTexts {
  size_t count = 0;
  uint32_t words_min = 0;  // random ids per text, special tokens not counted
  uint32_t words_max = 0;
  uint32_t draws = 1;         // a length is the smallest of so many draws: with more, short texts are more frequent
  uint32_t distinct_max = 0;  // not 0: a text has at most so many different words, each drawn again and again
  bool signs = false;         // the words are single printable ASCII characters instead of the whole vocabulary
  uint32_t seed = 0;
};

// The same texts for the same tokenizer settings, on every machine. Texts are cut to tokens_max.
// REQUIRES 1 <= words_min <= words_max, vocabulary >= 1.
void AppendRandomTexts(const RandomTexts& what, const Tokenizer& tokenizer, uint32_t vocabulary, uint32_t tokens_max,
                       TokenTexts* texts);

}  // namespace sutra::cpu
