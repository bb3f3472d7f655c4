// What the duties of the test client share: arguments, exit codes, and what they say.
// Thread rule: one thread, but for `stop_asked`, which the signal handler sets.
#pragma once

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "tests/kit/client_handle.h"
#include "tests/kit/fake_model_answers.h"

namespace sutra::test {

inline constexpr int kUsage = 2, kWrongAnswer = 3, kBadStatus = 4, kCannotAttach = 5;
inline constexpr int kPauseMs = 5;

extern std::atomic<int> stop_asked;  // set by the signal handler: lock-free

struct Arguments {
  std::string duty;
  std::map<std::string, std::string> values;

  std::string Text(const std::string& name) const {
    const auto found = values.find(name);
    return found == values.end() ? std::string() : found->second;
  }
  uint64_t Number(const std::string& name, uint64_t otherwise) const {
    const std::string text = Text(name);
    return text.empty() ? otherwise : std::strtoull(text.c_str(), nullptr, 10);
  }
};

inline void Say(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

inline int Complain(int code, const std::string& what) {
  std::fprintf(stderr, "test client %d: %s\n", getpid(), what.c_str());
  return code;
}

// Damages every N-th vector that passes through it; 0 = none.
class Corruptor {
 public:
  explicit Corruptor(uint64_t every) : every_(every) {}
  void Pass(Reply* reply) {
    if (every_ != 0 && ++count_ % every_ == 0 && !reply->vector.empty()) reply->vector[0] += 0.01F;
  }

 private:
  const uint64_t every_;
  uint64_t count_ = 0;
};

// chaos_client.cc
int RunChaos(const Arguments& arguments);

}  // namespace sutra::test
