// Turns, sleeps, events and ticks; the drain is the last phase of the same loop.
#include "engine/serving/engine_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "shm/base/checkpoint.h"
#include "shm/base/cpu_pause.h"
#include "shm/base/cycle_clock.h"
#include "shm/base/numbers.h"
#include "shm/sleep_wake.h"

namespace sutra {
namespace {

// What an epoll event refers to: the kind in the upper 8 bits, the lane's or connection's number below.
enum Tag : uint64_t {
  kTagListen = 1ull << 56,
  kTagSignal = 2ull << 56,
  kTagFault = 3ull << 56,
  kTagPending = 4ull << 56,
  kTagSocket = 5ull << 56,
  kTagPid = 6ull << 56,
  kTagMade = 7ull << 56,
  kTagControl = 8ull << 56,
  kTagCacheReply = 9ull << 56,
  kTagKindMask = 0xffull << 56,
};

ControlSessions::Options MakeControlOptions(ControlSessions::Options options, const Acceptor::Options& attach) {
  options.model = attach.model;
  options.engine_generation = attach.engine_generation;
  options.stats = attach.stats;
  options.log = attach.log;
  options.started_ns = MonotonicNs();
  return options;
}

}  // namespace

EngineLoop::EngineLoop(Options options, Acceptor::Options attach, ServedModel* model)
    : options_(std::move(options)),
      model_(*model),
      client_log_(attach.log),
      path_(model),
      reader_(attach.text_bytes_max),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      fault_event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      lanes_({.peer_alive = attach.peer_alive, .stats = model->stats, .log = attach.log},
             {.watch_socket = [this](int fd, uint64_t id) { return Watch(fd, kTagSocket | id); },
              .watch_process = [this](int fd, uint64_t id) { return Watch(fd, kTagPid | id); },
              .unwatch = [this](int fd) { Unwatch(fd); },
              .hinted =
                  [this](std::span<const uint32_t> hints) {
                    if (model_.hot != nullptr) model_.hot->Mark(hints, model_.cache.Get());
                  }}),
      control_(MakeControlOptions(options_.control, attach), MakeControlLoop()),
      acceptor_(std::move(attach), MakeWatcher()) {}

ControlSessions::Loop EngineLoop::MakeControlLoop() {
  return {.watch = [this](int fd, uint64_t id) { return Watch(fd, kTagControl | id); },
          .unwatch = [this](int fd) { Unwatch(fd); },
          .facts =
              [this] {
                const uint32_t state = options_.page->state.load(std::memory_order_relaxed);  // relaxed: our own word
                return ControlSessions::Facts{.state = static_cast<EngineState>(state),
                                              .lanes = lanes_.size(),
                                              .clients = acceptor_.clients().size()};
              },
          .hand_over = [this] { StartDrain(MonotonicNs()); }};
}

Acceptor::Watcher EngineLoop::MakeWatcher() {
  return {
      .watch = [this](int fd, uint64_t id) { Watch(fd, kTagPending | id); },
      .unwatch = [this](int fd) { Unwatch(fd); },
      .attached = [this](AttachedLane attached) { Add(std::move(attached)); },
      .may_control = [this](int socket, const Peer& peer) { return control_.MayControl(socket, peer); },
      .control = [this](UniqueFd socket, const Peer& peer) { control_.Take(std::move(socket), peer, MonotonicNs()); }};
}

EngineLoop::~EngineLoop() = default;

Status EngineLoop::Prepare() {
  if (!epoll_ || !fault_event_) {
    return Status::FromErrno(StatusCode::kOutOfMemory, "creating the engine's epoll descriptor", errno);
  }
  listening_ = Watch(options_.listener->fd(), kTagListen);
  bool watched = listening_;
  if (options_.shutdown != nullptr) watched &= Watch(options_.shutdown->fd(), kTagSignal);
  watched &= Watch(fault_event_.get(), kTagFault);
  if (Status status = acceptor_.Start(); !status.ok()) return status;
  watched &= Watch(acceptor_.made_fd(), kTagMade);
  if (options_.control.admin != nullptr) watched &= Watch(options_.control.admin->fd(), kTagCacheReply);
  return watched ? Status() : Status(StatusCode::kOutOfMemory, "epoll refused a descriptor");
}

// False when the kernel's memory, or the user's number of watches, is exhausted, which other programs can cause. A
// client then loses its quick events, but the engine goes on: an attach expires, and a lane is polled and swept at
// every tick.
bool EngineLoop::Watch(int fd, uint64_t tag) {
  epoll_event event = {};
  event.events = EPOLLIN | EPOLLRDHUP;
  event.data.u64 = tag;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0) return true;
  client_log_(LogKind::kWatchFailed, LogLevel::kError,
              std::string("epoll refused a descriptor: ") + std::strerror(errno) + "; see fs.epoll.max_user_watches");
  return false;
}

