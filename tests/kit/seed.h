// The seed of a random test: SUTRA_SEED, or the test's own; printed, so that a failure can be repeated.
#pragma once

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

namespace sutra::test {

// A number from the environment; `otherwise` if the variable is missing or empty.
inline uint64_t NumberFromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr && *text != '\0' ? std::strtoull(text, nullptr, 10) : otherwise;
}

inline uint64_t TestSeed(uint64_t otherwise = 20240229) {
  const uint64_t seed = NumberFromEnvironment("SUTRA_SEED", otherwise);
  std::printf("SUTRA_SEED=%" PRIu64 "\n", seed);
  std::fflush(stdout);  // so that a test which crashes has shown it
  return seed;
}

// For a test that should see something new in every run.
inline uint64_t FreshTestSeed() { return TestSeed(std::random_device{}()); }

}  // namespace sutra::test
