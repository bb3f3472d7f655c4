#include "shm/base/random.h"

#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <set>

namespace sutra {
namespace {

TEST(Random, SeedsDifferAndAreNeverZero) {
  std::set<uint64_t> seeds;
  for (int i = 0; i < 100; ++i) seeds.insert(RandomSeed());
  EXPECT_EQ(seeds.size(), 100u);
  EXPECT_EQ(seeds.count(0), 0u);
}

TEST(Random, FillsEveryByteOfALargeRequest) {
  std::array<uint8_t, 4096> bytes = {};
  ASSERT_TRUE(FillRandom(bytes.data(), bytes.size()));
  for (size_t start = 0; start < bytes.size(); start += 64) {
    bool touched = false;
    for (size_t i = start; i < start + 64; ++i) touched = touched || bytes[i] != 0;
    EXPECT_TRUE(touched) << start;
  }
}

// A service whose seccomp filter forbids getrandom.
void ForbidGetrandom() {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getrandom, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {4, filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    std::fprintf(stderr, "no seccomp here\n");
    std::_Exit(77);
  }
}

TEST(RandomDeathTest, AForbiddenGetrandomIsSaidAndFatalNeverReplacedByAConstant) {
  EXPECT_EXIT(
      {
        ForbidGetrandom();
        uint64_t word = 0;
        std::_Exit(!FillRandom(&word, sizeof(word)) && errno == EPERM && word == 0 ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
  EXPECT_EXIT(
      {
        ForbidGetrandom();
        RandomSeed();
      },
      testing::KilledBySignal(SIGABRT), "getrandom: Operation not permitted");
}

}  // namespace
}  // namespace sutra
