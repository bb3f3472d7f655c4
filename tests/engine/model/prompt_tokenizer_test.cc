// The default prompt goes before every text, and counts towards the limit of tokens.
#include "engine/model/prompt_tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

namespace sutra {
namespace {

// The fake model's tokenizer: bytes are ids.
class Bytes final : public Tokenizer {
 public:
  Encoded Encode(std::string_view text, uint32_t tokens_max, std::vector<int32_t>* ids) const override {
    const size_t kept = std::min<size_t>(text.size(), tokens_max);
    for (size_t i = 0; i < kept; ++i) ids->push_back(static_cast<unsigned char>(text[i]));
    return {static_cast<uint32_t>(kept), kept < text.size()};
  }
};

std::string Encoded8(const Tokenizer& tokenizer, std::string_view text, bool* truncated) {
  std::vector<int32_t> ids;
  *truncated = tokenizer.Encode(text, 8, &ids).truncated;
  return {ids.begin(), ids.end()};
}

TEST(PromptTokenizer, PutsThePromptBeforeEveryText) {
  const PromptTokenizer tokenizer("ask: ", std::make_unique<Bytes>());
  bool truncated = true;
  EXPECT_EQ(Encoded8(tokenizer, "me", &truncated), "ask: me");
  EXPECT_FALSE(truncated);
  EXPECT_EQ(Encoded8(tokenizer, "", &truncated), "ask: ");
  EXPECT_FALSE(truncated);
  EXPECT_EQ(Encoded8(tokenizer, "four", &truncated), "ask: fou");
  EXPECT_TRUE(truncated);
}

}  // namespace
}  // namespace sutra
