// One lane with both ends in this process: the client's as an attach returns it, and an engine's that tests play by
// hand. The engine's life is the lock of a child process, since the kernel does not show a process its own.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "producer/attach.h"
#include "producer/client_lane.h"
#include "producer/lane_pool.h"
#include "producer/resubmission.h"
#include "shm/base/unique_fd.h"
#include "shm/handshake_messages.h"
#include "shm/hot_memory.h"
#include "shm/hot_writer.h"
#include "shm/lane_memory.h"
#include "shm/lane_ring.h"
#include "shm/peer_liveness.h"

namespace sutra::test {

class EngineEnd {
 public:
  static constexpr uint32_t kWidth = 16, kTokensMax = 256;

  explicit EngineEnd(uint32_t slots = 4, uint32_t text_bytes_max = 8192) {
    const LaneGeometry geometry = {slots, text_bytes_max, kWidth};
    LaneIdentity identity;
    identity.engine_generation = kGeneration;
    identity.lane_id = kLaneId;
    memory_ = LaneMemory::Create(geometry, identity).value();
    page_ = EnginePageMemory::Create(kGeneration).value();
    page_.page()->heartbeat_ns.store(MonotonicNs(), std::memory_order_relaxed);  // relaxed: one thread
    int sockets[2], events[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
    EXPECT_EQ(pipe2(events, O_CLOEXEC | O_NONBLOCK), 0);
    client_socket_ = UniqueFd(sockets[0]);
    socket_ = UniqueFd(sockets[1]);
    client_events_ = UniqueFd(events[0]);
    events_ = UniqueFd(events[1]);
    submissions_ = SubmissionReader(memory_.request());
    completions_ = CompletionWriter(memory_.reply());
    StartLockHolder();
  }
  ~EngineEnd() { Die(); }
  EngineEnd(const EngineEnd&) = delete;
  EngineEnd& operator=(const EngineEnd&) = delete;

  WelcomeMessage Welcome() const {
    const LaneGeometry& geometry = memory_.reply().geometry;
    WelcomeMessage welcome = {};
    welcome.magic = kHandshakeMagic;
    welcome.layout_major = kLayoutMajor;
    welcome.slots = geometry.slots;
    welcome.width = geometry.width;
    welcome.text_bytes_max = geometry.text_bytes_max;
    welcome.tokens_max = kTokensMax;
    welcome.engine_generation = kGeneration;
    welcome.lane_id = kLaneId;
    welcome.hot_slots = hot_.slots();
    return welcome;
  }
  // Before Connect: gives the engine a hot table.
  HotWriter& MakeHotTable(uint32_t slots) {
    hot_memory_ = HotTableMemory::Create({kWidth, slots}, kGeneration).value();
    hot_ = HotWriter(hot_memory_.view());
    EXPECT_TRUE(hot_memory_.Back(slots - 1));
    return hot_;
  }
  // The client's end; once per object.
  client::LaneConnection Connect() {
    client::LaneConnection connection;
    connection.welcome = Welcome();
    connection.socket = client_socket_.release();
    connection.event_fd = client_events_.release();
    connection.request_fd = fcntl(memory_.request_fd(), F_DUPFD_CLOEXEC, 0);
    connection.reply_fd = fcntl(memory_.reply_fd(), F_DUPFD_CLOEXEC, 0);
    connection.tail_fd = fcntl(memory_.tail_fd(), F_DUPFD_CLOEXEC, 0);
    EXPECT_EQ(client::MapLane(connection.welcome,
                              {connection.request_fd, connection.reply_fd, connection.tail_fd, page_.fd()},
                              &connection.mapping),
              SUTRA_OK)
        << sutra_error_text();
    connection.hot = client::MapHotTable(connection.welcome, hot_memory_.fd());
    return connection;
  }

  // RETURNS the next submitted slot, or -1.
  int Take() {
    uint32_t slot = 0;
    return submissions_.Next(&slot) == SubmissionReader::Take::kTaken ? static_cast<int>(slot) : -1;
  }
  const RequestDescriptor& Request(uint32_t slot) const { return memory_.request().request(slot); }
  ResultDescriptor& Result(uint32_t slot) { return memory_.reply().result(slot); }
  float* Vector(uint32_t slot) { return memory_.reply().vector(slot); }
  // Answers what stands in the slot's request.
  void Answer(uint32_t slot, StatusCode status = StatusCode::kOk) {
    ResultDescriptor& result = Result(slot);
    result.width = kWidth;
    result.source = kSourceModel;
    completions_.Publish(slot, Request(slot).sequence.load(std::memory_order_relaxed), status);  // relaxed: one thread
  }
  void SetState(LaneState state, StatusCode reason = StatusCode::kOk) {
    EngineLine& line = memory_.reply().engine();
    line.close_reason.store(static_cast<uint32_t>(reason), std::memory_order_relaxed);  // relaxed: one thread
    line.state.store(state, std::memory_order_relaxed);                                 // relaxed: one thread
  }
  void Die() {
    if (holder_ <= 0) return;
    kill(holder_, SIGKILL);
    waitpid(holder_, nullptr, 0);
    holder_ = -1;
    socket_ = UniqueFd();
  }

  void HangUp() { socket_ = UniqueFd(); }
  void RingEvent() { EXPECT_EQ(write(events_.get(), "", 1), 1); }

  LaneMemory& memory() { return memory_; }
  HotTableMemory& hot_memory() { return hot_memory_; }
  EnginePage* page() { return page_.page(); }
  int page_fd() const { return page_.fd(); }
  int socket() const { return socket_.get(); }

 private:
  static constexpr uint64_t kGeneration = 77, kLaneId = 5;

  void StartLockHolder() {
    struct flock unlock = {};
    unlock.l_type = F_UNLCK;
    unlock.l_whence = SEEK_SET;
    unlock.l_len = 1;
    EXPECT_EQ(fcntl(memory_.reply_fd(), F_SETLK, &unlock), 0);
    int ready[2];
    EXPECT_EQ(pipe2(ready, O_CLOEXEC), 0);
    holder_ = fork();
    if (holder_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      close(socket_.get());  // a hang-up is the engine's alone
      if (!TakeLock(memory_.reply_fd()) || write(ready[1], "", 1) != 1) _exit(1);
      for (;;) pause();
    }
    close(ready[1]);
    char byte;
    EXPECT_EQ(read(ready[0], &byte, 1), 1) << "no lock holder";
    close(ready[0]);
  }

  LaneMemory memory_;
  EnginePageMemory page_;
  HotTableMemory hot_memory_;
  HotWriter hot_;  // without slots: there is none
  UniqueFd client_socket_, socket_, client_events_, events_;
  SubmissionReader submissions_;
  CompletionWriter completions_;
  pid_t holder_ = -1;
};

// A client's lane opened to an EngineEnd.
class LaneTest : public testing::Test {
 protected:
  void SetUp() override {
    alarm(100);  // the watchdog: a hang becomes a failure that names the test
    lane_ = client::MakeClientLane(&client_.signals, 3, engine_.memory().reply().geometry.slots);
    client_.lanes[0] = lane_;
    client_.lane_count = 1;
    EXPECT_EQ(Open(&engine_), 0u);
  }
  void TearDown() override {
    client::DestroyClientLane(lane_, false);
    client::CloseSignals(&client_.signals);
    alarm(0);
  }

