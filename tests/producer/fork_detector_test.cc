#include "producer/fork_detector.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

namespace sutra::test {
namespace {

using client::ForkDetector;

// Whether a forked child says that it is one.
bool ChildKnows(const ForkDetector& detector) {
  const pid_t child = fork();
  if (child == 0) _exit(client::IsForked(detector) ? 0 : 1);
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return status == 0;
}

TEST(ForkDetector, TellsAChildFromItsParent) {
  ForkDetector detector = client::MakeForkDetector();
  EXPECT_FALSE(client::IsForked(detector));
  EXPECT_TRUE(ChildKnows(detector));
  EXPECT_FALSE(client::IsForked(detector)) << "the child's page is its own";
  client::DestroyForkDetector(&detector);
  EXPECT_EQ(detector.not_forked, nullptr);
}

TEST(ForkDetector, ComparesProcessesWhereThePageCannotBe) {
  ForkDetector detector;
  detector.pid = getpid();
  EXPECT_FALSE(client::IsForked(detector));
  EXPECT_TRUE(ChildKnows(detector));
  client::DestroyForkDetector(&detector);
}

}  // namespace
}  // namespace sutra::test
