// Who counts where: the rule on which plain additions rest.
#include "shm/stats/stats_bank.h"

#include <gtest/gtest.h>

#include <barrier>
#include <thread>
#include <vector>

namespace sutra {
namespace {

// The banks that `count` threads have while all of them live.
std::vector<uint32_t> BanksOfThreads(size_t count) {
  std::vector<uint32_t> banks(count);
  std::barrier all_have_one(static_cast<std::ptrdiff_t>(count));
  std::vector<std::thread> threads;
  for (size_t i = 0; i < count; ++i) {
    threads.emplace_back([&, i] {
      banks[i] = StatsBankOfThread();
      EXPECT_EQ(StatsBankOfThread(), banks[i]);
      all_have_one.arrive_and_wait();
    });
  }
  for (std::thread& thread : threads) thread.join();
  return banks;
}

TEST(StatsBank, TwoLivingThreadsHaveTwoBanksUnlessTheyShareTheLast) {
  std::vector<int> threads_of(kStatsBanks);
  ++threads_of[StatsBankOfThread()];  // this one lives too
  for (const uint32_t bank : BanksOfThreads(2 * kStatsBanks)) ++threads_of[bank];
  for (uint32_t bank = 0; bank < kStatsBankShared; ++bank) EXPECT_EQ(threads_of[bank], 1) << bank;
  EXPECT_EQ(threads_of[kStatsBankShared], static_cast<int>(kStatsBanks + 2));
}

TEST(StatsBank, TheBankOfAThreadThatEndedIsUsedAgain) {
  StatsBankOfThread();
  for (int i = 0; i < 100; ++i) EXPECT_NE(BanksOfThreads(1).front(), kStatsBankShared) << i;
}

}  // namespace
}  // namespace sutra
