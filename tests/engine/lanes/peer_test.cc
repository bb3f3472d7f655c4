// Which groups a peer has, as the kernel says.
#include "engine/lanes/peer.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shm/base/unique_fd.h"

namespace sutra {
namespace {

class PeerTest : public testing::Test {
 protected:
  void SetUp() override {
    int pair[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    ends_[0].reset(pair[0]);
    ends_[1].reset(pair[1]);
  }
  bool In(const std::vector<gid_t>& groups) const { return InAnyGroup(ends_[0].get(), self_, groups); }

  UniqueFd ends_[2];
  const Peer self_ = {.pid = getpid(), .uid = geteuid(), .gid = getegid()};
};

TEST_F(PeerTest, NobodyIsInNoGroup) { EXPECT_FALSE(In({})); }

TEST_F(PeerTest, TheMainGroupCounts) { EXPECT_TRUE(In({getegid() + 1, getegid()})); }

TEST_F(PeerTest, SupplementaryGroupsCount) {
  std::vector<gid_t> groups(256);
  const int count = getgroups(static_cast<int>(groups.size()), groups.data());
  ASSERT_GE(count, 0);
  for (int i = 0; i < count; ++i) EXPECT_TRUE(In({groups[static_cast<size_t>(i)]}));
}

TEST_F(PeerTest, AnotherGroupDoesNot) { EXPECT_FALSE(In({3'999'999'999})); }

TEST_F(PeerTest, ItsTextNamesUserAndProcess) { EXPECT_EQ(PeerText({.pid = 7, .uid = 8, .gid = 9}), "uid 8 pid 7"); }

}  // namespace
}  // namespace sutra
