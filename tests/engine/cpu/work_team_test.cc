// The team's guarantee: every part is done exactly once, whichever members come late, even by one thread alone.
#include "engine/cpu/work_team.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <numeric>
#include <stdexcept>
#include <string>
#include <system_error>

#include "tests/kit/watchdog.h"

namespace sutra::cpu {
namespace {

TEST(WorkTeam, EachMemberRunsAtMostOnceAndTheCallerAlways) {
  WorkTeam team(3);
  for (int round = 0; round < 2000; ++round) {
    std::atomic<int> calls[3] = {};
    team.Run([&](int member) { calls[member].fetch_add(1); });
    EXPECT_EQ(calls[0].load(), 1);
    EXPECT_LE(calls[1].load(), 1);
    EXPECT_LE(calls[2].load(), 1);
  }
}

TEST(WorkTeam, SharedStepsSeeWhatEarlierStepsWrote) {
  constexpr size_t kCount = 97;
  constexpr size_t kSteps = 40;
  WorkTeam team(2);
  SharedSteps steps;
  for (int round = 0; round < 300; ++round) {
    std::vector<size_t> values(kCount, 0);  // not atomic: the steps' own order must suffice
    steps.Reset(kSteps);
    team.Run([&](int) {
      for (size_t step = 0; step < kSteps; ++step) {
        steps.Step(step, kCount, 6, [&](size_t begin, size_t end) {
          for (size_t i = begin; i < end; ++i) {
            // Even steps add to each value, odd ones read the neighbour's, which another member may have written.
            if (step % 2 == 0) {
              ++values[i];
            } else {
              EXPECT_EQ(values[(i + 1) % kCount], step / 2 + 1);
            }
          }
        });
      }
    });
    EXPECT_EQ(std::accumulate(values.begin(), values.end(), size_t{0}), kCount * kSteps / 2);
  }
}

// Returns when the kernel says that the thread sleeps; one that spins or yields never does.
void AwaitAsleep(pid_t thread) {
  const std::string path = "/proc/self/task/" + std::to_string(thread) + "/stat";
  for (std::string state; state != "S";) std::ifstream(path).ignore(64, ')') >> state;
}

TEST(WorkTeam, TheCallerSleepsWhileAHelperIsLate) {
  const test::Watchdog watchdog(std::chrono::seconds(60));
  WorkTeam team(2);
  for (int round = 0; round < 5; ++round) {
    const pid_t caller = gettid();
    std::atomic<bool> inside{false};
    team.Run([&](int member) {
      if (member == 0) {
        while (!inside.load()) std::this_thread::yield();
      } else {
        inside.store(true);
        AwaitAsleep(caller);
      }
    });
  }
}

TEST(WorkTeam, AMemberSleepsWhileThePartOfAnotherIsLateAndWakesForTheNextStep) {
  const test::Watchdog watchdog(std::chrono::seconds(60));
  WorkTeam team(2);
  SharedSteps steps;
  std::vector<int> values(4, 0);
  for (int round = 1; round <= 5; ++round) {
    const pid_t caller = gettid();
    std::atomic<bool> inside{false};
    steps.Reset(2);
    team.Run([&](int member) {
      if (member == 0) {
        while (!inside.load()) std::this_thread::yield();
      }
      steps.Step(0, 2, 2, [&](size_t begin, size_t) {
        if (member != 0 && !inside.load()) {
          inside.store(true);
          AwaitAsleep(caller);
        }
        ++values[begin];
      });
      steps.Step(1, 2, 2, [&](size_t begin, size_t) { values[begin + 2] += values[0] + values[1]; });
    });
    EXPECT_EQ(values[0], round);
    EXPECT_EQ(values[3], round * (round + 1));
  }
}

TEST(WorkTeam, AHelperSleepsWhenNothingIsLeftToDo) {
  const test::Watchdog watchdog(std::chrono::seconds(60));
  WorkTeam team(2);
  std::atomic<pid_t> helper{0};
  while (helper.load() == 0) {
    team.Run([&](int member) {
      if (member != 0) helper.store(gettid());
    });
  }
  AwaitAsleep(helper.load());
}

TEST(WorkTeam, WhatAMemberThrowsReachesTheCallerWhenAllHaveLeft) {
  for (const int thrower : {0, 1, 2}) {
    WorkTeam team(3);
    bool thrown = false;
    for (int round = 0; round < 10'000 && !thrown; ++round) {  // a helper may come too late for some
      std::atomic<int> inside{0};
      try {
        team.Run([&](int member) {
          inside.fetch_add(1);
          std::this_thread::yield();
          inside.fetch_sub(1);
          if (member == thrower) throw std::runtime_error("of a member");
        });
      } catch (const std::runtime_error& error) {
        EXPECT_STREQ(error.what(), "of a member");
        thrown = true;
      }
      EXPECT_EQ(inside.load(), 0);
    }
    EXPECT_TRUE(thrown) << thrower;
    team.Run([](int) {});  // and the next job is none the worse
  }
}

// In a process of its own, whose user may have no more threads. For root there is no such limit, so it becomes another.
[[noreturn]] void StartMoreThreadsThanAllowed() {
  const rlimit none = {.rlim_cur = 0, .rlim_max = 0};
  if (setrlimit(RLIMIT_NPROC, &none) != 0 || (geteuid() == 0 && setuid(65534) != 0)) _exit(2);
  try {
    const WorkTeam team(4);
  } catch (const std::system_error& error) {
    std::fputs(error.what(), stderr);
    _exit(0);
  }
  _exit(1);
}

TEST(WorkTeam, ThreadsThatCannotBeStartedAreAnErrorAndNotTheEndOfTheProcess) {
  EXPECT_EXIT(StartMoreThreadsThanAllowed(), testing::ExitedWithCode(0), "only 1 of 4 threads could be started");
}

TEST(WorkTeam, MorePartsThanWorkAndSingleThread) {
  WorkTeam team(1);
  SharedSteps steps;
  steps.Reset(2);
  size_t sum = 0;
  team.Run([&](int) {
    steps.Step(0, 2, 6, [&](size_t begin, size_t end) { sum += end - begin; });
    steps.Step(1, 1, 6, [&](size_t begin, size_t end) { sum += end - begin; });
  });
  EXPECT_EQ(sum, 3U);
}

}  // namespace
}  // namespace sutra::cpu
