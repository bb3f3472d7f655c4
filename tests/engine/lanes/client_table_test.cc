// Which connections are one client, and what a client, a user and all together may claim.
#include "engine/lanes/client_table.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "shm/handshake.h"
#include "shm/peer_liveness.h"

namespace sutra {
namespace {

using Charge = ClientTable::Charge;

constexpr ClientTable::Limits kLimits = {.total = {.lanes = 4, .bytes = 1000},
                                         .per_uid = {.lanes = 3, .bytes = 800},
                                         .per_client = {.lanes = 2, .bytes = 600}};

// Two connected sockets of this process.
struct Pair {
  Pair() {
    int fds[2] = {-1, -1};
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    ours = UniqueFd(fds[0]);
    theirs = UniqueFd(fds[1]);
  }
  UniqueFd ours, theirs;
};

// This process may open no further descriptor.
class NoDescriptors {
 public:
  NoDescriptors() {
    const UniqueFd next(dup(STDERR_FILENO));
    EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &before_), 0);
    const rlimit none = {.rlim_cur = static_cast<rlim_t>(next.get()), .rlim_max = before_.rlim_max};
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  }
  ~NoDescriptors() { setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_ = {};
};

// A child process that made the pair (the kernel notes who made it), until it is destroyed.
class Child {
 public:
  Child() {
    Pair link;
    char byte = 'x';
    child_ = fork();
    if (child_ == 0) {
      close(link.ours.get());  // its own copy would hide the parent's end
      const Pair made;
      const int fd = made.ours.get();
      if (SendMessage(link.theirs.get(), &byte, 1, &fd, 1, 0) != MessageOutcome::kOk) _exit(1);
      static_cast<void>(!read(link.theirs.get(), &byte, 1));
      _exit(0);
    }
    keep_ = std::move(link.ours);
    link.theirs.reset();  // a child that fails is a hang-up
    int fd = -1;
    size_t fds_received = 0, received = 0;
    EXPECT_EQ(ReceiveMessage(keep_.get(), &byte, 1, &fd, 1, &fds_received, &received, UINT64_MAX), MessageOutcome::kOk);
    socket_ = UniqueFd(fd);
  }
  ~Child() {
    keep_.reset();
    waitpid(child_, nullptr, 0);
  }
  int socket() const { return socket_.get(); }
  pid_t pid() const { return child_; }

 private:
  pid_t child_ = -1;
  UniqueFd keep_, socket_;
};

class ClientTableTest : public ::testing::Test {
 protected:
  ClientPtr Me(const std::string& name = "me") { return table_->Find(pair_.ours.get(), 1000, getpid(), name); }
  // A client that shares nothing with others: a process that the kernel cannot name.
  ClientPtr Stranger(uid_t uid) { return table_->Find(-1, uid, 0, "stranger"); }
  Result<Charge> Take(const ClientPtr& client, uint64_t bytes) { return table_->Take(client, bytes, &bound_); }
  std::string WhyNot(const ClientPtr& client, uint64_t bytes) {
    const LaneShare before = table_->total();
    const Result<Charge> charge = Take(client, bytes);
    EXPECT_EQ(charge.code(), StatusCode::kRefused);
    EXPECT_EQ(table_->total().lanes, before.lanes);
    EXPECT_EQ(table_->total().bytes, before.bytes);
    return charge.status().message();
  }
  void ExpectRefused(const ClientPtr& client, uint64_t bytes, const std::string& number, const std::string& option) {
    const std::string why = WhyNot(client, bytes);
    EXPECT_NE(why.find(" " + number + " "), std::string::npos) << why;
    EXPECT_EQ(why.rfind(option), why.size() - option.size()) << why;
    EXPECT_EQ(bound_ == ClientTable::Bound::kBytes, option.find("bytes") != std::string::npos);
  }

