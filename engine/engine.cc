// See engine.h.
#include "engine/engine.h"

#include <spdlog/spdlog.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "engine/backend_choice.h"
#include "engine/model/fake_backend.h"
#include "shm/base/checkpoint.h"
#include "shm/base/clock.h"
#include "shm/sleep_wake.h"

namespace sutra {
namespace {

void LogLine(const std::string& line) { spdlog::info("{}", line); }
void WarnLine(const std::string& line) { spdlog::warn("{}", line); }

// A lane takes five descriptors; the usual soft limit of 1024 is small for that, the hard one is not.
void RaiseDescriptorLimit(uint32_t lanes_max) {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  const rlim_t needed = 5 * rlim_t{lanes_max} + 64;
  if (limit.rlim_cur < needed) {
    spdlog::warn("the limit of {} open files allows fewer than --lanes-max {} lanes: raise LimitNOFILE= to {}",
                 limit.rlim_cur, lanes_max, needed);
  }
}

// Random, non-zero; drawn after the locks are held, compared for equality only.
uint64_t DrawGeneration() {
  uint64_t generation = 0;
  while (generation == 0) {
    if (getrandom(&generation, sizeof(generation), 0) != sizeof(generation)) generation = MonotonicNs();
  }
  return generation;
}

Precision PrecisionOf(const std::string& name) {
  return name == "fp32" ? Precision::kF32 : name == "bf16" ? Precision::kBf16 : Precision::kAuto;
}

Result<std::unique_ptr<ModelBackend>> LoadBackend(const EngineConfig& config) {
  if (config.backend == "fake") return MakeFakeBackend("fake", config.fake_width);
  return MakeModelBackend({.model_dir = config.model,
                           .precision = PrecisionOf(config.precision),
                           .device = config.device == "cuda" ? Device::kCuda : Device::kCpu,
                           .threads = config.threads});
}

void ShowConstants(StatsWriter stats, const ModelInfo& model) {
  timespec wall;
  clock_gettime(CLOCK_REALTIME, &wall);
  stats.Set(Gauge::kStartWallNs,
            static_cast<uint64_t>(wall.tv_sec) * kNsPerSecond + static_cast<uint64_t>(wall.tv_nsec));
  stats.Set(Gauge::kPid, static_cast<uint64_t>(getpid()));
  stats.Set(Gauge::kModelWidth, model.width);
  stats.Set(Gauge::kModelTokensMax, model.tokens_max);
  stats.Set(Gauge::kWorkers, 1);
}

// Moves the value of a result, or keeps its status.
template <typename T, typename Target>
Status Keep(Result<T> result, Target* target) {
  if (!result.ok()) return result.status();
  *target = std::move(result).value();
  return {};
}

}  // namespace

Engine::Engine(const EngineConfig& config) : config_(config), worker_log_(WarnLine) {}
Engine::~Engine() = default;

Status Engine::PrepareProcess() {
  if (Status status = Keep(Shutdown::Prepare(), &shutdown_); !status.ok()) return status;
  if (!InstallSigbusGuard()) return Status(StatusCode::kStorageError, "cannot install a SIGBUS handler");
  RaiseDescriptorLimit(config_.lanes_max);
  return {};
}

Status Engine::Lock() {
  if (Status made = MakePosixDiskIo(false)->MakeDirectory(config_.data); !made.ok()) return made;
  if (Status status = Keep(EngineLock::Take(config_.data + "/LOCK"), &data_lock_); !status.ok()) return status;
  if (Status status = Keep(EngineLock::Take(config_.socket + ".lock"), &socket_lock_); !status.ok()) return status;
  generation_ = DrawGeneration();
  static_cast<void>(SUTRA_CHECKPOINT("generation.bumped"));
  return {};
}

Status Engine::LoadModel() {
  const uint64_t start_ns = MonotonicNs();
  if (Status status = Keep(LoadBackend(config_), &backend_); !status.ok()) return status;
  model_ = backend_->info();
  spdlog::info("model {} loaded in {} ms: identity {}, width {}, {} tokens at most, {} on {}", model_.name,
               (MonotonicNs() - start_ns) / kNsPerMs, model_.identity.substr(0, 16), model_.width, model_.tokens_max,
               model_.precision, model_.device);
  return {};
}

CacheConfig Engine::MakeCacheConfig() const {
  CacheConfig cache;
  cache.directory = config_.data;
  cache.model_identity = model_.identity;
  cache.model_name = model_.name;
  cache.width = model_.width;
  cache.entries_max = config_.cache_entries_max;
  cache.bytes_max = config_.cache_bytes_max;
  cache.ttl_s_default = config_.ttl_s;
  cache.policy = config_.durability;
  cache.wal_bytes_max = config_.wal_bytes_max;
  cache.wal_segment_bytes = config_.wal_segment_bytes;
  cache.strict_recovery = config_.strict_recovery;
  cache.log = LogLine;
  return cache;
}

Status Engine::OpenCache() {
  if (!config_.cache) return {};
  if (Status status = Keep(MakeDiskIo(config_.disk_io, config_.data, WarnLine), &disk_); !status.ok()) return status;
  return Keep(CacheShard::Open(MakeCacheConfig(), disk_.get(), Clock::Real()), &cache_);
}

Status Engine::Publish() {
  StatsSegmentOptions options;
  options.socket_path = config_.socket;
  options.mode = config_.stats_mode;
  options.engine_generation = generation_;
  options.model = model_.name;
  options.identity = model_.identity;
  options.precision = model_.precision;
  options.device = model_.device;
  options.disk_io = cache_ != nullptr ? cache_->Stats().disk_io : "none";
  options.version_text = kEngineVersion;
  if (Status status = Keep(StatsSegment::Create(options), &stats_segment_); !status.ok()) return status;
  stats_ = stats_segment_->writer();
  ShowConstants(stats_, model_);
  if (Status status = Keep(EnginePageMemory::Create(generation_), &page_); !status.ok()) return status;
  return Keep(ListenOn(config_.socket, config_.socket_mode), &listener_);
}

Acceptor::Options Engine::MakeAcceptorOptions() const {
  Acceptor::Options options;
  options.allow_uids = config_.allow_uids;
  options.allow_gids = config_.allow_gids;
  options.slots_default = config_.slots;
  options.text_bytes_max = config_.text_bytes_max;
  options.model = model_;
  options.engine_generation = generation_;
  options.engine_page_fd = page_.fd();
  options.quota = {config_.lanes_max, config_.lanes_per_uid_max, config_.lane_bytes_max};
  options.stats = stats_;
  return options;
}

EngineLoop::End Engine::Serve() {
  // On two CPUs a worker that polls takes the CPU that the loop and the clients need.
  const uint32_t worker_spin_us = UsableCpus() > 2 ? config_.spin_us : 0;
  batcher_.emplace(RequestBatcher::Limits{config_.batch_tokens_max, config_.batch_tokens_max, config_.queue_texts_max,
                                          worker_spin_us});
  replies_.emplace(stats_, model_.normalizes);

  RequestPath::Parts path;
  path.model = &model_;
  path.tokenizer = &backend_->tokenizer();
  path.cache = cache_.get();
  path.in_flight = &in_flight_;
  path.batcher = &*batcher_;
  path.replies = &*replies_;
  path.stats = stats_;
  path.ttl_s_default = config_.ttl_s;
  EngineLoop::Options options;
  options.spin_us = config_.spin_us;
  options.drain_s = config_.drain_s;
  options.text_bytes_max = config_.text_bytes_max;
  options.log = LogLine;
  loop_.emplace(options, MakeAcceptorOptions(), path,
                EngineLoop::Parts{std::move(listener_), page_.page(), &*shutdown_, &*batcher_, &in_flight_, &*replies_,
                                  cache_.get(), stats_});
  if (Status status = loop_->Prepare(); !status.ok()) {
    spdlog::error("cannot serve: {}", status.message());
    return EngineLoop::End::kLoopFailed;
  }
  const auto device_lost = [this](const Status& status) {
    spdlog::error("the device is lost: {}", status.message());
    loop_->ReportDeviceLost();
  };
  worker_.emplace(DeviceWorker::Parts{backend_.get(), cache_.get(), &in_flight_, &*batcher_, &*replies_, stats_,
                                      [this](const std::string& line) { worker_log_(line); }, device_lost});
  spdlog::info("serving {} at {}", model_.name, config_.socket);
  return loop_->Run();
}

ExitCode Engine::Stop(EngineLoop::End end) {
  shutdown_->LeaveOnNextSignal();
  if (worker_.has_value()) worker_->Stop();
  Status synced;
  if (cache_ != nullptr) synced = cache_->Sync();
  if (!synced.ok()) spdlog::error("the last sync failed: {}", synced.message());
  loop_->CloseLanes(end == EngineLoop::End::kDeviceLost ? StatusCode::kEngineGone : StatusCode::kShuttingDown);
  unlink(config_.socket.c_str());  // ours: the lock is still held
  cache_.reset();
  switch (end) {
    case EngineLoop::End::kDeviceLost: return kExitDeviceFault;
    case EngineLoop::End::kLoopFailed: return kExitLoopFailed;
    case EngineLoop::End::kDrainCut: spdlog::warn("drain cut short: what was left was answered `shutting down`"); break;
    case EngineLoop::End::kDrained: break;
  }
  return synced.ok() && end == EngineLoop::End::kDrained ? kExitClean : kExitIncomplete;
}

}  // namespace sutra
