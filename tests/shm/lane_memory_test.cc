// Lane memory as the engine creates it: header, seals, what a client can and cannot do with its descriptors; liveness.
#include "shm/lane_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "shm/peer_liveness.h"

namespace sutra::test {
namespace {

constexpr LaneGeometry kGeometry = {8, 5000, 20};

class Segment : public testing::Test {
 protected:
  void SetUp() override {
    LaneIdentity identity = {77, 3, {}};
    identity.boot_id[0] = 9;
    auto made = LaneMemory::Create(kGeometry, identity);
    ASSERT_TRUE(made.ok()) << made.status().message();
    memory_ = std::move(made).value();
  }
  static uint64_t AllocatedBytes(int fd) {
    struct stat info;
    return fstat(fd, &info) == 0 ? static_cast<uint64_t>(info.st_blocks) * 512 : 0;
  }
  LaneMemory memory_;
};

TEST_F(Segment, HeadersCarryTheHandshakesNumbers) {
  for (const LaneHeader* header : {&memory_.request().header(), &memory_.reply().header()}) {
    EXPECT_EQ(header->layout_version.load(std::memory_order_acquire), kLayoutVersion);
    EXPECT_EQ(header->header_bytes, 128u);
    EXPECT_EQ(header->engine_generation, 77u);
    EXPECT_EQ(header->lane_id, 3u);
    EXPECT_EQ(header->slots, 8u);
    EXPECT_EQ(header->text_bytes_max, 5000u);
    EXPECT_EQ(header->width, 20u);
    EXPECT_EQ(header->vector_stride_bytes, 128u);
    EXPECT_EQ(header->boot_id[0], 9u);
    EXPECT_EQ(header->incompatible_flags, 0u);
  }
  EXPECT_EQ(memory_.request().header().magic, kRequestLaneMagic);
  EXPECT_EQ(memory_.reply().header().magic, kReplyLaneMagic);
  EXPECT_EQ(std::memcmp(&memory_.request().header().magic, "SUTRAREQ", 8), 0);
  EXPECT_EQ(memory_.reply().engine().state.load(std::memory_order_relaxed), kLaneOpen);
}

TEST_F(Segment, EverythingButTheTailFileIsAllocated) {
  EXPECT_GE(AllocatedBytes(memory_.request_fd()), kGeometry.request_bytes());
  EXPECT_EQ(AllocatedBytes(memory_.tail_fd()), 0u);
  EXPECT_GE(AllocatedBytes(memory_.reply_fd()), kGeometry.reply_bytes());
}

TEST_F(Segment, NeitherSideCanResizeAndTheClientCannotWriteReplies) {
  for (const int fd : {memory_.request_fd(), memory_.reply_fd(), memory_.tail_fd()}) {
    EXPECT_NE(ftruncate(fd, 0), 0);
    EXPECT_NE(ftruncate(fd, 1 << 30), 0);
    EXPECT_NE(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0) << "the set of seals must be closed";
    const std::string path = "/proc/self/fd/" + std::to_string(fd);
    EXPECT_LT(open(path.c_str(), O_RDWR | O_TRUNC | O_CLOEXEC), 0) << "reopening must not get around the seals";
  }
  char byte = 1;
  EXPECT_LT(pwrite(memory_.reply_fd(), &byte, 1, 0), 0);
  EXPECT_EQ(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory_.reply_fd(), 0), MAP_FAILED);
  EXPECT_NE(fallocate(memory_.reply_fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
  void* readable = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, memory_.reply_fd(), 0);
  ASSERT_NE(readable, MAP_FAILED);
  EXPECT_NE(mprotect(readable, 4096, PROT_READ | PROT_WRITE), 0);
  munmap(readable, 4096);
  memory_.reply().engine().taken.store(5, std::memory_order_relaxed);  // the engine's own map still writes
}

TEST_F(Segment, WhatTheClientWroteIsGivenBackThoughItsDescriptorsStayOpen) {
  ASSERT_EQ(fallocate(memory_.tail_fd(), 0, 0, static_cast<off_t>(kGeometry.tail_bytes())), 0);
  memory_.PunchClientFiles();
  EXPECT_EQ(AllocatedBytes(memory_.request_fd()), 0u);
  EXPECT_EQ(AllocatedBytes(memory_.tail_fd()), 0u);
  EXPECT_GE(AllocatedBytes(memory_.reply_fd()), kGeometry.reply_bytes());
}

TEST(LaneGeometry, AnyPlaceInsideTheTailFileIsValidAndNoSumWraps) {
  const uint64_t bytes = kGeometry.tail_bytes();
  EXPECT_EQ(bytes, 8u * 8192);
  EXPECT_TRUE(kGeometry.InTailFile(0, 1));
  EXPECT_TRUE(kGeometry.InTailFile(0, bytes));
  EXPECT_TRUE(kGeometry.InTailFile(bytes - 300, 300));
  EXPECT_FALSE(kGeometry.InTailFile(bytes - 300, 301));
  EXPECT_FALSE(kGeometry.InTailFile(bytes, 1));
  EXPECT_FALSE(kGeometry.InTailFile(1, bytes));
  EXPECT_FALSE(kGeometry.InTailFile(UINT64_MAX, 300));
  EXPECT_FALSE(kGeometry.InTailFile(UINT64_MAX - 299, 300));
  EXPECT_FALSE(kGeometry.InTailFile(0, UINT64_MAX));
}

TEST_F(Segment, ImpossibleGeometriesAreRefused) {
  for (const LaneGeometry geometry :
       {LaneGeometry{3, 5000, 20}, LaneGeometry{0, 5000, 20}, LaneGeometry{8192, 5000, 20}, LaneGeometry{8, 10, 20},
        LaneGeometry{8, 5000, 0}, LaneGeometry{8, 5000, 9000}}) {
    auto made = LaneMemory::Create(geometry, {});
    EXPECT_EQ(made.code(), StatusCode::kRefused);
    EXPECT_NE(made.status().message().find("power of two"), std::string::npos);
  }
}

TEST_F(Segment, EnginePageIsReadyAndSealed) {
  auto made = EnginePageMemory::Create(123);
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(made->page()->layout_version.load(std::memory_order_acquire), kLayoutVersion);
  EXPECT_EQ(made->page()->engine_generation, 123u);
  EXPECT_EQ(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, made->fd(), 0), MAP_FAILED);
  EXPECT_NE(ftruncate(made->fd(), 0), 0);
}

// The client's lock as the engine sees it: held while the client lives or is stopped, gone when it is killed, even if
// it is not reaped and its forked child still has the descriptors.
TEST_F(Segment, LivenessFollowsTheKernelsLockNotTheDescriptors) {
  EXPECT_FALSE(LockHolderAlive(memory_.request_fd()));
  int from_child[2], to_child[2];
  ASSERT_EQ(pipe(from_child), 0);
  ASSERT_EQ(pipe(to_child), 0);
  const pid_t child = fork();
  if (child == 0) {
    if (!TakeLock(memory_.request_fd())) _exit(1);
    close(to_child[1]);
    const pid_t grandchild = fork();
    char byte = 'x';
    if (grandchild == 0) _exit(static_cast<int>(read(to_child[0], &byte, 1)));  // outlives the child
    if (write(from_child[1], &byte, 1) != 1) _exit(1);
    for (;;) pause();
  }
  char byte;
  ASSERT_EQ(read(from_child[0], &byte, 1), 1);
  EXPECT_TRUE(LockHolderAlive(memory_.request_fd()));
  EXPECT_TRUE(LockHeldBy(memory_.request_fd(), child));
  EXPECT_FALSE(LockHeldBy(memory_.request_fd(), getpid()));
  EXPECT_FALSE(LockHeldBy(memory_.request_fd(), 0)) << "this namespace sees the holder";
  kill(child, SIGSTOP);
  int status;
  waitpid(child, &status, WUNTRACED);
  EXPECT_TRUE(LockHolderAlive(memory_.request_fd())) << "a stopped client is not dead";
  kill(child, SIGKILL);
  siginfo_t info;
  waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT);  // dead, but not reaped
  EXPECT_FALSE(LockHolderAlive(memory_.request_fd()));
  waitpid(child, &status, 0);
  close(to_child[1]);
}

