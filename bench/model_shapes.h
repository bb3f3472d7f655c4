// Batches of token ids for measuring a model alone. Thread rule: plain data.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace sutra::bench {

struct Shape {
  std::string key;
  std::string title;
  std::vector<int32_t> ids;
  std::vector<int32_t> offsets = {0};

  size_t texts() const { return offsets.size() - 1; }
  // [CLS], random words of the BERT vocabulary, [SEP].
  void AddRandom(std::mt19937& random, int tokens) {
    std::uniform_int_distribution<int32_t> id(2000, 29000);
    ids.push_back(101);
    for (int i = 2; i < tokens; ++i) ids.push_back(id(random));
    ids.push_back(102);
    offsets.push_back(static_cast<int32_t>(ids.size()));
  }
};

// a: one text of 10 tokens; b: 32 of 32; c: 16 of 128; d: a mix, one in ten of about 165 tokens, the rest of 4 to 48
// with a median of 11.
inline std::vector<Shape> ModelShapes() {
  std::mt19937 random(5);
  std::vector<Shape> shapes(4);
  shapes[0].key = "a", shapes[0].title = "1 x 10";
  shapes[1].key = "b", shapes[1].title = "32 x 32";
  shapes[2].key = "c", shapes[2].title = "16 x 128";
  shapes[3].key = "d", shapes[3].title = "mix";
  shapes[0].AddRandom(random, 10);
  for (int i = 0; i < 32; ++i) shapes[1].AddRandom(random, 32);
  for (int i = 0; i < 16; ++i) shapes[2].AddRandom(random, 128);
  std::lognormal_distribution<double> fragment(2.4, 0.55);
  for (int i = 0; i < 320; ++i) {
    const int tokens =
        i % 10 == 0 ? 150 + static_cast<int>(random() % 30) : std::clamp(static_cast<int>(fragment(random)), 4, 48);
    shapes[3].AddRandom(random, tokens);
  }
  return shapes;
}

}  // namespace sutra::bench
