#include "shm/base/unique_fd.h"

#include <fcntl.h>
#include <gtest/gtest.h>

namespace sutra {
namespace {

bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }
int OpenNull() { return open("/dev/null", O_RDWR | O_CLOEXEC); }

TEST(UniqueFd, ClosesAtTheEndOfItsScope) {
  int number = -1;
  {
    const UniqueFd fd(OpenNull());
    ASSERT_TRUE(fd);
    number = fd.get();
    EXPECT_TRUE(IsOpen(number));
  }
  EXPECT_FALSE(IsOpen(number));
}

TEST(UniqueFd, MovingHandsTheDescriptorOnAndClosesTheOldOneAtOnce) {
  UniqueFd first(OpenNull());
  const int number = first.get();
  UniqueFd second(std::move(first));
  EXPECT_FALSE(first);  // NOLINT: a moved-from owner is empty by contract
  EXPECT_EQ(second.get(), number);
  UniqueFd third(OpenNull());
  const int replaced = third.get();
  third = std::move(second);
  EXPECT_FALSE(IsOpen(replaced));
  EXPECT_EQ(third.get(), number);
  EXPECT_TRUE(IsOpen(number));
  UniqueFd& same = third;
  third = std::move(same);
  EXPECT_TRUE(IsOpen(number));
}

TEST(UniqueFd, ReleaseGivesUpOwnershipAndResetCloses) {
  UniqueFd fd(OpenNull());
  const int number = fd.release();
  EXPECT_FALSE(fd);
  EXPECT_TRUE(IsOpen(number));
  fd.reset(number);
  fd.reset();
  EXPECT_FALSE(IsOpen(number));
}

TEST(Mapping, UnmapsAtTheEndOfItsScopeAndMoves) {
  std::byte* base = nullptr;
  {
    void* memory = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    Mapping first(static_cast<std::byte*>(memory), 4096);
    Mapping second;
    EXPECT_FALSE(second);
    second = std::move(first);
    base = second.base();
    EXPECT_EQ(base, memory);
    EXPECT_EQ(second.bytes(), 4096u);
    EXPECT_EQ(msync(base, 4096, MS_ASYNC), 0);
  }
  EXPECT_NE(msync(base, 4096, MS_ASYNC), 0);  // ENOMEM: nothing is mapped there
}

}  // namespace
}  // namespace sutra
