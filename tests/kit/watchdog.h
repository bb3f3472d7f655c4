// Ends a test that hangs: prints which one and aborts, which ends its children too (child_process.h). No test asserts a
// duration; this is the only clock that can fail one.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "tests/kit/left_over.h"

namespace sutra::test {

class Watchdog {
 public:
  explicit Watchdog(std::chrono::seconds limit)
      : thread_([this, limit] {
          std::unique_lock lock(mutex_);
          if (done_.wait_for(lock, limit, [this] { return finished_; })) return;
          const ::testing::TestInfo* test = ::testing::UnitTest::GetInstance()->current_test_info();
          std::fprintf(stderr, "watchdog: %s.%s has not ended after %lld s\n",
                       test != nullptr ? test->test_suite_name() : "", test != nullptr ? test->name() : "",
                       static_cast<long long>(limit.count()));
          LeftOvers::Get().RemoveAll();
          std::fflush(nullptr);
          std::abort();
        }) {}
  ~Watchdog() {
    {
      std::lock_guard lock(mutex_);
      finished_ = true;
    }
    done_.notify_all();
    thread_.join();
  }

 private:
  std::mutex mutex_;
  std::condition_variable done_;
  bool finished_ = false;
  std::thread thread_;
};

}  // namespace sutra::test
