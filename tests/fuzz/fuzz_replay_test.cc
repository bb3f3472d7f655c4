// Runs every fuzz target without clang: the checked-in corpus, then seeded random mutations of it.
//   SUTRA_SEED=N        repeats a run
//   SUTRA_FUZZ_RUNS=N   mutations per target (default: a few thousand)
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "tests/fuzz/fuzz_target.h"
#include "tests/kit/seed.h"

namespace sutra::fuzz {
namespace {

using Bytes = std::vector<uint8_t>;

std::vector<Bytes> Corpus(const std::string& target) {
  std::vector<Bytes> corpus(1);  // the empty input always belongs to it
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(SUTRA_FUZZ_CORPUS) + "/" + target)) {
    paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    const std::string bytes = text.str();
    corpus.emplace_back(bytes.begin(), bytes.end());
  }
  return corpus;
}

uint64_t Seed() { return test::TestSeed(20240607); }

class Mutations {
 public:
  explicit Mutations(uint64_t seed) : random_(seed) {}

  Bytes Next(const std::vector<Bytes>& corpus, size_t bytes_max) {
    Bytes bytes = corpus[Below(corpus.size())];
    if (Below(4) == 0) Append(&bytes, 1 + Below(200));  // structured targets read it as more of their program
    for (size_t i = 1 + Below(8); i > 0; --i) MutateOnce(corpus, &bytes);
    if (bytes.size() > bytes_max) bytes.resize(bytes_max);
    return bytes;
  }

 private:
  size_t Below(size_t bound) { return random_() % bound; }
  uint8_t Byte() { return static_cast<uint8_t>(random_()); }

  void Append(Bytes* bytes, size_t count) {
    for (size_t i = 0; i < count; ++i) bytes->push_back(Byte());
  }

  void MutateOnce(const std::vector<Bytes>& corpus, Bytes* bytes) {
    static constexpr uint8_t kEdges[] = {0, 1, 2, 7, 8, 0x1f, 0x20, 0x7f, 0x80, 0xc2, 0xe0, 0xf0, 0xff};
    if (bytes->empty()) return Append(bytes, 1 + Below(64));
    const size_t at = Below(bytes->size());
    const auto place = bytes->begin() + static_cast<std::ptrdiff_t>(at);
    switch (Below(7)) {
      case 0: *place ^= static_cast<uint8_t>(1u << Below(8)); break;
      case 1: *place = Byte(); break;
      case 2: *place = kEdges[Below(std::size(kEdges))]; break;
      case 3: bytes->insert(place, 1 + Below(8), Byte()); break;
      case 4:
        bytes->erase(place, place + static_cast<std::ptrdiff_t>(1 + Below(std::min<size_t>(16, bytes->size() - at))));
        break;
      case 5: {
        const Bytes& other = corpus[Below(corpus.size())];
        if (other.empty()) break;
        const size_t from = Below(other.size());
        const size_t count = 1 + Below(other.size() - from);
        const Bytes piece(other.begin() + static_cast<std::ptrdiff_t>(from),
                          other.begin() + static_cast<std::ptrdiff_t>(from + count));
        bytes->insert(place, piece.begin(), piece.end());
        break;
      }
      default: {
        for (size_t i = at; i < std::min(at + 8, bytes->size()); ++i) (*bytes)[i] = Below(2) == 0 ? 0xff : 0;
        break;
      }
    }
  }

  std::mt19937_64 random_;
};

class FuzzReplay : public testing::TestWithParam<FuzzTarget> {};

TEST_P(FuzzReplay, HoldsOnTheCorpusAndOnSeededMutations) {
  const FuzzTarget& target = GetParam();
  const std::vector<Bytes> corpus = Corpus(target.name);
  EXPECT_GT(corpus.size(), 1U) << "no corpus for " << target.name;
  for (const Bytes& bytes : corpus) target.run(bytes.data(), bytes.size());

  const uint64_t seed = Seed();
  const uint64_t runs = test::NumberFromEnvironment("SUTRA_FUZZ_RUNS", 3000);
  Mutations mutations(seed);
  for (uint64_t i = 0; i < runs; ++i) {
    // An allocation of its own for each input, so that the sanitizer sees a read past its end.
    const Bytes bytes = mutations.Next(corpus, target.bytes_max);
    target.run(bytes.data(), bytes.size());
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, FuzzReplay, testing::ValuesIn(Targets()),
                         [](const auto& target) { return std::string(target.param.name); });

// The canary: the same mutations must find what a parser with a missing check does wrong.
TEST(FuzzReplayCanary, FindsALengthThatIsNotChecked) {
  const auto reads_outside = [](const Bytes& bytes) {
    if (bytes.size() < 4 || bytes[0] != 'S' || bytes[1] != 'U') return false;
    const size_t length = bytes[2];  // of what follows; a correct parser compares it with what is left
    return length > bytes.size() - 3;
  };
  const std::vector<Bytes> corpus = {{'S', 'U', 2, 'o', 'k'}};
  EXPECT_FALSE(reads_outside(corpus[0]));
  Mutations mutations(Seed());
  bool found = false;
  for (int i = 0; i < 2000 && !found; ++i) found = reads_outside(mutations.Next(corpus, 4096));
  EXPECT_TRUE(found) << "mutations that miss this find nothing";
}

}  // namespace
}  // namespace sutra::fuzz
