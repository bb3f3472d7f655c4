// That an allocation which is to fail does fail, that no other one does, and that nothing stays behind.
#include "tests/kit/failing_new.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <new>
#include <thread>
#include <vector>

namespace sutra::test {
namespace {

using Whose = FailingNew::Whose;

struct alignas(64) Wide {
  char bytes[64];
};

// Makes the compiler believe that the memory is used: it leaves out allocations that are not.
template <typename Pointer>
void Use(const Pointer& memory) {
  asm volatile("" : : "r"(&*memory) : "memory");
}

// 0: no allocation failed; else which one did. Each kind of operator new is called once.
int FirstFailure() {
  int step = 1;
  try {
    const std::unique_ptr<int> plain(new int);
    Use(plain);
    ++step;
    const std::unique_ptr<int[]> array(new int[3]);
    Use(array.get());
    ++step;
    const std::unique_ptr<Wide> aligned(new Wide);
    Use(aligned);
    ++step;
    const std::unique_ptr<Wide[]> aligned_array(new Wide[3]);
    Use(aligned_array.get());
    ++step;
    const std::unique_ptr<int> quiet(new (std::nothrow) int);
    if (quiet == nullptr) return step;
    Use(quiet);
    ++step;
    const std::vector<int> of_the_library(100);
    Use(of_the_library.data());
    return 0;
  } catch (const std::bad_alloc&) {
    return step;
  }
}

TEST(FailingNew, ExactlyTheChosenAllocationFails) {
  for (uint64_t nth = 1; nth <= 7; ++nth) {
    int found = 0;
    bool failed = false;
    {
      FailingNew memory(nth, Whose::kThisThread);
      found = FirstFailure();
      failed = memory.failed();
    }
    EXPECT_EQ(found, nth <= 6 ? static_cast<int>(nth) : 0);
    EXPECT_EQ(failed, nth <= 6);
  }
  EXPECT_EQ(FirstFailure(), 0);
}

TEST(FailingNew, AllocationsFailAsOftenAsAskedFor) {
  int failures = 0;
  {
    FailingNew memory(2, Whose::kThisThread, 2);
    for (int i = 0; i < 5; ++i) {
      if (std::unique_ptr<int>(new (std::nothrow) int) == nullptr) ++failures;
    }
  }
  EXPECT_EQ(failures, 2);
}

TEST(FailingNew, OtherThreadsFailOnlyWhereAllAreCounted) {
  for (const Whose whose : {Whose::kThisThread, Whose::kAllThreads}) {
    bool failed = false;
    std::atomic<bool> go{false};
    std::thread other([&] {
      go.wait(false);
      failed = std::unique_ptr<int>(new (std::nothrow) int) == nullptr;
    });
    {
      FailingNew memory(1, whose, UINT64_MAX);
      go = true;
      go.notify_all();
      other.join();
    }
    EXPECT_EQ(failed, whose == Whose::kAllThreads);
  }
}

TEST(FailingNew, AnExcusedThreadIsNotCounted) {
  bool failed = true;
  {
    FailingNew memory(1, Whose::kThisThread, UINT64_MAX);
    const FailingNew::Excused excused;
    failed = std::unique_ptr<int>(new (std::nothrow) int) == nullptr || memory.counted() != 0;
  }
  EXPECT_FALSE(failed);
}

}  // namespace
}  // namespace sutra::test
