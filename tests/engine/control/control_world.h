// A socket whose connections go to real ControlSessions, served by a thread of its own; the test is the asker.
//
// Thread rule: the test's thread; what the sessions did is read after Stop, or through the socket.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "engine/control/control_sessions.h"
#include "engine/lanes/listening_socket.h"
#include "shm/base/time.h"
#include "shm/stats/stats_segment.h"
#include "tests/kit/temp_dir.h"

namespace sutra::test {

inline ModelInfo ControlledModel() {
  ModelInfo model;
  model.name = "fake";
  model.identity = std::string(64, 'a');
  model.width = 8;
  model.precision = "fp32";
  model.device = "cpu";
  return model;
}

inline StandbyHello FittingStandby(StandbyState state = StandbyState::kReady) {
  return {.identity = std::string(64, 'a'),
          .precision = "fp32",
          .width = 8,
          .pid = static_cast<uint32_t>(getpid()),
          .state = state};
}

inline uint64_t InSeconds(uint64_t seconds) { return MonotonicNs() + seconds * kNsPerSecond; }

class ControlWorld {
 public:
  // `run`: what cache commands do; without it there is no cache.
  explicit ControlWorld(AdminThread::Run run = {})
      : wake_(eventfd(0, EFD_CLOEXEC)),
        stats_(StatsSegment::CreatePrivate()),
        listener_(std::move(ListeningSocket::Open(path(), 0600)).value()) {
    ControlSessions::Options options;
    options.version = "1.2.3";
    options.socket_path = path();
    options.model = ControlledModel();
    options.engine_generation = 7;
    options.started_ns = MonotonicNs();
    options.stats = stats_->writer();
    options.verbosity = [this] { return verbosity_.load(std::memory_order_relaxed); };
    options.set_verbosity = [this](LogVerbosity level) { verbosity_.store(level, std::memory_order_relaxed); };
    if (run) {
      admin_.emplace(std::move(run));
      EXPECT_TRUE(admin_->Start().ok());
      options.admin = &*admin_;
    }
    sessions_ = std::make_unique<ControlSessions>(
        std::move(options),
        ControlSessions::Loop{.watch = [this](int fd, uint64_t id) { return watched_.emplace(fd, id).second; },
                              .unwatch = [this](int fd) { watched_.erase(fd); },
                              .facts =
                                  [this] {
                                    return ControlSessions::Facts{state(), 3, 2};
                                  },
                              .hand_over = [this] { hand_overs_.fetch_add(1, std::memory_order_relaxed); }});
    thread_ = std::thread([this] { Run(); });
  }
  ~ControlWorld() { Stop(); }

  std::string path() const { return directory_ / "s"; }
  void SetState(EngineState state) { state_.store(state, std::memory_order_relaxed); }
  int hand_overs() const { return hand_overs_.load(std::memory_order_relaxed); }
  LogVerbosity verbosity() const { return verbosity_.load(std::memory_order_relaxed); }
  uint64_t Count(Counter counter) const { return stats_->writer().Get(counter); }

  // As an engine that drains.
  void Shut() { admin_->Shut(); }
  void Stop() {
    if (admin_.has_value()) admin_->Stop();
    if (!thread_.joinable()) return;
    const uint64_t one = 1;
    EXPECT_EQ(write(wake_.get(), &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
    thread_.join();
    sessions_.reset();
  }

 private:
  EngineState state() const { return state_.load(std::memory_order_relaxed); }

  void Run() {
    for (;;) {
      std::vector<pollfd> items = {{wake_.get(), POLLIN, 0}, {listener_.fd(), POLLIN, 0}};
      for (const auto& [fd, id] : watched_) items.push_back({fd, POLLIN, 0});
      for (const UniqueFd& fd : silent_) items.push_back({fd.get(), POLLIN, 0});
      if (admin_.has_value()) items.push_back({admin_->fd(), POLLIN, 0});
      poll(items.data(), items.size(), 20);
      if (items[0].revents != 0) return;
      if (items[1].revents != 0) silent_.emplace_back(accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC));
      const std::map<int, uint64_t> watched = watched_;
      for (const auto& [fd, id] : watched) sessions_->OnReady(id, MonotonicNs());
      sessions_->OnCacheReply(MonotonicNs());
      std::vector<UniqueFd> waiting = std::move(silent_);
      silent_.clear();
      for (UniqueFd& fd : waiting) {
        pollfd item = {fd.get(), POLLIN, 0};
        if (poll(&item, 1, 0) == 0) {
          silent_.push_back(std::move(fd));
          continue;
        }
        sessions_->Take(std::move(fd), {.pid = getpid(), .uid = getuid(), .gid = getgid()}, MonotonicNs());
      }
      sessions_->Expire(MonotonicNs());
    }
  }

  TempDir directory_;
  UniqueFd wake_;
  std::unique_ptr<StatsSegment> stats_;
  ListeningSocket listener_;
  std::atomic<EngineState> state_{kEngineServing};
  std::atomic<int> hand_overs_{0};
  std::atomic<LogVerbosity> verbosity_{LogVerbosity::kInfo};
  std::optional<AdminThread> admin_;
  std::map<int, uint64_t> watched_;  // the thread's, as all that follows
  std::vector<UniqueFd> silent_;     // connected, nothing said
  std::unique_ptr<ControlSessions> sessions_;
  std::thread thread_;
};

}  // namespace sutra::test