// It would stay as long as our own descriptor of the same open file.
TEST_F(Segment, ALockOfTheOpenFileDescriptionIsNobodys) {
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_len = 1;
  ASSERT_EQ(fcntl(memory_.request_fd(), F_OFD_SETLK, &lock), 0);
  for (const int pid : {0, -1, static_cast<int>(getpid())}) {
    EXPECT_EQ(LockHeldBy(memory_.request_fd(), pid), pid == -1) << pid;
  }
}

// As an engine in a container sees a client outside: both have no number there.
TEST_F(Segment, AHolderOutsideOfThePidNamespaceIsNumberZero) {
  const pid_t holder = fork();
  if (holder == 0) {
    if (!TakeLock(memory_.request_fd())) _exit(1);
    for (;;) pause();
  }
  while (!LockHeldBy(memory_.request_fd(), holder)) poll(nullptr, 0, 1);
  const pid_t outer = fork();
  if (outer == 0) {
    if (unshare(CLONE_NEWPID) != 0) _exit(77);
    const pid_t inner = fork();
    if (inner == 0) {
      const int fd = memory_.request_fd();
      _exit(LockHeldBy(fd, 0) && !LockHeldBy(fd, holder) && !LockHeldBy(fd, getpid()) ? 0 : 1);
    }
    int status = -1;
    waitpid(inner, &status, 0);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
  }
  int status = -1;
  waitpid(outer, &status, 0);
  kill(holder, SIGKILL);
  waitpid(holder, nullptr, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) GTEST_SKIP() << "SKIPPED: needs root to make a PID namespace";
  EXPECT_EQ(status, 0);
}

TEST(PeerLiveness, AProcessHasEndedWhenItIsDeadNotWhenItIsReaped) {
  EXPECT_FALSE(ProcessEnded(-1)) << "not known";
  const pid_t child = fork();
  if (child == 0) {
    for (;;) pause();
  }
  const UniqueFd pid_fd(static_cast<int>(syscall(SYS_pidfd_open, child, 0)));
  ASSERT_TRUE(pid_fd);
  EXPECT_FALSE(ProcessEnded(pid_fd.get()));
  kill(child, SIGKILL);
  siginfo_t info;
  waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT);
  EXPECT_TRUE(ProcessEnded(pid_fd.get()));
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(ProcessEnded(pid_fd.get()));
}

TEST_F(Segment, SecondHolderIsRefused) {
  const pid_t child = fork();
  if (child == 0) _exit(TakeLock(memory_.reply_fd()) ? 1 : 0);  // the engine, this process, holds it
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST(PeerLiveness, PidFdOfTheConnectedProcess) {
  int sockets[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
  const int pid_fd = PeerPidFd(sockets[0]);
  EXPECT_GE(pid_fd, 0);
  EXPECT_NE(fcntl(pid_fd, F_GETFD) & FD_CLOEXEC, 0);
  close(pid_fd);
  close(sockets[0]);
  close(sockets[1]);
}

}  // namespace
}  // namespace sutra::test