void EngineLoop::Unwatch(int fd) { epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr); }

void EngineLoop::ReportDeviceLost() {
  device_lost_.store(true, std::memory_order_release);
  const uint64_t one = 1;
  static_cast<void>(!write(fault_event_.get(), &one, sizeof(one)));
}

EngineLoop::End EngineLoop::Run() {
  // relaxed: observers of the page need no ordering
  options_.page->state.store(kEngineServing, std::memory_order_relaxed);
  uint64_t last_work_ns = CycleNs();
  // Adaptive: the spin doubles after finding work and halves after finding none; never above spin_us.
  const uint64_t spin_ns_max = uint64_t{options_.spin_us} * 1000;
  uint64_t spin_ns = spin_ns_max;
  while (!failed_) {
    const bool worked = PollLanes();
    const uint64_t now_ns = CycleNs();
    model_.stats.Add(Counter::kLoopRounds);
    if (worked) {
      last_work_ns = now_ns;
      spin_ns = std::min(spin_ns_max, spin_ns * 2 + 1);
    }
    if (now_ns >= next_tick_ns_) Tick(now_ns);
    if (now_ns >= next_park_ns_) {
      next_park_ns_ = now_ns + kParkEveryNs;
      lanes_.ParkSilent();
    }
    if (device_lost_.load(std::memory_order_acquire)) return End::kDeviceLost;
    if (draining_ && DrainFinished(now_ns)) return drain_cut_ ? End::kDrainCut : End::kDrained;
    if (!worked && now_ns - last_work_ns >= spin_ns) {
      spin_ns = std::max(spin_ns / 2, spin_ns_max / 8);
      if (Sleep(now_ns)) last_work_ns = CycleNs();  // a heartbeat alone is nothing to spin after
    } else if (now_ns >= next_events_ns_) {
      HandleEvents(0);
    } else if (!worked) {
      CpuPause();
    }
  }
  return End::kLoopFailed;
}

bool EngineLoop::PollLanes() {
  turn_until_ns_ = 0;
  turn_over_ = false;
  if (!blocked_.empty()) TryBlocked();
  // A draining engine takes nothing more: what is in a ring is the next engine's.
  const bool more = !draining_ && lanes_.Turn([this](const std::shared_ptr<Lane>& lane,
                                                     int64_t bytes) { return PollLane(lane, bytes); },
                                              [this] { return turn_over_; });
  model_.batcher.Flush();
  for (const std::shared_ptr<Lane>& lane : model_.long_texts.Unreadable()) {
    InMemory([&] { lanes_.ReportViolation(*lane, "a text that cannot be read"); });
  }
  InMemory([&] { lanes_.EndViolators(); });
  return more || !blocked_.empty();
}

// A request that met a lock whose holder lost its CPU waits here with its lane; all others go on.
void EngineLoop::Handle(LaneReader::Taken* request) {
  if (path_.Handle(request)) return;
  try {
    blocked_.emplace_back(*request);
  } catch (const std::bad_alloc&) {
    while (!path_.HandleAgain(request)) CpuPause();
  }
}

void EngineLoop::TryBlocked() {
  blocked_.remove_if([this](Blocked& blocked) {
    if (!path_.HandleAgain(&blocked.request)) return false;
    model_.replies.Wake(blocked.request.waiter.lane.get());
    return true;
  });
}

bool EngineLoop::IsBlocked(const Lane& lane) const {
  return std::any_of(blocked_.begin(), blocked_.end(),
                     [&lane](const Blocked& blocked) { return blocked.request.waiter.lane.get() == &lane; });
}