  // Attaches a lane without an engine to this one. RETURNS how many requests moved to it.
  uint64_t Open(EngineEnd* engine) {
    std::atomic<uint64_t> moved = 0;
    EXPECT_EQ(client::MoveLane(lane_, engine->Connect(), MonotonicNs(), &moved), SUTRA_OK) << sutra_error_text();
    return moved;
  }
  client::Attachment* Current() {
    const MutexLock lock(lane_->mutex);
    return lane_->current;
  }
  bool Alive() {
    const MutexLock lock(lane_->mutex);
    return client::CheckAliveLocked(lane_, MonotonicNs());
  }
  // The engine dies and everyone is told, as the helper thread does it. RETURNS how it ended.
  sutra_status Die() {
    engine_.Die();
    EXPECT_FALSE(Alive());
    return client::TellDeath(lane_);
  }
  uint32_t Submit(const std::string& text = "text", const client::Request& request = {},
                  client::SlotPhase holder = client::SlotPhase::kTicket) {
    const MutexLock lock(lane_->mutex);
    uint32_t slot = UINT32_MAX;
    EXPECT_EQ(client::SubmitLocked(lane_, text.data(), static_cast<uint32_t>(text.size()), request, MonotonicNs(),
                                   holder, &slot),
              SUTRA_OK)
        << sutra_error_text();
    return slot;
  }
  void Release(uint32_t slot) {
    const MutexLock lock(lane_->mutex);
    client::ReleaseLocked(lane_, slot);
  }
  uint32_t FreeSlots() {
    const MutexLock lock(lane_->mutex);
    return lane_->free_count;
  }
  uint64_t Sequence(uint32_t slot) const { return lane_->slots[slot].sequence; }

  EngineEnd engine_;
  sutra_client client_;  // with the lane as its only one
  client::ClientLane* lane_ = nullptr;
};

}  // namespace sutra::test
