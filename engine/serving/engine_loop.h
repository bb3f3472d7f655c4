// The loop thread: polls the submission rings of all lanes, answers hits, hands misses to the batcher, and handles
// everything that arrives through descriptors (attaches, doorbells, deaths, signals).
//
// Who owns what:
//   loop thread     epoll, the acceptor, the lanes' reading sides, the engine page, gauges, starting computations
//   device worker   its backend; completes computations; answers misses (through each lane's mutex)
//   log committer   the cache's disk (inside the shard)
//   sutra-admin     cache commands of control sessions (admin_thread.h); the loop begins and answers them
//
// Memory that is short fails one request, one attach or one line of the log, never the loop: each step of a turn is
// caught on its own (InMemory), and leaves what it works on as it was, or ended.
//
// Bounds of a turn: a quantum per client (turn_order.h), and kTurnNs over all clients; the next turn goes on where this
// one stopped, and heartbeat, events, attaches and expiry come between turns. kEventsPerTurn events. A silent lane is
// parked after kParkEveryNs to twice that, and costs nothing from then on. When nothing happens the loop spins for at
// most spin_us and then sleeps in epoll, waking only for the heartbeat.
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <utility>

#include "engine/control/control_sessions.h"
#include "engine/lanes/acceptor.h"
#include "engine/lanes/lane_reader.h"
#include "engine/lanes/lane_table.h"
#include "engine/lanes/listening_socket.h"
#include "engine/serving/request_path.h"
#include "engine/serving/shutdown.h"
#include "shm/base/log_line.h"
#include "shm/lane_memory.h"
#include "shm/stats/stats_writer.h"

namespace sutra {

class EngineLoop {
 public:
  // The loop's own part of the gauges.
  struct Vitals {
    uint64_t now_ns = 0;
    EngineState state = kEngineStarting;
    size_t lanes = 0;
    size_t lanes_parked = 0;
    size_t standbys = 0, standbys_ready = 0;
  };
  struct Options {
    ListeningSocket* listener = nullptr;
    EnginePage* page = nullptr;
    Shutdown* shutdown = nullptr;
    uint32_t spin_us = 0;
    uint32_t drain_s = 0;
    uint64_t tick_ns = 50 * kNsPerMs;  // clients expect a heartbeat every 100 ms at least (layout.h)
    LogLine log;
    std::function<void(const Vitals&)> show_gauges;  // at every tick, and when the lanes are closed
    // Every second while it serves. True: the listener was bound again.
    std::function<bool()> check_files;
    ControlSessions::Options control = {};  // what the loop does not know itself
  };
  enum class End {
    kDrained,     // everything taken was answered
    kDrainCut,    // the drain timed out; the rest stays unanswered
    kDeviceLost,  // a worker reported its device unusable
    kLoopFailed,  // epoll failed
  };

  // The lanes get their rules (which clients may attach, how a client is found dead, where lines about clients go) from
  // `attach`.
  EngineLoop(Options options, Acceptor::Options attach, ServedModel* model);
  ~EngineLoop();

  // kOk, or why the loop cannot run.
  Status Prepare();
  // Serves until a signal and the end of the drain, or until a fault.
  End Run();
  // Serves a lane from the next turn on. Called by the acceptor when a handshake is complete.
  void Add(AttachedLane attached) { lanes_.Add(std::move(attached)); }
  // One turn of Run. False if the ring of every lane that is not parked was looked at and was empty. Draining, no ring
  // is looked at.
  bool PollLanes();

  // Marks every lane closed and hangs up. Nothing is answered after it.
  void CloseLanes(StatusCode reason);

  // Any thread: the device is lost; Run ends as soon as possible.
  void ReportDeviceLost();

  static constexpr uint64_t kTurnNs = 200'000;  // no client's visit begins later; staged texts wait for the turn's end
  static constexpr uint64_t kParkEveryNs = 10 * kNsPerMs;

 private:
  static constexpr int kEventsPerTurn = 16;
  static constexpr int kLastAccepts = 16;      // a whole backlog
  static constexpr uint64_t kDrainLookMs = 1;  // whether the last computation has ended: the next engine waits for it
  static constexpr uint64_t kSweepNs = 250 * kNsPerMs;
  static constexpr uint64_t kEventsEveryNs = 20'000;  // while rings are busy: a parked lane's doorbell waits for it

  // A taken request that waits for another thread's lock (RequestPath::Handle). Its lane is not read meanwhile.
  struct Blocked {
    explicit Blocked(const LaneReader::Taken& taken) : text(taken.text), request(taken) { request.text = text; }
    Blocked(const Blocked&) = delete;
    Blocked& operator=(const Blocked&) = delete;
    const std::string text;
    LaneReader::Taken request;
  };

  int64_t PollLane(const std::shared_ptr<Lane>& lane, int64_t bytes);
  void Handle(LaneReader::Taken* request);
  void TryBlocked();
  bool IsBlocked(const Lane& lane) const;
  bool HandleEvents(int timeout_ms);
  void HandleEvent(uint64_t kind, uint64_t id, bool hung_up);
  template <typename Step>
  void InMemory(const Step& step);
  bool Sleep(uint64_t now_ns);
  void Tick(uint64_t now_ns);
  void ShowGauges(uint64_t now_ns) const;
  ControlSessions::Loop MakeControlLoop();
  Acceptor::Watcher MakeWatcher();
  void StartDrain(uint64_t now_ns);
  bool DrainFinished(uint64_t now_ns);
  bool Watch(int fd, uint64_t tag);
  void Unwatch(int fd);

  const Options options_;
  ServedModel& model_;
  const KindLog client_log_;  // for messages that clients can provoke; its owner limits the rate
  RequestPath path_;
  LaneReader reader_;
  UniqueFd epoll_;
  UniqueFd fault_event_;  // in-process only: an eventfd never crosses a trust boundary
  LaneTable lanes_;
  ControlSessions control_;
  Acceptor acceptor_;
  std::list<Blocked> blocked_;  // almost always empty

  uint64_t next_tick_ns_ = 0;
  uint64_t next_sweep_ns_ = 0;
  uint64_t next_check_ns_ = 0;
  uint64_t next_park_ns_ = 0;
  uint64_t next_events_ns_ = 0;
  uint64_t turn_until_ns_ = 0;  // 0 = nothing was taken in this turn yet
  bool turn_over_ = false;
  bool listening_ = false;
  bool draining_ = false;
  uint64_t drain_until_ns_ = 0;
  bool drain_cut_ = false;
  bool failed_ = false;
  std::atomic<bool> device_lost_{false};
};

}  // namespace sutra
