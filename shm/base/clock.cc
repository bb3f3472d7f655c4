// The machine's clocks behind the Clock seam. Stateless, hence usable from any thread.
#include "shm/base/clock.h"

#include "shm/base/cycle_clock.h"
#include "shm/base/time.h"

namespace sutra {
namespace {

class RealClock final : public Clock {
 public:
  uint64_t MonotonicNs() const override { return sutra::MonotonicNs(); }
  // Asked once per lookup in the cache, for lifetimes of seconds.
  uint64_t BootNs() const override { return CycleBootNs(); }
  uint64_t WallNs() const override { return sutra::WallNs(); }
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
