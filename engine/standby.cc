// The wait: locks in a thread, signals and the running engine's end in the main one.
#include "engine/standby.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <iterator>
#include <utility>

#include "shm/base/time.h"
#include "shm/stats/engine_life.h"
#include "shm/stats/stats_reader.h"

namespace sutra {
namespace {

// Without a registration: the engine that holds the lock starts, drains, or is stopped.
constexpr int kAskAgainMs = 1000;
constexpr int kAskSoonMs = 20;  // the locks of an engine that has ended are granted by then, or another has them
constexpr uint64_t kAnswerNsMax = 100 * kNsPerMs;

std::string WhatItServes(const std::string& identity, uint64_t width, const std::string& precision) {
  return "identity " + identity + ", width " + std::to_string(width) + ", " + precision;
}

}  // namespace

Result<Standby::Turn> Standby::Wait() {
  std::vector<EngineLock> taken;
  const Status status = TakeFree(&taken);
  if (status.ok()) return Turn{.locks = std::move(taken), .waited = false, .since_ns = MonotonicNs()};
  Result<Turn> turn = status.code() == StatusCode::kRefused ? WaitForLocks(&taken) : Result<Turn>(status);
  for (EngineLock& lock : taken) lock.RemoveIfCreated();  // of no use to the engine that runs, or else they were moved
  return turn;
}

// Those that are free. kRefused: the next one is another engine's.
Status Standby::TakeFree(std::vector<EngineLock>* taken) const {
  for (const std::string& path : options_.locks) {
    Result<EngineLock> lock = EngineLock::Take(path);
    if (!lock.ok()) return lock.status();
    taken->push_back(std::move(lock).value());
  }
  return {};
}

// A segment whose engine is gone says nothing about the engine that holds the lock now.
Status Standby::CompareWithRunning() const {
  const Status unknown(StatusCode::kNotReady, "not known yet");
  const Result<StatsReader> reader = StatsReader::OpenSocket(options_.socket);
  if (!reader.ok()) return unknown;
  const Result<StatsSnapshot> shown = reader->Snapshot();
  if (!shown.ok()) return unknown;
  const EngineEvidence evidence = GatherEvidence(shown.value());
  const EngineLife life = JudgeEngine(shown.value(), evidence);
  const bool gone = life == EngineLife::kStopped || life == EngineLife::kCrashed;
  if (gone || !evidence.pid_exists || shown->identity.empty()) return unknown;
  const ModelInfo& own = *options_.model;
  const uint64_t width = shown->gauge(Gauge::kModelWidth);
  if (shown->identity == own.identity && width == own.width && shown->precision == own.precision) return {};
  return Status(StatusCode::kRefused, "the engine at " + options_.socket + " (pid " +
                                          std::to_string(shown->gauge(Gauge::kPid)) + ") serves " + shown->model +
                                          " (" + WhatItServes(shown->identity, width, shown->precision) +
                                          "), this standby would serve " + own.name + " (" +
                                          WhatItServes(own.identity, own.width, own.precision) +
                                          "): give it the same model and --precision, or stop that engine first");
}

Status Standby::Register() {
  if (Status known = CompareWithRunning(); known.code() == StatusCode::kRefused) return known;
  const ModelInfo& own = *options_.model;
  const StandbyHello hello = {.identity = own.identity,
                              .precision = own.precision,
                              .width = own.width,
                              .pid = static_cast<uint32_t>(getpid()),
                              .state = StandbyState::kReady};
  Result<StandbyLink> made = StandbyLink::Register(options_.socket, hello, MonotonicNs() + kAnswerNsMax);
  if (!made.ok()) {
    // Refused, although it serves the same: this user may not control it. It waits unregistered.
    const bool same = made.code() == StatusCode::kRefused && CompareWithRunning().ok();
    return same ? Status(StatusCode::kNotReady, made.status().message()) : made.status();
  }
  link_.emplace(std::move(made).value());
  return {};
}

Status Standby::Ask() {
  const Status status = Register();
  if (status.code() == StatusCode::kRefused) return status;
  const bool starts_or_ends = status.code() == StatusCode::kEngineGone;
  if (status.ok() || starts_or_ends || status.message() == said_) return {};
  said_ = status.message();
  options_.log(LogLevel::kWarn, "standby: not registered with the engine that runs, but waiting for it: " + said_);
  return {};
}

Result<Standby::Turn> Standby::WaitForLocks(std::vector<EngineLock>* taken) {
  const std::string& first = options_.locks[taken->size()];
  std::string holder = EngineLock::HolderOf(first);
  if (holder.empty()) holder = "an engine without a name";
  if (Status status = CompareWithRunning(); status.code() == StatusCode::kRefused) return status;
  options_.log(LogLevel::kInfo, "standby: the model is loaded; waiting for " + holder + ", which holds " + first);
  LockWaiter waiter;  // its thread ends with it
  const auto rest = options_.locks.begin() + static_cast<std::ptrdiff_t>(taken->size());
  if (Status status = waiter.Start({rest, options_.locks.end()}); !status.ok()) return status;
  for (int ask_in_ms = 0;;) {
    pollfd items[] = {{.fd = waiter.fd(), .events = POLLIN, .revents = 0},
                      {.fd = options_.shutdown->fd(), .events = POLLIN, .revents = 0},
                      {.fd = link_.has_value() ? link_->fd() : -1, .events = POLLIN, .revents = 0}};
    const int ready = poll(items, std::size(items), link_.has_value() ? kStandbyBeatMs : ask_in_ms);
    if (ready < 0 && errno != EINTR) {
      return Status::FromErrno(StatusCode::kStorageError, "waiting for the engine's end", errno);
    }
    if (ready > 0 && items[1].revents != 0 && options_.shutdown->OnSignal()) {
      return Status(StatusCode::kCancelled, "stopped while waiting for " + holder);
    }
    if (ready > 0 && items[0].revents != 0) break;
    if (ready > 0 && items[2].revents != 0) {
      link_.reset();  // that engine has ended
      ask_in_ms = kAskSoonMs;
    } else if (ready == 0 && link_.has_value()) {
      static_cast<void>(link_->Update(StandbyState::kReady));  // an engine that does not read it may later
    } else if (ready == 0) {
      if (Status refused = Ask(); !refused.ok()) return refused;
      ask_in_ms = kAskAgainMs;
    }
  }
  Result<std::vector<EngineLock>> more = waiter.Take();
  if (!more.ok()) return more.status();
  Turn turn{.locks = std::move(*taken), .waited = true, .since_ns = MonotonicNs()};
  taken->clear();
  for (EngineLock& lock : more.value()) turn.locks.push_back(std::move(lock));
  link_.reset();
  return turn;
}

}  // namespace sutra
