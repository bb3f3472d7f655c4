// The machine's clocks behind the Clock seam. Stateless, hence usable from any thread.
#include "shm/base/clock.h"

#include <time.h>

#include <cassert>

namespace sutra {
namespace {

uint64_t ReadNs(clockid_t clock) {
  timespec now{};
  const int error = clock_gettime(clock, &now);
  assert(error == 0);
  static_cast<void>(error);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

class RealClock final : public Clock {
 public:
  uint64_t MonotonicNs() const override { return ReadNs(CLOCK_MONOTONIC); }
  uint64_t WallNs() const override { return ReadNs(CLOCK_REALTIME); }
  void WaitUntil(CondVar* condition, Mutex* mutex, uint64_t deadline_ns) override SUTRA_REQUIRES(mutex) {
    condition->WaitUntil(*mutex, deadline_ns);
  }
};

}  // namespace

Clock* Clock::Real() {
  static RealClock clock;
  return &clock;
}

}  // namespace sutra
