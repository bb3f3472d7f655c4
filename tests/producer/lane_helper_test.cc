// The library's helper thread: it hears of deaths and opens lanes while no call is made, and keeps out of the program's
// way: no signals, no part in a forked child, gone after a detach.
#include "producer/lane_helper.h"

#include <signal.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "producer/lane_open.h"
#include "tests/producer/client_fixture.h"

namespace sutra::test {
namespace {

class LaneHelperTest : public ClientTest {
 protected:
  // The task ids of the helper threads of this process.
  static std::vector<std::string> Helpers() {
    std::vector<std::string> found;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      std::string name;
      std::ifstream(task.path() / "comm") >> name;
      if (name == "sutra-client") found.push_back(task.path().filename());
    }
    return found;
  }
  static client::ClientLane* Lane(const ClientPtr& client, uint32_t index) {
    return client->lanes[index].load(std::memory_order_acquire);
  }
};

TEST_F(LaneHelperTest, ThereIsOneFromAttachToDetach) {
  StartEngine();
  EXPECT_TRUE(Helpers().empty());
  ClientPtr first = Attach(4), second = Attach(4);
  while (Helpers().size() < 2) std::this_thread::yield();  // it names itself
  first.reset();
  EXPECT_EQ(Helpers().size(), 1u);
  second.reset();
  EXPECT_TRUE(Helpers().empty());
}

TEST_F(LaneHelperTest, AnAttachThatFailsLeavesNone) {
  EXPECT_EQ(AttachStatus(AttachOptions()), SUTRA_ENGINE_GONE);
  EXPECT_TRUE(Helpers().empty());
}

TEST_F(LaneHelperTest, AllSignalsAreBlockedInItAndTheCallersMaskIsAsBefore) {
  StartEngine();
  sigset_t before, after;
  pthread_sigmask(SIG_SETMASK, nullptr, &before);
  const ClientPtr client = Attach(4);
  pthread_sigmask(SIG_SETMASK, nullptr, &after);
  for (int number = 1; number < 32; ++number) EXPECT_EQ(sigismember(&before, number), sigismember(&after, number));
  while (Helpers().empty()) std::this_thread::yield();
  std::ifstream status("/proc/self/task/" + Helpers()[0] + "/status");
  std::string word, blocked;
  while (status >> word && word != "SigBlk:") {
  }
  status >> blocked;
  const uint64_t set = std::stoull(blocked, nullptr, 16);
  for (const int number : {SIGINT, SIGTERM, SIGUSR1, SIGCHLD, SIGALRM, SIGPIPE}) {
    EXPECT_NE(set & uint64_t{1} << (number - 1), 0u) << number;
  }
}

TEST_F(LaneHelperTest, ADeathIsKnownAndTheNextEngineAttachedWithoutACall) {
  StartEngine();
  const ClientPtr client = Attach(4, 1);
  client::ClientLane* lane = Lane(client, 0);
  for (int round = 0; round < 3; ++round) {
    engine_->Kill();
    while (!client::IsLost(lane)) std::this_thread::yield();
    StartEngine();
    while (client::IsLost(lane)) std::this_thread::yield();
    EXPECT_EQ(Embed(client, "served"), SUTRA_OK) << sutra_error_text();
  }
}

TEST_F(LaneHelperTest, AStoppedEngineIsNotDead) {
  StartEngine();
  const ClientPtr client = Attach(4, 1);
  engine_->Stop();
  const sutra_options options = RequestOptions(300);  // longer than a look of a sleeping waiter
  EXPECT_EQ(Embed(client, "x", &options), SUTRA_DEADLINE_EXCEEDED);
  EXPECT_FALSE(client::IsLost(Lane(client, 0)));
  engine_->Continue();
  EXPECT_EQ(Embed(client, "x"), SUTRA_OK);
}

TEST_F(LaneHelperTest, LanesThatCallsAskForAreOpenedUpToTheLimit) {
  StartEngine();
  const ClientPtr client = Attach(2, 2);
  // More than once: an attempt that a busy machine cuts short is repeated only for whoever asks again.
  for (; client::OpenLanes(client.get()) < 2; std::this_thread::yield()) client::AskForLane(client.get(), true);
  for (int i = 0; i < 100; ++i) client::AskForLane(client.get(), true);
  EXPECT_EQ(Embed(client, "x"), SUTRA_OK);
  EXPECT_EQ(client->lane_count.load(), 2u);
}

TEST_F(LaneHelperTest, ManyAttachesAndDetachesWhileEnginesDieEndEachTime) {
  StartEngine();
  for (int round = 0; round < 30; ++round) {
    const ClientPtr client = Attach(2, 2);
    sutra_ticket ticket = 0;
    (void)Submit(client, "x", &ticket);
    if (round % 3 == 1) engine_->Kill();
    if (round % 3 == 2) client::AskForLane(client.get(), true);
    if (round % 3 == 1) StartEngine();
  }
  EXPECT_TRUE(Helpers().empty());
}

// The child has the helper's descriptors but not the thread: a detach there must neither wait for it nor take anything
// out of what the parent's watches.
TEST_F(LaneHelperTest, ADetachInAForkedChildLeavesTheParentsHelperWatching) {
  StartEngine();
  const ClientPtr client = Attach(4, 1);
  const int event_fd = sutra_event_fd(client.get());
  ASSERT_GE(event_fd, 0);
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    sutra_detach(client.get());
    _exit(0);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(Embed(client, "x"), SUTRA_OK);
  engine_->Kill();
  while (!client::IsLost(Lane(client, 0))) std::this_thread::yield();
}

}  // namespace
}  // namespace sutra::test
