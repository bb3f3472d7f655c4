#include "engine/lanes/sigbus_guard.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <csignal>

namespace sutra::test {
namespace {

// A page whose file is gone: each read of it faults.
const volatile char* PageThatFaults() {
  const int fd = memfd_create("shrunk", MFD_CLOEXEC);
  EXPECT_EQ(ftruncate(fd, 4096), 0);
  void* base = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0);
  EXPECT_NE(base, MAP_FAILED);
  EXPECT_EQ(ftruncate(fd, 0), 0);
  close(fd);
  return static_cast<const volatile char*>(base);
}

TEST(SigbusGuard, AFaultFailsTheReadAndTheNextOneWorks) {
  ASSERT_TRUE(InstallSigbusGuard());
  const volatile char* page = PageThatFaults();
  for (int i = 0; i < 3; ++i) {
    bool past = false;
    EXPECT_FALSE(RunGuarded([&] {
      static_cast<void>(*page);
      past = true;
    }));
    EXPECT_FALSE(past);
    char byte = 0;
    const char good = 'x';
    EXPECT_TRUE(RunGuarded([&] { byte = good; }));
    EXPECT_EQ(byte, 'x');
  }
}

TEST(SigbusGuard, InstallingItAgainChangesNothing) {
  ASSERT_TRUE(InstallSigbusGuard());
  struct sigaction first = {}, second = {};
  sigaction(SIGBUS, nullptr, &first);
  ASSERT_TRUE(InstallSigbusGuard());
  sigaction(SIGBUS, nullptr, &second);
  EXPECT_EQ(first.sa_sigaction, second.sa_sigaction);
}

TEST(SigbusGuardDeathTest, FaultOutsideTheCopyStillKills) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_DEATH(
      {
        InstallSigbusGuard();
        const int fd = memfd_create("x", MFD_CLOEXEC);
        if (ftruncate(fd, 4096) != 0) _exit(0);
        auto* base = static_cast<volatile char*>(mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0));
        if (ftruncate(fd, 0) != 0) _exit(0);
        _exit(*base);
      },
      "");
}

TEST(SigbusGuardDeathTest, AFaultAfterAGuardedReadKillsToo) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_DEATH(
      {
        InstallSigbusGuard();
        const volatile char* page = PageThatFaults();
        if (RunGuarded([&] { static_cast<void>(*page); })) _exit(0);
        _exit(*page);
      },
      "");
}

TEST(SigbusGuardDeathTest, AHandlerThatWasThereBeforeGetsOtherFaults) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_EXIT(
      {
        std::signal(SIGBUS, [](int) { _exit(42); });
        InstallSigbusGuard();
        _exit(*PageThatFaults());
      },
      testing::ExitedWithCode(42), "");
}

}  // namespace
}  // namespace sutra::test