int64_t EngineLoop::PollLane(const std::shared_ptr<Lane>& lane, int64_t bytes) {
  LaneReader::Taken taken;
  int64_t cost = 0;
  while (cost < bytes && (blocked_.empty() || !IsBlocked(*lane))) {
    const char* why = "";
    const LaneReader::Next next = reader_.Take(lane, &taken, &why);
    if (next == LaneReader::Next::kNone) break;
    if (next == LaneReader::Next::kViolation) {
      lanes_.ReportViolation(*lane, why);
      break;
    }
    const uint64_t taken_ns = taken.waiter.taken_ns;
    if (turn_until_ns_ == 0) turn_until_ns_ = taken_ns + kTurnNs;
    turn_over_ = taken_ns >= turn_until_ns_;
    cost += TurnOrder::kRequestBytes + static_cast<int64_t>(taken.text.size());
    Handle(&taken);
  }
  if (cost == 0) return 0;
  lane->ShowTaken();
  model_.replies.Wake(lane.get());
  return cost;
}

// False if nothing but time passed.
bool EngineLoop::Sleep(uint64_t now_ns) {
  // SYNC L5: announce, fence, check once more; a client that published before saw no sleeper, and its entry is found
  // here.
  AnnounceEngineAsleep(options_.page);
  bool stirred = PollLanes();
  if (!stirred) {
    model_.stats.Add(Counter::kEngineSleeps);
    const uint64_t left_ns = next_tick_ns_ > now_ns ? next_tick_ns_ - now_ns : 0;
    const uint64_t left_ms = DivideRoundUp(left_ns, kNsPerMs);
    stirred = HandleEvents(static_cast<int>(draining_ ? std::min(left_ms, kDrainLookMs) : left_ms));
  }
  AnnounceEngineAwake(options_.page);
  return stirred;
}

// False if there were none.
bool EngineLoop::HandleEvents(int timeout_ms) {
  epoll_event events[kEventsPerTurn];
  const int count = epoll_wait(epoll_.get(), events, kEventsPerTurn, timeout_ms);
  if (count < 0 && errno != EINTR) failed_ = true;
  // A full list has a rest; epoll returns those first, and a turn comes in between.
  next_events_ns_ = count == kEventsPerTurn ? 0 : CycleNs() + kEventsEveryNs;
  for (int i = 0; i < count; ++i) {
    const uint64_t tag = events[i].data.u64;
    const bool hung_up = (events[i].events & (EPOLLHUP | EPOLLERR)) != 0;
    InMemory([&] { HandleEvent(tag & kTagKindMask, tag & ~uint64_t{kTagKindMask}, hung_up); });
  }
  return count > 0;
}

void EngineLoop::HandleEvent(uint64_t kind, uint64_t id, bool hung_up) {
  switch (kind) {
    case kTagListen:
      if (!acceptor_.OnListen(options_.listener->fd(), MonotonicNs())) {
        Unwatch(options_.listener->fd());  // until the next tick
        listening_ = false;
      }
      break;
    case kTagSignal:
      if (options_.shutdown->OnSignal()) StartDrain(MonotonicNs());
      break;
    case kTagPending: acceptor_.OnReady(id, MonotonicNs()); break;
    case kTagControl: control_.OnReady(id, MonotonicNs()); break;
    case kTagCacheReply: control_.OnCacheReply(MonotonicNs()); break;
    case kTagMade: acceptor_.OnMade(MonotonicNs()); break;
    case kTagSocket: lanes_.OnSocket(id, hung_up); break;
    case kTagPid: lanes_.OnProcessEnd(id); break;
    default: break;  // the fault event only ends the wait
  }
}

template <typename Step>
void EngineLoop::InMemory(const Step& step) {
  try {
    step();
  } catch (const std::bad_alloc&) {
    model_.stats.Add(Counter::kOutOfMemory);
  }
}

