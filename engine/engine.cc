// Each step fills in the options of one part from the configuration and from the results of earlier steps.
#include "engine/engine.h"

#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <string>
#include <utility>

#include "cache/shard_directory.h"
#include "engine/engine_log.h"
#include "engine/engine_stats.h"
#include "engine/lane_limits.h"
#include "engine/lanes/sigbus_guard.h"
#include "engine/load_watch.h"
#include "shm/base/checkpoint.h"
#include "shm/base/clock.h"
#include "shm/base/random.h"
#include "shm/base/thread_start.h"
#include "shm/base/time.h"
#include "shm/stats/stats_prune.h"

namespace sutra {
namespace {

constexpr uint64_t kDyingSocketNsMax = 5 * kNsPerSecond;

// The usual soft limit of 1024 descriptors is too small for the lanes, the hard limit is not. RETURNS what there is
// now.
uint64_t RaiseFileLimit() {
  rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return UINT64_MAX;
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  return files.rlim_cur;
}

// Log segments, and the memory of lanes too, are files to the kernel: a small soft limit on the size of files (ulimit
// -f) makes them fail. Where the hard limit is small as well, the failures say so.
void RaiseFileSizeLimit() {
  rlimit limit;
  if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_FSIZE, &limit);
}

// Moves the value of a result into *target, or returns the error.
template <typename Target, typename T>
Status Assign(Target* target, Result<T> result) {
  if (!result.ok()) return result.status();
  *target = std::move(result).value();
  return {};
}

}  // namespace

Engine::Engine(const EngineConfig& config) : config_(config), client_logs_(WriteLog) {}
Engine::~Engine() {
  if (!served_) RemoveTraces();
}

Status Engine::PrepareProcess() {
  if (Status status = Assign(&shutdown_, Shutdown::Prepare(WriteLog)); !status.ok()) return status;
  if (!InstallSigbusGuard()) return Status(StatusCode::kStorageError, "cannot install a SIGBUS handler");
  files_max_ = RaiseFileLimit();
  RaiseFileSizeLimit();
  return {};
}

std::string Engine::DataLockPath() const { return config_.data + "/LOCK"; }
std::string Engine::SocketLockPath() const { return config_.socket + ".lock"; }

Status Engine::MakeDataDirectory() {
  if (!config_.cache) return {};  // nothing is there to be locked
  traces_.WillMakeDirectory(config_.data);
  return MakePosixDiskIo(false)->MakeDirectory(config_.data);
}

Status Engine::Lock() {
  assert(shutdown_.has_value());
  if (Status made = MakeDataDirectory(); !made.ok()) return made;
  if (config_.cache) {
    if (Status status = Assign(&data_lock_, EngineLock::Take(DataLockPath())); !status.ok()) return status;
  }
  if (Status status = Assign(&socket_lock_, EngineLock::Take(SocketLockPath())); !status.ok()) return status;
  if (Status status = ListeningSocket::CheckFree(config_.socket); !status.ok()) return status;
  BeginTurn();
  return {};
}

void Engine::BeginTurn() {
  locked_ns_ = MonotonicNs();
  generation_ = RandomSeed();  // once the locks are held; compared for equality only
  static_cast<void>(SUTRA_CHECKPOINT("generation.bumped"));
}

Result<Standby::Turn> Engine::AwaitTurn() {
  if (Status made = MakeDataDirectory(); !made.ok()) return made;
  Standby::Options options{
      .locks = {}, .socket = config_.socket, .model = &info(), .shutdown = &*shutdown_, .log = WriteLog};
  if (config_.cache) options.locks.push_back(DataLockPath());
  options.locks.push_back(SocketLockPath());
  return Standby(std::move(options)).Wait();
}

Status Engine::LockInTurn() {
  assert(shutdown_.has_value() && !backends_.empty());
  Result<Standby::Turn> turn = AwaitTurn();
  // The directory was removed or moved while it waited. The engine that it waited for went on without it, and so does
  // the next one: with an empty cache.
  if (!turn.ok() && turn.status().os_error() == ENOENT) {
    spdlog::warn("standby: {}; making it again", turn.status().message());
    turn = AwaitTurn();
    if (turn.ok()) turn->waited = true;
  }
  if (!turn.ok()) {
    traces_.RemoveDirectories();  // empty ones: its lock is given back already
    return turn.status();
  }
  socket_lock_ = std::move(turn->locks.back());
  if (config_.cache) data_lock_ = std::move(turn->locks.front());
  if (turn->waited) took_over_ns_ = turn->since_ns;
  if (Status status = AwaitFreeSocket(); !status.ok()) return status;
  BeginTurn();
  return {};
}

// The locks of a dying engine may be free a moment before its socket is: the kernel closes its descriptors one after
// another.
Status Engine::AwaitFreeSocket() {
  const uint64_t until_ns = MonotonicNs() + (took_over_ns_ == 0 ? 0 : kDyingSocketNsMax);
  for (;;) {
    Status status = ListeningSocket::CheckFree(config_.socket);
    if (status.ok() || MonotonicNs() >= until_ns) return status;
    pollfd signals = {.fd = shutdown_->fd(), .events = POLLIN, .revents = 0};
    if (poll(&signals, 1, 1) == 1 && shutdown_->OnSignal()) return Status(StatusCode::kCancelled, "stopped");
  }
}

