#include "shm/base/thread_affinity.h"

#include <gtest/gtest.h>

#include <thread>

#include "shm/base/host.h"

namespace sutra {
namespace {

using Cpus = std::vector<uint32_t>;

TEST(ThreadAffinity, AThreadAndThoseThatItStartsStayWhereItIsTold) {
  const Cpus all = AllowedCpus();
  ASSERT_FALSE(all.empty());
  const Cpus last = {all.back()};
  std::thread([&] {
    ASSERT_TRUE(StayOnCpus(last));
    EXPECT_EQ(AllowedCpus(), last);
    std::thread([&] { EXPECT_EQ(AllowedCpus(), last); }).join();
    EXPECT_TRUE(StayOnCpus({}));
    EXPECT_EQ(AllowedCpus(), last);
  }).join();
  EXPECT_EQ(AllowedCpus(), all) << "another thread's affinity is its own";
  EXPECT_LE(UsableCpus(), all.size());
}

TEST(ThreadAffinity, CpusThatAreNotThereAreRefusedAndChangeNothing) {
  const Cpus all = AllowedCpus();
  EXPECT_FALSE(StayOnCpus(Cpus{8191}));
  EXPECT_FALSE(StayOnCpus(Cpus{UINT32_MAX}));
  EXPECT_EQ(AllowedCpus(), all);
}

}  // namespace
}  // namespace sutra
