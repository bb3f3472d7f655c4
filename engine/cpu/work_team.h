// A few threads that compute one batch together: the caller, plus helpers that join when they are awake.
//
// Thread rule: Run is called by one thread at a time, the owner. Invariants:
// - The caller never waits for a helper to begin; it waits only for the end of those that did: a helper that gets no
//   core from the scheduler costs speed, not the batch. The job must be complete when the caller alone has run it.
// - Helpers spin for a bounded time after a job, then sleep in the kernel; an idle engine uses no CPU time.
// - Whoever waits for a member that lost its core spins for a moment, then sleeps: it would keep the very core that the
//   late one could go on with, and a busy neighbour would cost a time slice of the scheduler per batch.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <span>
#include <thread>
#include <vector>

namespace sutra::cpu {

class WorkTeam {
 public:
  // Helpers stay on `cpus`, if there are any; the caller is where its owner has put it. Throws std::system_error, with
  // the fix in its message, where not all helpers can be started.
  explicit WorkTeam(int threads, std::span<const uint32_t> cpus = {});
  ~WorkTeam();
  WorkTeam(const WorkTeam&) = delete;
  WorkTeam& operator=(const WorkTeam&) = delete;

  int threads() const { return static_cast<int>(helpers_.size()) + 1; }

  // Calls job(member) with member 0 on the caller and each other number on at most one helper. Returns when the
  // caller's call and every call that a helper began have returned, or throws then what the first of them threw. A call
  // that leaves a part of SharedSteps undone keeps the others waiting: it may throw before its first step only.
  void Run(const std::function<void(int)>& job);

 private:
  void HelperLoop(int member);
  void RunMember(int member) noexcept;
  void StopHelpers();
  void AwaitHelpers();

  const std::function<void(int)>* job_ = nullptr;
  std::atomic<uint32_t> state_{0};  // generation << 9 | open << 8 | helpers inside
  std::atomic<uint32_t> ended_{0};  // jobs whose last helper left after the caller had
  std::atomic<bool> stop_{false};
  std::atomic<bool> failed_{false};
  std::exception_ptr failure_;  // written by the member that set failed_, read when all have left
  std::vector<std::thread> helpers_;
};

// The steps of a batch that all members compute together, in order. A step is cut into parts that members draw from a
// counter; a member goes on to the next step only when all parts of this one are done.
class SharedSteps {
 public:
  static constexpr size_t kStepsMax = 4096;

  // REQUIRES: no member is inside.
  void Reset(size_t steps);
  // Runs work(begin, end) over [0, count) in `parts` parts, shared with the other members. `step` counts up from 0 in
  // the same way on every member.
  template <typename Work>
  void Step(size_t step, size_t count, size_t parts, const Work& work) {
    Progress& progress = progress_[step];
    if (parts > count) parts = count;
    // Relaxed: the exchange itself claims the number; `done` below publishes the results.
    for (uint32_t part = progress.drawn.fetch_add(1, std::memory_order_relaxed); part < parts;
         part = progress.drawn.fetch_add(1, std::memory_order_relaxed)) {
      work(count * part / parts, count * (part + 1) / parts);
      // Release: the next step of any member may read what this part wrote; pairs with the acquire in AwaitDone.
      if (progress.done.fetch_add(1, std::memory_order_release) + 1 == parts) progress.done.notify_all();
    }
    AwaitDone(progress, parts);
  }

 private:
  struct alignas(64) Progress {
    std::atomic<uint32_t> drawn{0};
    std::atomic<uint32_t> done{0};  // 32 bits: what a futex waits on
  };
  static void AwaitDone(const Progress& progress, size_t parts);

  std::vector<Progress> progress_;
};

}  // namespace sutra::cpu