Status Engine::LoadModel() {
  assert(shutdown_.has_value());
  const uint64_t start_ns = MonotonicNs();
  {
    const LoadWatch watch(&*shutdown_, [this] { LeaveWhileLoading(); });
    if (Status status = Assign(&backends_, MakeBackends(config_)); !status.ok()) return status;
  }
  const ModelInfo& model = info();
  spdlog::info("model {} loaded in {} ms: identity {}, width {}, {} tokens at most, {} on {}", model.name,
               (MonotonicNs() - start_ns) / kNsPerMs, model.identity.substr(0, 16), model.width, model.tokens_max,
               model.precision, model.device);
  return {};
}

// On the watch's thread; the main thread is loading and touches nothing of this. A file of int8 weights that is half
// written is the next writer's to remove.
void Engine::LeaveWhileLoading() {
  RemoveTraces();
  spdlog::info("stopped by signal {} while the model was loading, exit code {}", shutdown_->signal_number(),
               static_cast<int>(kExitClean));
  _exit(kExitClean);
}

Result<std::unique_ptr<CacheShard>> Engine::OpenShard() {
  if (disk_ == nullptr) {
    if (Status status = Assign(&disk_, MakeDiskIo(config_.disk_io, config_.data, WriteLog)); !status.ok())
      return status;
  }
  return CacheShard::Open(MakeCacheConfig(), disk_.get(), Clock::Real());
}

Status Engine::OpenCache() {
  assert(!backends_.empty());
  if (!config_.cache || took_over_ns_ != 0) return {};
  traces_.WillMakeTree(ShardPath(config_.data, info().identity));
  if (Status status = Assign(&cache_, OpenShard()); !status.ok()) return status;
  stats_segment_->SetDiskIo(cache_->Stats().disk_io);
  return {};
}

// The thread starts last, when clients are served: until then it would take the CPU from what they wait for.
void Engine::OpenCacheBehind() {
  model_->cache.Expect(Clock::Real());
  opener_.emplace(
      ShardOpener::Options{.open = [this] { return OpenShard(); }, .slot = &model_->cache, .log = WriteLog});
  const Status started = opener_->Start();
  if (started.ok()) return;
  spdlog::error("the cache cannot be opened, so every text is computed: {}", started.message());
  model_->cache.Fail(true);
}

Status Engine::Reserve() {
  assert(socket_lock_.has_value() && !backends_.empty() && cache_ == nullptr);
  const ModelInfo& model = info();
  if (Status status = Assign(&lane_limits_, LaneLimits(config_, files_max_, model.width, WriteLog)); !status.ok()) {
    return status;
  }
  StatsSegmentOptions options;
  options.socket_path = config_.socket;
  options.mode = config_.stats_mode;
  options.engine_generation = generation_;
  options.model = model.name;
  options.identity = model.identity;
  options.precision = model.precision;
  options.device = model.device;
  options.disk_io = "none";
  options.version_text = kEngineVersion;
  for (const PrunedSegment& pruned : PruneStats(geteuid())) {
    spdlog::info("removed the left-over stats segment {} of the ended engine at {}", pruned.name, pruned.socket);
  }
  if (Status status = Assign(&stats_segment_, StatsSegment::Create(options)); !status.ok()) return status;
  stats_ = stats_segment_->writer();
  ShowConstants(stats_, model, lane_limits_.total.lanes, backends_.size());
  if (Status status = Assign(&page_, EnginePageMemory::Create(generation_)); !status.ok()) return status;
  if (Status status = MakeHotTable(); !status.ok()) return status;
  return Assign(&listener_, ListeningSocket::Prepare(config_.socket, config_.socket_mode));
}

// Without a shard nothing is ever found twice.
Status Engine::MakeHotTable() {
  if (!config_.cache || config_.hot_bytes_max == 0) return {};
  const uint32_t width = info().width;
  if (Status status = Assign(&hot_, HotCache::Create(width, config_.hot_bytes_max, generation_)); !status.ok()) {
    return status;
  }
  spdlog::info("hot table: {} vectors, {} KiB at most, for clients of uid {}{}", hot_->slots(), hot_->bytes() >> 10,
               geteuid(), config_.hot_gids.empty() ? "" : ", of --hot-gid");
  return {};
}

void Engine::FillHotTable() {
  if (hot_ == nullptr) return;
  hot_refill_.emplace(HotRefill::Options{.model = &*model_, .log = WriteLog});
  const Status started = hot_refill_->Start();
  if (!started.ok()) spdlog::warn("the hot table is filled by requests alone: {}", started.message());
}

