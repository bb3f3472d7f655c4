// Streams of requests for the eviction benchmark: which text is asked for next, and how many tokens it has. The same
// seed gives the same stream everywhere: nothing here depends on the standard library's distributions.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

namespace sutra::bench {

struct Request {
  uint32_t key = 0;
  uint16_t tokens = 0;
  bool counted = true;  // not one of a bulk job, which no cache can answer
};

enum class Moves {
  kNot,
  kJumps,   // ten times in all, another tenth of the keys becomes the popular one
  kDrifts,  // a rank every 100 requests
  kFast,    // a rank every 10 requests
};

struct StreamKind {
  const char* name;
  const char* title;
  double skew;
  Moves moves = Moves::kNot;
  bool bursts = false;       // one fifth of the requests ask for something new, in bursts of a twentieth of the keys
  bool long_rarely = false;  // popular texts are short, those of the bulk job long; else tokens and popularity are
                             // independent
};

// Tokens from 3 to 512, the median as given: a few long texts have most of the tokens.
class TokenCounts {
 public:
  explicit TokenCounts(uint64_t seed) : random_(seed) {}
  uint16_t Next(double median) {
    double sum = 0;
    for (int i = 0; i < 12; ++i) sum += static_cast<double>(random_() >> 11) * 0x1p-53;
    return static_cast<uint16_t>(std::clamp(median * std::exp(sum - 6), 3.0, 512.0));
  }

 private:
  std::mt19937_64 random_;
};

// Keys are numbers below `keys` plus those that are new.
inline std::vector<Request> MakeStream(const StreamKind& kind, uint32_t keys, uint32_t requests, uint64_t seed) {
  std::mt19937_64 random(seed);
  TokenCounts tokens(seed + 1);
  std::vector<double> sums(keys);  // of the probabilities of the ranks so far
  double sum = 0;
  for (uint32_t rank = 0; rank < keys; ++rank) sums[rank] = sum += std::pow(rank + 1, -kind.skew);
  std::vector<uint32_t> key_of(keys);  // by place; the place of a rank moves
  std::iota(key_of.begin(), key_of.end(), 0);
  for (uint32_t i = keys - 1; i > 0; --i) std::swap(key_of[i], key_of[random() % (i + 1)]);
  std::vector<uint16_t> tokens_of(keys);  // by place
  for (uint32_t i = 0; i < keys; ++i) {
    tokens_of[i] = tokens.Next(kind.long_rarely ? 4 + 100.0 * i / keys : 40);
  }
  const double bulk_median = kind.long_rarely ? 120 : 40;
  uint32_t next_new = keys;
  std::vector<Request> stream;
  stream.reserve(requests);
  for (uint32_t i = 0; i < requests; ++i) {
    if (kind.bursts && i / (keys / 20) % 5 == 4) {
      stream.push_back(Request{next_new++, tokens.Next(bulk_median), false});
      continue;
    }
    const double drawn = static_cast<double>(random() >> 11) * 0x1p-53 * sum;
    const auto rank = static_cast<uint32_t>(std::lower_bound(sums.begin(), sums.end(), drawn) - sums.begin());
    uint32_t moved = 0;
    if (kind.moves == Moves::kJumps) moved = i / (requests / 10) * (keys / 10);
    if (kind.moves == Moves::kDrifts) moved = i / 100;
    if (kind.moves == Moves::kFast) moved = i / 10;
    const uint32_t place = (std::min(rank, keys - 1) + moved) % keys;
    stream.push_back(Request{key_of[place], tokens_of[place], true});
  }
  return stream;
}

}  // namespace sutra::bench
