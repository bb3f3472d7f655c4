// The bar is redrawn ten times a second on a terminal; elsewhere a line is written every ten seconds.
#include "tools/lib/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "tools/lib/program.h"

namespace sutra {

namespace {
constexpr size_t kBarCells = 24;
}

Progress::Progress(std::string program, bool quiet)
    : program_(std::move(program)), quiet_(quiet), terminal_(isatty(STDERR_FILENO) == 1) {
  next_ = start_ + (terminal_ ? std::chrono::seconds(1) : std::chrono::seconds(10));
}

Progress::~Progress() { Clear(); }

double Progress::Elapsed() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

void Progress::Clear() {
  if (std::exchange(shown_, false)) SayAsIs("\r\x1b[K");
}

void Progress::Update(const ProgressCounts& counts) {
  if (quiet_ || Clock::now() < next_) return;
  next_ = Clock::now() + (terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(10'000));
  std::string line;
  if (counts.total != 0) {
    const double part = std::min(1.0, static_cast<double>(counts.done) / static_cast<double>(counts.total));
    const auto cells = static_cast<size_t>(part * kBarCells);
    line = fmt::format("[{}{}] {:3.0f} %  ", std::string(cells, '#'), std::string(kBarCells - cells, '-'), 100 * part);
  }
  line += RatesText(counts.texts, counts.tokens, Elapsed());
  if (counts.failed != 0) line += fmt::format(", {} failed", counts.failed);
  if (terminal_) {
    SayAsIs("\r\x1b[K" + line);
    shown_ = true;
  } else {
    Say(program_, line);
  }
}

void Progress::Finish(const ProgressCounts& counts, const std::string& details) {
  Clear();
  if (quiet_) return;
  Say(program_, RatesText(counts.texts, counts.tokens, Elapsed()) + details);
}

std::string RatesText(uint64_t texts, uint64_t tokens, double seconds) {
  const double s = std::max(seconds, 1e-9);
  return fmt::format("{} texts in {:.3g} s, {:.0f} texts/s, {:.0f} tokens/s", texts, seconds,
                     static_cast<double>(texts) / s, static_cast<double>(tokens) / s);
}

}  // namespace sutra