void Engine::RemoveTraces() {
  long_worker_.reset();
  workers_.clear();
  if (admin_.has_value()) admin_->Stop();
  cache_.reset();
  listener_.reset();
  if (stats_segment_ != nullptr) static_cast<void>(StatsSegment::Remove(config_.socket));
  if (socket_lock_.has_value()) socket_lock_->RemoveIfCreated();
  if (!data_lock_.has_value()) return;  // another engine's directory
  traces_.RemoveTrees();
  data_lock_->RemoveIfCreated();
  traces_.RemoveDirectories();
}

bool Engine::HasLog() const { return config_.cache && config_.durability != DurabilityPolicy::kNone; }

void Engine::ShowAll(const EngineLoop::Vitals& vitals) {
  ShowGauges(*model_, vitals);
  // A ring that breaks gives way to plain system calls. Before there is a shard the disk belongs to who opens it.
  if (HasLog() && model_->cache.Get() != nullptr) stats_segment_->SetDiskIo(disk_->name());
  if (identity_keeper_.has_value()) ShowOtherIdentities(stats_, identity_keeper_->figures());
}

void Engine::KeepIdentities() {
  if (!HasLog()) return;
  identity_keeper_.emplace(IdentityKeeper::Options{.identities = MakeIdentityOptions(),
                                                   .ready = [this] { return model_->cache.Get() != nullptr; }});
  const Status started = identity_keeper_->Start();
  if (!started.ok()) spdlog::warn("the caches of other models stay as they are: {}", started.message());
}

Status Engine::Show() {
  assert(listener_.has_value() && (cache_ != nullptr) == (config_.cache && took_over_ns_ == 0));
  model_.emplace(MakeModelOptions());
  watch_.emplace(MakeWatchOptions());
  if (config_.cache) {
    commands_.emplace(MakeCommandOptions());
    admin_.emplace([this](const CacheJob& job, AdminThread::Turn& turn) { return commands_->Run(job, turn); });
    if (Status status = admin_->Start(); !status.ok()) return status;
  }
  loop_.emplace(EngineLoop::Options{.listener = &*listener_,
                                    .page = page_.page(),
                                    .shutdown = &*shutdown_,
                                    .spin_us = config_.spin_us,
                                    .drain_s = config_.drain_s,
                                    .log = WriteLog,
                                    .show_gauges = [this](const EngineLoop::Vitals& vitals) { ShowAll(vitals); },
                                    .check_files = [this] { return watch_->Look(); },
                                    .control = MakeControlOptions()},
                MakeAttachOptions(), &*model_);
  if (Status status = loop_->Prepare(); !status.ok()) return status;
  if (Status status = StartWorkers(); !status.ok()) return status;
  if (Status status = listener_->Show(); !status.ok()) return status;
  served_ = true;
  KeepIdentities();
  FillHotTable();
  if (took_over_ns_ == 0) return {};
  spdlog::info("took over: clients can attach {} ms after the engine before was gone",
               (MonotonicNs() - took_over_ns_) / kNsPerMs);
  if (config_.cache) OpenCacheBehind();
  return {};
}

Status Engine::StartWorkers() {
  const auto device_lost = [this](const Status& status) {
    spdlog::error("the device is lost: {}", status.message());
    loop_->ReportDeviceLost();
  };
  for (const std::unique_ptr<ModelBackend>& backend : backends_) {
    const Status started = StartThread("the model", [&] {
      workers_.emplace_back(&*model_, backend.get(),
                            DeviceWorker::Options{.log = client_logs_.log(), .device_lost = device_lost});
    });
    if (!started.ok()) return started;
  }
  return StartThread("long texts", [&] { long_worker_.emplace(&*model_); });
}

EngineLoop::End Engine::Serve() {
  assert(served_ && !workers_.empty() && long_worker_.has_value());
  spdlog::info("serving {} at {}", model_->info.name, config_.socket);
  return loop_->Run();
}

ExitCode Engine::Stop(EngineLoop::End end) {
  assert(!workers_.empty() && long_worker_.has_value());
  shutdown_->LeaveOnNextSignal();
  if (admin_.has_value()) admin_->Stop();
  identity_keeper_.reset();
  hot_refill_.reset();
  long_worker_->Stop();
  for (DeviceWorker& worker : workers_) worker.Stop();
  Status synced;
  if (opener_.has_value()) synced = opener_->Finish(&cache_);
  if (cache_ != nullptr) synced = cache_->Sync();
  if (!synced.ok()) spdlog::error("the last sync failed: {}", synced.message());
  loop_->CloseLanes(end == EngineLoop::End::kDeviceLost ? StatusCode::kEngineGone : StatusCode::kShuttingDown);
  listener_->Withdraw();
  if (cache_ != nullptr) cache_->Close();
  socket_lock_.reset();
  data_lock_.reset();
  switch (end) {
    case EngineLoop::End::kDeviceLost: return kExitDeviceFault;
    case EngineLoop::End::kLoopFailed: return kExitLoopFailed;
    case EngineLoop::End::kDrainCut:
      spdlog::warn("drain cut short: the rest stays unanswered, and the next engine gets it");
      break;
    case EngineLoop::End::kDrained: break;
  }
  return synced.ok() && end == EngineLoop::End::kDrained ? kExitClean : kExitIncomplete;
}

}  // namespace sutra
