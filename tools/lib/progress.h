// Progress of a long run on standard error: a bar on a terminal, a line every ten seconds elsewhere, nothing in the
// first second. One thread owns it.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace sutra {

struct ProgressCounts {
  uint64_t texts = 0, tokens = 0, failed = 0;
  uint64_t done = 0, total = 0;  // of any unit; total 0 = unknown
};

class Progress {
 public:
  Progress(std::string program, bool quiet);
  ~Progress();

  void Update(const ProgressCounts& counts);  // cheap: looks at the clock only
  void Clear();                               // takes the bar away, so that a line of its own can be said
  // Clears the bar; the summary ("318 texts in 0.9 s, ...") goes to standard error unless quiet.
  void Finish(const ProgressCounts& counts, const std::string& details);

 private:
  using Clock = std::chrono::steady_clock;
  double Elapsed() const;

  std::string program_;
  bool quiet_;
  bool terminal_;
  bool shown_ = false;
  Clock::time_point start_ = Clock::now();
  Clock::time_point next_;
};

std::string RatesText(uint64_t texts, uint64_t tokens, double seconds);

}  // namespace sutra
