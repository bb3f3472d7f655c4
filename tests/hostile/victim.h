// The client beside a flood: asks one text at a time, knows the right answer, and learns from the answer's stage times,
// which the engine took, how long it waited inside the engine.
// Thread rule: Victim is one thread's; VictimStream is used by the test's main thread and has a thread of its own.
#pragma once

#include <poll.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <string>
#include <string_view>
#include <sutra/embed.hpp>
#include <thread>
#include <vector>

#include "shm/base/time.h"
#include "tests/kit/fake_model_answers.h"

namespace sutra::test {

struct Waited {
  sutra_status status = SUTRA_NOT_READY;
  std::string wrong;  // empty: ok, and the vector of its text
  uint64_t submitted_ns = 0, taken_ns = 0, batched_ns = 0, published_ns = 0;
  uint32_t retry_after_ms = 0;
};

class Victim {
 public:
  sutra_status Attach(const std::string& socket, uint32_t slots = 0) {
    sutra_attach_options options = embed::AttachOptions();
    options.lanes_max = 1;
    options.slots = slots;
    options.client_name = "victim";
    return client_.Attach(socket, options);
  }
  static sutra_options Options(sutra_priority priority = SUTRA_PRIORITY_NORMAL) {
    sutra_options options = embed::RequestOptions();
    options.priority = priority;
    options.timeout_ms = 60'000;
    return options;
  }
  const embed::Client& client() const { return client_; }

  Waited Ask(std::string_view text, const sutra_options& options = Options()) const {
    embed::Ticket ticket;
    Waited waited;
    waited.status = client_.Submit(text, &ticket, options);
    if (waited.status != SUTRA_OK) {
      waited.wrong = std::string("submit: ") + sutra_error_text();
      return waited;
    }
    return Collect(&ticket, text);
  }
  Waited Collect(embed::Ticket* ticket, std::string_view text) const {
    const sutra_result result = ticket->Wait(60'000);
    Waited waited;
    waited.status = result.status;
    waited.submitted_ns = result.stage_ns[0];
    waited.taken_ns = result.stage_ns[1];
    waited.batched_ns = result.stage_ns[3];
    waited.published_ns = result.stage_ns[5];
    waited.retry_after_ms = result.retry_after_ms;
    if (result.status != SUTRA_OK) {
      waited.wrong = std::string("status ") + sutra_status_text(result.status);
    } else if (std::vector<float> vector(result.vector, result.vector + result.width);
               expects_fake_ && !SameVector(vector, ExpectedVector(text, false, result.width))) {
      waited.wrong = "the vector of another text, or of none";
    }
    ticket->Release();
    return waited;
  }
  void ExpectAnyVector() { expects_fake_ = false; }  // of a model whose answers are not known

 private:
  embed::Client client_;
  bool expects_fake_ = true;
};

struct Interval {
  uint64_t start_ns = 0, end_ns = 0;
  uint64_t length() const { return end_ns - start_ns; }
};

// Asks one cached text for ever.
class VictimStream {
 public:
  explicit VictimStream(const std::string& socket) : socket_(socket), thread_([this] { Run(); }) {}
  ~VictimStream() { Stop(); }
  void Stop() {
    stop_.store(true, std::memory_order_relaxed);
    if (thread_.joinable()) thread_.join();
  }

  // It has been answered `count` times: from now on, whoever silences it is seen.
  bool WaitAnswers(uint64_t count) const {
    for (int i = 0; i < 10'000 && answers() < count; ++i) poll(nullptr, 0, 1);
    return answers() >= count;
  }
  uint64_t answers() const {
    const std::lock_guard lock(mutex_);
    return published_.size();
  }
  std::string wrong() const {
    const std::lock_guard lock(mutex_);
    return wrong_;
  }
  // Intervals of which the engine answered nothing for more than half, by its own times. Call after Stop.
  size_t Silent(const std::vector<Interval>& intervals) const {
    size_t silent = 0;
    for (const Interval& interval : intervals) {
      uint64_t last = interval.start_ns, longest = 0;
      for (const uint64_t published : published_) {
        if (published <= last || published >= interval.end_ns) continue;
        longest = std::max(longest, published - last);
        last = published;
      }
      longest = std::max(longest, interval.end_ns - last);
      silent += longest > interval.length() / 2;
    }
    return silent;
  }
  // Taken minus submitted, as the contract counts it.
  uint64_t LongestWaitNs() const {
    const std::lock_guard lock(mutex_);
    return longest_wait_ns_;
  }

 private:
  void Run() {
    Victim victim;
    if (victim.Attach(socket_, 8) != SUTRA_OK) {
      const std::lock_guard lock(mutex_);
      wrong_ = std::string("attach: ") + sutra_error_text();
      return;
    }
    while (!stop_.load(std::memory_order_relaxed)) {
      const Waited waited = victim.Ask("victim");
      std::unique_lock lock(mutex_);
      if (wrong_.empty()) wrong_ = waited.wrong;
      if (!waited.wrong.empty()) return;
      published_.push_back(waited.published_ns);
      longest_wait_ns_ = std::max(longest_wait_ns_, waited.taken_ns - waited.submitted_ns);
      // One that never pauses would take a CPU from the attacker.
      lock.unlock();
      poll(nullptr, 0, 1);
    }
  }

  const std::string socket_;
  std::atomic<bool> stop_{false};
  mutable std::mutex mutex_;
  std::vector<uint64_t> published_;
  std::string wrong_;
  uint64_t longest_wait_ns_ = 0;
  std::thread thread_;
};

}  // namespace sutra::test
