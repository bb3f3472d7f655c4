#include "shm/stats/engine_life.h"

#include <fcntl.h>
#include <unistd.h>

#include "shm/base/time.h"
#include "shm/layout.h"
#include "tests/shm/stats/stats_fixture.h"

namespace sutra {
namespace {

using EngineLifeTest = test::StatsFixture;

class Judgement : public ::testing::Test {
 protected:
  void SetUp() override {
    snapshot_.boot_id = HostBootId();
    snapshot_.gauges["state"] = kEngineServing;
    snapshot_.gauges["pid"] = static_cast<uint64_t>(getpid());
    snapshot_.taken_monotonic_ns = MonotonicNs();
    snapshot_.gauges["heartbeat_ns"] = snapshot_.taken_monotonic_ns - 1'000'000;
    evidence_.lock = EngineEvidence::Lock::kHeld;
    evidence_.pid_exists = true;
  }
  EngineLife Judge() const { return JudgeEngine(snapshot_, evidence_); }
  void Silence() { snapshot_.gauges["heartbeat_ns"] = snapshot_.taken_monotonic_ns - 5'000'000'000; }

  StatsSnapshot snapshot_;
  EngineEvidence evidence_;
};

TEST_F(Judgement, FreshHeartbeatIsAlive) { EXPECT_EQ(Judge(), EngineLife::kAlive); }

TEST_F(Judgement, StartingAndDrainingAreSaid) {
  snapshot_.gauges["state"] = kEngineStarting;
  EXPECT_EQ(Judge(), EngineLife::kStarting);
  snapshot_.gauges["state"] = kEngineDraining;
  EXPECT_EQ(Judge(), EngineLife::kDraining);
}

TEST_F(Judgement, ClosedStateIsStoppedHoweverOld) {
  Silence();
  snapshot_.gauges["state"] = kEngineClosed;
  evidence_.lock = EngineEvidence::Lock::kFree;
  EXPECT_EQ(Judge(), EngineLife::kStopped);
}

TEST_F(Judgement, SilentWithItsLockHeldIsStaleNeverCrashed) {
  Silence();
  EXPECT_EQ(Judge(), EngineLife::kStale);
  evidence_.pid_exists = false;  // another pid namespace
  EXPECT_EQ(Judge(), EngineLife::kStale);
}

TEST_F(Judgement, SilentWithItsLockFreeIsCrashedEvenIfThePidWasReused) {
  Silence();
  evidence_.lock = EngineEvidence::Lock::kFree;
  EXPECT_EQ(Judge(), EngineLife::kCrashed);
}

TEST_F(Judgement, WithoutALockFileThePidDecides) {
  Silence();
  evidence_.lock = EngineEvidence::Lock::kUnknown;
  EXPECT_EQ(Judge(), EngineLife::kStale);
  evidence_.pid_exists = false;
  EXPECT_EQ(Judge(), EngineLife::kCrashed);
}

TEST_F(Judgement, FreshHeartbeatButFreeLockAndNoProcessIsCrashed) {
  evidence_.lock = EngineEvidence::Lock::kFree;
  evidence_.pid_exists = false;
  EXPECT_EQ(Judge(), EngineLife::kCrashed);
}

TEST_F(Judgement, AnotherBootMeansCrashedUnlessItSaidStopped) {
  evidence_.same_boot = false;
  EXPECT_EQ(Judge(), EngineLife::kCrashed);
  snapshot_.gauges["state"] = kEngineClosed;
  EXPECT_EQ(Judge(), EngineLife::kStopped);
}

TEST_F(Judgement, AgeUsesTheWallClockWhereTheMonotonicOneIsAnother) {
  snapshot_.gauges["heartbeat_ns"] = snapshot_.taken_monotonic_ns + 1'000'000'000;  // another time namespace
  snapshot_.taken_wall_ns = 2'000'000'000;
  snapshot_.gauges["heartbeat_wall_ns"] = 1'500'000'000;
  EXPECT_EQ(HeartbeatAgeNs(snapshot_, evidence_), 500'000'000u);
}

TEST_F(EngineLifeTest, WitnessSeesTheLockOfALiveEngineThroughItsFile) {
  auto segment = Create();
  const std::string path = options_.socket_path + ".lock";
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_GE(fd, 0);
  StatsSnapshot snapshot = ParseStats(Bytes(*segment)).value();
  EXPECT_EQ(GatherEvidence(snapshot).lock, EngineEvidence::Lock::kFree);
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  ASSERT_EQ(fcntl(fd, F_OFD_SETLK, &lock), 0);
  EXPECT_EQ(GatherEvidence(snapshot).lock, EngineEvidence::Lock::kHeld);
  EXPECT_EQ(GatherEvidence(snapshot).lock, EngineEvidence::Lock::kHeld);  // asking does not drop it
  close(fd);
  EXPECT_EQ(GatherEvidence(snapshot).lock, EngineEvidence::Lock::kFree);
}

// eclipse-iceoryx/iceoryx#42, #1471: an engine that was number 1 of its container, seen from outside.
TEST(GatherEvidence, AnotherProgramWithTheEnginesPidIsNoEngine) {
  StatsSnapshot snapshot;
  snapshot.socket = "/nonexistent/engine.sock";
  for (const uint64_t pid : {uint64_t{1}, static_cast<uint64_t>(getpid())}) {
    snapshot.gauges["pid"] = pid;
    EXPECT_FALSE(GatherEvidence(snapshot).pid_exists) << pid;
  }
}

}  // namespace
}  // namespace sutra