  const std::shared_ptr<ClientTable> table_ = std::make_shared<ClientTable>(kLimits);
  ClientTable::Bound bound_ = {};
  const Pair pair_;
};

TEST_F(ClientTableTest, AllConnectionsOfAProcessAreOneClientAndItsFirstNameStays) {
  const Pair other;
  const ClientPtr first = Me("first");
  const ClientPtr again = table_->Find(other.ours.get(), 1000, getpid(), "second");
  EXPECT_EQ(first, again);
  EXPECT_EQ(first->name, "first");
  EXPECT_TRUE(first->pid_fd) << "one descriptor for all its lanes";
  EXPECT_EQ(table_->size(), 1u);
}

TEST_F(ClientTableTest, AnotherProcessIsAnotherClientEvenUnderTheSamePid) {
  const Child child;
  const ClientPtr mine = Me();
  // As two containers would look: both are process 1 to themselves, and the engine sees no pid.
  const ClientPtr theirs = table_->Find(child.socket(), 1000, 0, "theirs");
  const ClientPtr again = table_->Find(child.socket(), 1000, 0, "theirs");
  EXPECT_NE(mine, theirs);
  EXPECT_EQ(theirs, again) << "known by its pidfd though it has no pid here";
  EXPECT_NE(table_->Find(pair_.ours.get(), 1001, getpid(), "me"), mine) << "another user";
}

TEST_F(ClientTableTest, WithoutADescriptorAProcessIsNotTakenForAnotherOne) {
  const ClientPtr mine = Me();
  {
    const NoDescriptors none;
    EXPECT_EQ(Me(), nullptr);
    EXPECT_FALSE(KeyOfClient(-1, 1000, getpid(), 1).has_value()) << "nor by its start time";
  }
  EXPECT_EQ(Me(), mine);
  EXPECT_EQ(table_->size(), 1u);
}

TEST_F(ClientTableTest, AClientThatNothingRefersToIsForgotten) {
  uint64_t id = 0;
  {
    const ClientPtr client = Me();
    id = client->id;
    const Charge charge = Take(client, 1).value();
    EXPECT_EQ(table_->size(), 1u);
  }
  EXPECT_EQ(table_->size(), 0u);
  EXPECT_GT(Me()->id, id);
}

TEST_F(ClientTableTest, AChargeKeepsItsClient) {
  Charge charge = Take(Me(), 1).value();
  EXPECT_EQ(table_->size(), 1u);
  charge = Charge();
  EXPECT_EQ(table_->size(), 0u);
}

// What older kernels leave: a pidfd without an identity of its own.
TEST(ClientKey, WithoutThePidfdsInodeTheStartTimeTellsProcessesApart) {
  const ClientKey mine = KeyOfClient(-1, 1000, getpid(), 1).value();
  EXPECT_EQ(mine.kind, ClientKey::Kind::kStartTime);
  EXPECT_EQ(mine, KeyOfClient(-1, 1000, getpid(), 2));
  EXPECT_GT(mine.number, 0u);
  const ClientKey parent = KeyOfClient(-1, 1000, getppid(), 3).value();
  EXPECT_NE(mine, parent);
  const UniqueFd no_pidfd(dup(STDERR_FILENO));
  EXPECT_EQ(KeyOfClient(no_pidfd.get(), 1000, getpid(), 4), mine) << "not every descriptor has an inode that counts";
  // Nothing is known: each connection is a client of its own.
  EXPECT_NE(KeyOfClient(-1, 1000, 0, 5), KeyOfClient(-1, 1000, 0, 6));
  EXPECT_EQ(KeyOfClient(-1, 1000, 0, 5).value().kind, ClientKey::Kind::kUnknown);
}

TEST_F(ClientTableTest, EachBoundNamesItsNumberAndItsOption) {
  const ClientPtr a = Stranger(1), b = Stranger(1), c = Stranger(2);
  ExpectRefused(a, 601, "600", "--lane-bytes-per-client-max");
  const Charge a1 = Take(a, 500).value();
  ExpectRefused(b, 301, "800", "--lane-bytes-per-uid-max");
  ExpectRefused(c, 501, "1000", "--lane-bytes-max");
  const Charge a2 = Take(a, 100).value();
  ExpectRefused(a, 0, "2", "--lanes-per-client-max");
  const Charge b1 = Take(b, 100).value();
  ExpectRefused(b, 0, "3", "--lanes-per-uid-max");
  const Charge c1 = Take(c, 100).value();
  ExpectRefused(c, 0, "4", "--lanes-max");
  EXPECT_EQ(table_->ShareOf(*a).lanes, 2u);
  EXPECT_EQ(table_->ShareOf(*a).bytes, 600u);
  EXPECT_EQ(table_->total().bytes, 800u);
}

TEST_F(ClientTableTest, AChargeIsGivenBackOnceWhereverItWent) {
  const ClientPtr client = Stranger(1);
  {
    Charge charge = Take(client, 600).value();
    Charge moved = std::move(charge);
    auto again = std::make_unique<Charge>(std::move(moved));
    EXPECT_EQ(table_->total().lanes, 1u);
    std::thread([&] { again.reset(); }).join();
    EXPECT_EQ(table_->total().lanes, 0u);
  }
  EXPECT_EQ(table_->total().bytes, 0u);
  EXPECT_TRUE(Take(client, 600).ok());
}

TEST_F(ClientTableTest, SumsOfBytesDoNotWrap) {
  const ClientPtr client = Stranger(1);
  const Charge first = Take(client, 599).value();
  EXPECT_FALSE(Take(client, UINT64_MAX).ok());
  EXPECT_FALSE(Take(client, UINT64_MAX - 598).ok());
  EXPECT_TRUE(Take(client, 1).ok());
}

}  // namespace
}  // namespace sutra