void EngineLoop::Tick(uint64_t now_ns) {
  next_tick_ns_ = now_ns + options_.tick_ns;
  options_.page->heartbeat_ns.store(now_ns, std::memory_order_relaxed);  // relaxed: only its age is read
  if (model_.hot != nullptr) model_.hot->Beat();
  InMemory([&] { lanes_.LookAtHotHits(now_ns); });
  if (now_ns >= next_sweep_ns_) {
    next_sweep_ns_ = now_ns + kSweepNs;
    InMemory([&] { lanes_.Sweep(); });
  }
  InMemory([&] { acceptor_.Expire(now_ns); });
  InMemory([&] { control_.Expire(now_ns); });
  if (options_.check_files && now_ns >= next_check_ns_ && !draining_) {
    next_check_ns_ = now_ns + kNsPerSecond;
    InMemory([&] {
      if (options_.check_files()) listening_ = false;  // the old socket's watch ended with it
    });
  }
  if (!listening_) InMemory([&] { listening_ = Watch(options_.listener->fd(), kTagListen); });
  ShowGauges(now_ns);
}

void EngineLoop::ShowGauges(uint64_t now_ns) const {
  if (!options_.show_gauges) return;
  const uint32_t state = options_.page->state.load(std::memory_order_relaxed);  // relaxed: our own word
  options_.show_gauges({.now_ns = now_ns,
                        .state = static_cast<EngineState>(state),
                        .lanes = lanes_.size(),
                        .lanes_parked = lanes_.parked(),
                        .standbys = control_.standbys().size(),
                        .standbys_ready = control_.standbys().Ready(now_ns)});
}

void EngineLoop::StartDrain(uint64_t now_ns) {
  if (draining_) return;  // a signal after a request
  draining_ = true;
  if (model_.hot != nullptr) model_.hot->Close();  // before anything says that this engine ends
  static_cast<void>(SUTRA_CHECKPOINT("drain.stopped_reading"));
  drain_until_ns_ = now_ns + uint64_t{options_.drain_s} * kNsPerSecond;
  options_.page->state.store(kEngineDraining, std::memory_order_relaxed);  // relaxed: a hint; the lanes' states count
  InMemory([&] { acceptor_.Drain(now_ns); });
  lanes_.SetDraining();
  control_.Drain();
  if (options_.log) {
    const size_t texts = model_.long_texts.size() + model_.in_flight.size();
    options_.log(LogLevel::kInfo, "draining: " + std::to_string(texts) + " texts under way, " +
                                      std::to_string(lanes_.size()) + " lanes; a second signal leaves at once");
  }
}

// When no long text and no computation is under way, everything taken is answered: other hits and refusals are answered
// as they are taken. A long text is in flight before it leaves the long ones, which are therefore looked at first.
// A cache command that is under way ends at its next step, and is answered, too.
// What there is no time for stays unanswered: an error would end it, while its client can move it to the next engine
// once the lane is closed.
bool EngineLoop::DrainFinished(uint64_t now_ns) {
  const bool answered = model_.long_texts.size() == 0 && model_.in_flight.size() == 0 && blocked_.empty();
  if (answered && !control_.busy()) {
    static_cast<void>(SUTRA_CHECKPOINT("drain.answered"));
    return true;
  }
  if (now_ns < drain_until_ns_) return false;
  InMemory([&] {
    const size_t unanswered = model_.long_texts.size() + model_.in_flight.TakeAll().size() + blocked_.size();
    blocked_.clear();
    model_.stats.Add(Counter::kTextsLaneEnded, unanswered);
    drain_cut_ = true;
  });
  return drain_cut_;
}

void EngineLoop::CloseLanes(StatusCode reason) {
  if (model_.hot != nullptr) model_.hot->Close();
  acceptor_.KeepTexts();
  lanes_.CloseAll(reason);
  static_cast<void>(SUTRA_CHECKPOINT("drain.closed"));
  blocked_.clear();
  // Whoever came since the last turn (a sync may have taken seconds) is told, too.
  InMemory([&] {
    acceptor_.Drain(MonotonicNs(), true);
    for (int turn = 0; turn < kLastAccepts; ++turn) acceptor_.OnListen(options_.listener->fd(), MonotonicNs());
  });
  options_.page->state.store(kEngineClosed, std::memory_order_relaxed);  // relaxed: the lanes' states count
  ShowGauges(MonotonicNs());
}

}  // namespace sutra
