// What a text costs, as the order of service and the budget of a batch count it: the work of one token of the model is
// one. Pure functions; no state.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace sutra {

// Until a text is tokenised it is taken for one token per four bytes, as English is.
inline constexpr size_t kBytesPerToken = 4;

// Tokenising is work too, and not all bytes become tokens: 64 KiB of one word in accented letters are 3 tokens and 0.76
// ms, where the same bytes of English are cut to the 512 tokens that a model of the BERT family takes. So a text costs
// at least a token per 65,536 / 512 = 128 bytes, which charges both alike, and bounds what tokenising adds to a batch:
// 4,096 tokens are at most 512 KiB of such text, about 6 ms.
inline constexpr size_t kBytesPerCost = 128;

// Answering is work as well: a vector copied and a slot published takes half a microsecond, a token of a small model on
// a CPU thirty, on a GPU less than one. Without a charge a client could have a quarter of a million requests join one
// text, whose answers then stand in everybody's way.
inline constexpr size_t kAnswersPerCost = 4;

constexpr uint32_t TextCost(size_t bytes, uint32_t tokens, size_t answers = 1) {
  return std::max({tokens, static_cast<uint32_t>(bytes / kBytesPerCost),
                   static_cast<uint32_t>(answers / kAnswersPerCost), uint32_t{1}});
}

// `tokens_max`: where the model cuts a text.
constexpr uint32_t EstimatedTextCost(size_t bytes, uint32_t tokens_max) {
  return TextCost(bytes, static_cast<uint32_t>(std::min<size_t>(bytes / kBytesPerToken, tokens_max)));
}
static_assert(TextCost(65'536, 3) == 512 && EstimatedTextCost(65'536, 512) == 512 && EstimatedTextCost(0, 512) == 1 &&
              TextCost(8, 2, 4096) == 1024);

}  // namespace sutra
