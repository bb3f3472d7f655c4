// Each step fills in the options of one part from the configuration and from the results of earlier steps.
#include "engine/engine.h"

#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cassert>
#include <string>
#include <utility>

#include "cache/shard_directory.h"
#include "engine/backend_choice.h"
#include "engine/engine_stats.h"
#include "engine/lane_limits.h"
#include "engine/lanes/sigbus_guard.h"
#include "engine/model/fake_backend.h"
#include "shm/base/checkpoint.h"
#include "shm/base/clock.h"
#include "shm/base/host.h"
#include "shm/base/random.h"
#include "shm/base/thread_start.h"
#include "shm/base/time.h"
#include "shm/stats/stats_prune.h"

namespace sutra {
namespace {

void WriteLog(LogLevel level, const std::string& line) {
  switch (level) {
    case LogLevel::kInfo: return spdlog::info("{}", line);
    case LogLevel::kWarn: return spdlog::warn("{}", line);
    case LogLevel::kError: return spdlog::error("{}", line);
  }
}

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

Result<std::unique_ptr<ModelBackend>> LoadBackend(const EngineConfig& config) {
  if (config.backend == Backend::kFake) return MakeFakeBackend("fake", config.fake_width);
  return MakeModelBackend({.model_dir = config.model,
                           .precision = config.precision,
                           .device = config.device,
                           .executor = config.executor,
                           .threads = config.threads});
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

Status Engine::Lock() {
  assert(shutdown_.has_value());
  if (config_.cache) {  // without one nothing is there to be locked
    traces_.WillMakeDirectory(config_.data);
    if (Status made = MakePosixDiskIo(false)->MakeDirectory(config_.data); !made.ok()) return made;
    if (Status status = Assign(&data_lock_, EngineLock::Take(config_.data + "/LOCK")); !status.ok()) return status;
  }
  if (Status status = Assign(&socket_lock_, EngineLock::Take(config_.socket + ".lock")); !status.ok()) return status;
  if (Status status = ListeningSocket::CheckFree(config_.socket); !status.ok()) return status;
  generation_ = RandomSeed();  // once the locks are held; compared for equality only
  static_cast<void>(SUTRA_CHECKPOINT("generation.bumped"));
  return {};
}

Status Engine::LoadModel() {
  assert(socket_lock_.has_value());
  const uint64_t start_ns = MonotonicNs();
  if (Status status = Assign(&backend_, LoadBackend(config_)); !status.ok()) return status;
  const ModelInfo& model = backend_->info();
  spdlog::info("model {} loaded in {} ms: identity {}, width {}, {} tokens at most, {} on {}", model.name,
               (MonotonicNs() - start_ns) / kNsPerMs, model.identity.substr(0, 16), model.width, model.tokens_max,
               model.precision, model.device);
  return {};
}

CacheConfig Engine::MakeCacheConfig() const {
  const ModelInfo& model = backend_->info();
  CacheConfig cache;
  cache.directory = config_.data;
  cache.model_identity = model.identity;
  cache.model_name = model.name;
  cache.width = model.width;
  cache.entries_max = config_.cache_entries_max;
  cache.bytes_max = config_.cache_bytes_max;
  cache.ttl_s_default = config_.ttl_s;
  cache.policy = config_.durability;
  cache.wal_bytes_max = config_.wal_bytes_max;
  cache.wal_segment_bytes = config_.wal_segment_bytes;
  cache.strict_recovery = config_.strict_recovery;
  cache.log = WriteLog;
  return cache;
}

Status Engine::OpenCache() {
  assert(backend_ != nullptr);
  if (!config_.cache) return {};
  traces_.WillMakeTree(ShardPath(config_.data, backend_->info().identity));
  if (Status status = Assign(&disk_, MakeDiskIo(config_.disk_io, config_.data, WriteLog)); !status.ok()) return status;
  if (Status status = Assign(&cache_, CacheShard::Open(MakeCacheConfig(), disk_.get(), Clock::Real())); !status.ok()) {
    return status;
  }
  stats_segment_->SetDiskIo(cache_->Stats().disk_io);
  return {};
}

Status Engine::Reserve() {
  assert(backend_ != nullptr && cache_ == nullptr);
  const ModelInfo& model = backend_->info();
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
  ShowConstants(stats_, model, lane_limits_.total.lanes);
  if (Status status = Assign(&page_, EnginePageMemory::Create(generation_)); !status.ok()) return status;
  return Assign(&listener_, ListeningSocket::Prepare(config_.socket, config_.socket_mode));
}

void Engine::RemoveTraces() {
  worker_.reset();
  cache_.reset();
  listener_.reset();
  if (stats_segment_ != nullptr) static_cast<void>(StatsSegment::Remove(config_.socket));
  if (socket_lock_.has_value()) socket_lock_->RemoveIfCreated();
  if (!data_lock_.has_value()) return;  // another engine's directory
  traces_.RemoveTrees();
  data_lock_->RemoveIfCreated();
  traces_.RemoveDirectories();
}

bool Engine::HasLog() const { return cache_ != nullptr && config_.durability != DurabilityPolicy::kNone; }

void Engine::ShowAll(const EngineLoop::Vitals& vitals) {
  ShowGauges(*model_, vitals);
  if (HasLog()) stats_segment_->SetDiskIo(disk_->name());  // a ring that breaks gives way to plain system calls
}

FileWatch::Options Engine::MakeWatchOptions() {
  return {.socket = &*listener_,
          .socket_lock = &*socket_lock_,
          .data_lock = data_lock_.has_value() ? &*data_lock_ : nullptr,
          .cache = cache_.get(),
          .shard_directory = HasLog() ? ShardPath(config_.data, backend_->info().identity) : "",
          .stats = stats_,
          .log = WriteLog};
}

Acceptor::Options Engine::MakeAttachOptions() {
  return {.allow_uids = config_.allow_uids,
          .allow_gids = config_.allow_gids,
          .slots_default = config_.slots,
          .text_bytes_max = config_.text_bytes_max,
          .model = backend_->info(),
          .engine_generation = generation_,
          .engine_page_fd = page_.fd(),
          .quota = lane_limits_,
          .attach_rate_max = config_.attach_rate_max,
          .stats = stats_,
          .log = client_logs_.log()};
}

ServedModel::Options Engine::MakeModelOptions() {
  // On two CPUs a polling worker occupies the CPU that the loop and the clients need.
  const uint32_t worker_spin_us = UsableCpus() > 2 ? config_.spin_us : 0;
  return {.backend = backend_.get(),
          .cache = cache_.get(),
          .ttl_s_default = config_.ttl_s,
          .batches = {.tokens_max = config_.batch_tokens_max,
                      .texts_max = config_.batch_tokens_max,  // every text has a token: tokens alone bound a batch
                      .queue_texts_max = config_.queue_texts_max,
                      .queue_bytes_max = config_.queue_bytes_max,
                      .spin_us = worker_spin_us},
          .stats = stats_};
}

Status Engine::Show() {
  assert(listener_.has_value() && (cache_ != nullptr) == config_.cache);
  watch_.emplace(MakeWatchOptions());
  model_.emplace(MakeModelOptions());
  loop_.emplace(EngineLoop::Options{.listener = &*listener_,
                                    .page = page_.page(),
                                    .shutdown = &*shutdown_,
                                    .spin_us = config_.spin_us,
                                    .drain_s = config_.drain_s,
                                    .log = WriteLog,
                                    .show_gauges = [this](const EngineLoop::Vitals& vitals) { ShowAll(vitals); },
                                    .check_files = [this] { return watch_->Look(); }},
                MakeAttachOptions(), &*model_);
  if (Status status = loop_->Prepare(); !status.ok()) return status;
  if (Status status = StartWorker(); !status.ok()) return status;
  if (Status status = listener_->Show(); !status.ok()) return status;
  served_ = true;
  return {};
}

Status Engine::StartWorker() {
  const auto device_lost = [this](const Status& status) {
    spdlog::error("the device is lost: {}", status.message());
    loop_->ReportDeviceLost();
  };
  return StartThread("the model", [&] {
    worker_.emplace(&*model_, DeviceWorker::Options{.log = client_logs_.log(), .device_lost = device_lost});
  });
}

EngineLoop::End Engine::Serve() {
  assert(served_ && worker_.has_value());
  spdlog::info("serving {} at {}", model_->info.name, config_.socket);
  return loop_->Run();
}

ExitCode Engine::Stop(EngineLoop::End end) {
  assert(worker_.has_value());
  shutdown_->LeaveOnNextSignal();
  worker_->Stop();
  Status synced;
  if (cache_ != nullptr) synced = cache_->Sync();
  if (!synced.ok()) spdlog::error("the last sync failed: {}", synced.message());
  loop_->CloseLanes(end == EngineLoop::End::kDeviceLost ? StatusCode::kEngineGone : StatusCode::kShuttingDown);
  listener_->Withdraw();
  cache_.reset();
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
