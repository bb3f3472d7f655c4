// What surrounds a text is what two unlike texts have in common at both ends.
#include "engine/cpu/int8/random_texts.h"

#include <algorithm>
#include <vector>

namespace sutra::cpu {
namespace {

struct Frame {
  std::vector<int32_t> before;
  std::vector<int32_t> after;
};

Frame FrameOf(const Tokenizer& tokenizer, uint32_t tokens_max) {
  std::vector<int32_t> one, other;
  (void)tokenizer.Encode("a", tokens_max, &one);
  (void)tokenizer.Encode("7", tokens_max, &other);
  const auto front = std::mismatch(one.begin(), one.end(), other.begin(), other.end()).first;
  const auto back = std::mismatch(one.rbegin(), std::make_reverse_iterator(front), other.rbegin(), other.rend()).first;
  return {.before = {one.begin(), front}, .after = {back.base(), one.end()}};
}

// What the tokenizer makes of each printable ASCII character.
std::vector<int32_t> SignsOf(const Tokenizer& tokenizer, const Frame& frame, uint32_t tokens_max) {
  std::vector<int32_t> signs, ids;
  for (char sign = '!'; sign <= '~'; ++sign) {
    ids.clear();
    (void)tokenizer.Encode({&sign, 1}, tokens_max, &ids);
    if (ids.size() < frame.before.size() + frame.after.size()) continue;  // cut
    signs.insert(signs.end(), ids.begin() + static_cast<ptrdiff_t>(frame.before.size()),
                 ids.end() - static_cast<ptrdiff_t>(frame.after.size()));
  }
  return signs;
}

// Numerical Recipes' generator, by its upper bits: the standard's distributions differ between libraries.
class Draws {
 public:
  explicit Draws(uint32_t seed) : state_(seed) {}
  uint32_t Below(uint32_t bound) {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;
    return static_cast<uint32_t>(((state_ >> 32) * bound) >> 32);
  }

 private:
  uint64_t state_;
};

}  // namespace

void AppendRandomTexts(const RandomTexts& what, const Tokenizer& tokenizer, uint32_t vocabulary, uint32_t tokens_max,
                       TokenTexts* texts) {
  const Frame frame = FrameOf(tokenizer, tokens_max);
  // None, where a prompt leaves no room: one token more would have no position.
  const uint32_t room = tokens_max - static_cast<uint32_t>(frame.before.size() + frame.after.size());
  const std::vector<int32_t> signs = what.signs ? SignsOf(tokenizer, frame, tokens_max) : std::vector<int32_t>();
  Draws draws(what.seed);
  const auto draw_word = [&] {
    if (!signs.empty()) return signs[draws.Below(static_cast<uint32_t>(signs.size()))];
    return static_cast<int32_t>(draws.Below(vocabulary));
  };
  std::vector<int32_t> distinct;
  for (size_t i = 0; i < what.count; ++i) {
    uint32_t words = what.words_max;
    for (uint32_t draw = 0; draw < what.draws; ++draw) {
      words = std::min(words, what.words_min + draws.Below(what.words_max - what.words_min + 1));
    }
    distinct.resize(what.distinct_max == 0 ? 0 : 1 + draws.Below(what.distinct_max));
    std::generate(distinct.begin(), distinct.end(), draw_word);
    texts->ids.insert(texts->ids.end(), frame.before.begin(), frame.before.end());
    for (uint32_t word = 0; word < std::min(words, room); ++word) {
      texts->ids.push_back(distinct.empty() ? draw_word()
                                            : distinct[draws.Below(static_cast<uint32_t>(distinct.size()))]);
    }
    texts->ids.insert(texts->ids.end(), frame.after.begin(), frame.after.end());
    texts->EndText();
  }
}

}  // namespace sutra::cpu
