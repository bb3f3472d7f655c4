// Messages of the handshake: whole or refused, descriptors never leaked, no wait without an end.
#include "shm/handshake.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "shm/base/time.h"

namespace sutra::test {
namespace {

struct Packet {
  uint64_t first, second;
};

class Handshake : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets_), 0); }
  void TearDown() override {
    close(sockets_[0]);
    if (sockets_[1] >= 0) close(sockets_[1]);
  }
  static size_t OpenDescriptors() {
    size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      (void)entry;
      ++count;
    }
    return count;
  }
  MessageOutcome Receive(FdCount fd_count, uint64_t wait_ms = 0) {
    return ReceiveMessage(sockets_[0], &packet_, sizeof(packet_), fds_, fd_count, &fds_received_, &received_,
                          wait_ms == 0 ? 0 : MonotonicNs() + wait_ms * kNsPerMs);
  }
  // A message with any number of descriptors, past SendMessage's own limit.
  void SendRaw(const void* bytes, size_t count, size_t fd_count) {
    iovec part = {const_cast<void*>(bytes), count};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 64)] = {};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (fd_count > 0) {
      message.msg_control = control;
      message.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
      for (size_t i = 0; i < fd_count; ++i) std::memcpy(CMSG_DATA(header) + i * sizeof(int), &sockets_[1], sizeof(int));
    }
    ASSERT_EQ(sendmsg(sockets_[1], &message, 0), static_cast<ssize_t>(count));
  }

  int sockets_[2] = {-1, -1};
  Packet packet_ = {};
  int fds_[kMessageFdsMax] = {-1, -1, -1, -1, -1, -1};
  size_t fds_received_ = 99, received_ = 99;
};

TEST_F(Handshake, MessageWithDescriptorsArrivesWholeAndCloseOnExec) {
  const Packet sent = {1, 2};
  const int passed[2] = {sockets_[0], sockets_[1]};
  ASSERT_EQ(SendMessage(sockets_[1], &sent, sizeof(sent), passed, 2, 0), MessageOutcome::kOk);
  ASSERT_EQ(Receive(2), MessageOutcome::kOk);
  EXPECT_EQ(packet_.second, 2u);
  ASSERT_EQ(fds_received_, 2u);
  for (int i = 0; i < 2; ++i) {
    EXPECT_NE(fcntl(fds_[i], F_GETFD) & FD_CLOEXEC, 0);
    close(fds_[i]);
  }
}

TEST_F(Handshake, NothingToReadTimesOut) {
  EXPECT_EQ(Receive(0), MessageOutcome::kTimeout);
  EXPECT_EQ(Receive(0, 5), MessageOutcome::kTimeout);
}

TEST_F(Handshake, HangUpIsClosed) {
  close(sockets_[1]);
  sockets_[1] = -1;
  EXPECT_EQ(Receive(0, 1000), MessageOutcome::kClosed);
  EXPECT_EQ(SendMessage(sockets_[0], &packet_, sizeof(packet_), nullptr, 0, 0), MessageOutcome::kClosed);
}

TEST_F(Handshake, WrongSizesAreMalformedAndSayHowMuchCame) {
  const char bytes[64] = "abc";
  SendRaw(bytes, 3, 0);
  EXPECT_EQ(Receive(0), MessageOutcome::kMalformed);
  EXPECT_EQ(received_, 3u);
  SendRaw(bytes, 64, 0);
  EXPECT_EQ(Receive(0), MessageOutcome::kMalformed);
  EXPECT_EQ(received_, sizeof(Packet));
}

TEST_F(Handshake, UnwantedMissingOrTooManyDescriptorsAreMalformedAndClosed) {
  const size_t before = OpenDescriptors();
  const Packet sent = {1, 2};
  for (const size_t passed : {size_t{1}, size_t{3}, size_t{5}, size_t{6}, size_t{7}, size_t{64}}) {
    SendRaw(&sent, sizeof(sent), passed);
    EXPECT_EQ(Receive(2), MessageOutcome::kMalformed) << passed;
    EXPECT_EQ(OpenDescriptors(), before) << passed;
  }
  SendRaw(&sent, sizeof(sent), 0);
  EXPECT_EQ(Receive(2), MessageOutcome::kOk);  // a refusal comes without
  EXPECT_EQ(fds_received_, 0u);
}

TEST_F(Handshake, OneDescriptorMoreIsWelcomeWhereItMayCome) {
  const size_t before = OpenDescriptors();
  const Packet sent = {1, 2};
  for (size_t passed = 0; passed <= kMessageFdsMax + 1; ++passed) {
    SendRaw(&sent, sizeof(sent), passed);
    const bool expected = passed == 0 || passed == 5 || passed == 6;
    EXPECT_EQ(Receive({5, 6}), expected ? MessageOutcome::kOk : MessageOutcome::kMalformed) << passed;
    EXPECT_EQ(fds_received_, expected ? passed : 0) << passed;
    for (size_t i = 0; i < fds_received_; ++i) close(fds_[i]);
    EXPECT_EQ(OpenDescriptors(), before) << passed;
  }
}

TEST_F(Handshake, FullSocketTimesOutInsteadOfBlocking) {
  const Packet sent = {1, 2};
  MessageOutcome outcome = MessageOutcome::kOk;
  for (int i = 0; i < 100'000 && outcome == MessageOutcome::kOk; ++i) {
    outcome = SendMessage(sockets_[1], &sent, sizeof(sent), nullptr, 0, 0);
  }
  EXPECT_EQ(outcome, MessageOutcome::kTimeout);
}

}  // namespace
}  // namespace sutra::test
