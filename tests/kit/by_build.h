// How often a test repeats something in each build. The release build shows a property in full. ASan+UBSan adds errors
// of memory, which a part of the rounds meets; TSan adds data races, which code of one thread does not have: there a
// few rounds show that the test itself runs. What has several threads keeps its rounds under TSan.
#pragma once

namespace sutra::test {

template <typename T>
constexpr T ByBuild([[maybe_unused]] T release, [[maybe_unused]] T asan, [[maybe_unused]] T tsan) {
#if defined(__SANITIZE_THREAD__)
  return tsan;
#elif defined(SUTRA_SANITIZE) || defined(__aarch64__)
  return asan;
#else
  return release;
#endif
}

}  // namespace sutra::test
