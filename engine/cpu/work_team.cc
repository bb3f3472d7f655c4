// Members, helpers and their short sleeps.
#include "engine/cpu/work_team.h"

#include <cassert>
#include <chrono>
#include <new>
#include <string>
#include <system_error>
#include <utility>

#include "engine/model/compute_options.h"
#include "shm/base/cpu_pause.h"
#include "shm/base/thread_affinity.h"

namespace sutra::cpu {
namespace {

constexpr uint32_t kInsideMask = 0xff;
static_assert(kThreadsMax <= kInsideMask);
constexpr uint32_t kOpen = 0x100;
constexpr uint32_t kGeneration = 0x200;
constexpr auto kSpinTime = std::chrono::microseconds(50);

// About what a sleep and a wake cost, and as long as the members of a short text wait for each other.
constexpr auto kWaitSpinTime = std::chrono::microseconds(20);
constexpr int kPausesPerLook = 16;  // at the clock

// Whether `reached` became true before it was time to sleep.
template <typename Condition>
bool SpinUntil(const Condition& reached) {
  if (reached()) return true;
  const auto end = std::chrono::steady_clock::now() + kWaitSpinTime;
  do {
    for (int i = 0; i < kPausesPerLook; ++i) {
      CpuPause();
      if (reached()) return true;
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace

WorkTeam::WorkTeam(int threads, std::span<const uint32_t> cpus) {
  assert(threads >= 1 && threads <= static_cast<int>(kThreadsMax));
  helpers_.reserve(static_cast<size_t>(threads) - 1);
  try {
    for (int member = 1; member < threads; ++member) {
      helpers_.emplace_back([this, member, cpus = std::vector(cpus.begin(), cpus.end())] {
        static_cast<void>(StayOnCpus(cpus));  // refused: slower perhaps, not wrong
        HelperLoop(member);
      });
    }
  } catch (const std::bad_alloc&) {
    StopHelpers();  // a thread that is neither joined nor detached ends the process
    throw;
  } catch (const std::system_error& error) {
    const size_t started = helpers_.size() + 1;
    StopHelpers();
    throw std::system_error(error.code(), "only " + std::to_string(started) + " of " + std::to_string(threads) +
                                              " threads could be started: lower --threads, or raise the limit of "
                                              "threads (ulimit -u, the cgroup's pids.max) or of memory");
  }
}

WorkTeam::~WorkTeam() { StopHelpers(); }

void WorkTeam::StopHelpers() {
  stop_.store(true, std::memory_order_relaxed);  // published by the change of state_
  state_.fetch_add(kGeneration, std::memory_order_release);
  state_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void WorkTeam::Run(const std::function<void(int)>& job) {
  if (helpers_.empty()) {
    job(0);
    return;
  }
  job_ = &job;
  // Relaxed: only this thread changes the generation, and no helper is inside.
  const uint32_t next = (state_.load(std::memory_order_relaxed) & ~(kOpen | kInsideMask)) + kGeneration;
  // Release: publishes job_; pairs with the acquire exchange in HelperLoop.
  state_.store(next | kOpen, std::memory_order_release);
  state_.notify_all();
  RunMember(0);
  // Closing first keeps late helpers out, so the wait below is only for helpers that are inside.
  // Acquire here and in AwaitHelpers: what helpers wrote; pairs with the release decrement in HelperLoop.
  if ((state_.fetch_and(~kOpen, std::memory_order_acquire) & kInsideMask) != 0) AwaitHelpers();
  job_ = nullptr;
  // Relaxed, here and below: the exchange itself decides who fails; the state published what it wrote.
  if (failed_.exchange(false, std::memory_order_relaxed)) std::rethrow_exception(std::exchange(failure_, nullptr));
}

// An exception that left a helper's thread would end the process, and one that left Run early would take the job away
// from the helpers inside.
void WorkTeam::RunMember(int member) noexcept {
  try {
    (*job_)(member);
  } catch (...) {
    if (!failed_.exchange(true, std::memory_order_relaxed)) failure_ = std::current_exception();
  }
}

void WorkTeam::AwaitHelpers() {
  const auto all_left = [this] { return (state_.load(std::memory_order_acquire) & kInsideMask) == 0; };
  if (SpinUntil(all_left)) return;
  for (;;) {
    // Read before the count of helpers, which the last one lowers first: if it leaves in between, wait returns at once.
    const uint32_t ended = ended_.load(std::memory_order_acquire);
    if (all_left()) return;
    ended_.wait(ended, std::memory_order_acquire);
  }
}

void WorkTeam::HelperLoop(int member) {
  uint32_t seen = 0;  // generation of the last job taken or missed
  auto spin_end = std::chrono::steady_clock::now();
  while (true) {
    uint32_t state = state_.load(std::memory_order_acquire);
    const uint32_t generation = state & ~(kOpen | kInsideMask);
    if (stop_.load(std::memory_order_relaxed)) return;
    if (generation != seen && (state & kOpen) != 0) {
      // Acquire: job_ is read only after the exchange proved that the job is still open.
      if (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acquire, std::memory_order_relaxed))
        continue;
      seen = generation;
      RunMember(member);
      // Acquire too, so that the count below stays behind it.
      const uint32_t left = state_.fetch_sub(1, std::memory_order_acq_rel) - 1;
      if ((left & (kOpen | kInsideMask)) == 0) {
        ended_.fetch_add(1, std::memory_order_release);
        ended_.notify_one();
      }
      spin_end = std::chrono::steady_clock::now() + kSpinTime;
      continue;
    }
    if (std::chrono::steady_clock::now() < spin_end) {
      for (int i = 0; i < 16; ++i) CpuPause();
    } else {
      state_.wait(state, std::memory_order_relaxed);
    }
  }
}

void SharedSteps::Reset(size_t steps) {
  assert(steps <= kStepsMax);
  if (progress_.size() < steps) progress_ = std::vector<Progress>(steps);
  // Relaxed: the start of the team's run publishes the zeros.
  for (size_t i = 0; i < steps; ++i) {
    progress_[i].drawn.store(0, std::memory_order_relaxed);
    progress_[i].done.store(0, std::memory_order_relaxed);
  }
}

void SharedSteps::AwaitDone(const Progress& progress, size_t parts) {
  const auto all_done = [&] { return progress.done.load(std::memory_order_acquire) == parts; };
  if (SpinUntil(all_done)) return;
  for (uint32_t done = progress.done.load(std::memory_order_acquire); done != parts;
       done = progress.done.load(std::memory_order_acquire)) {
    progress.done.wait(done, std::memory_order_acquire);
  }
}

}  // namespace sutra::cpu
