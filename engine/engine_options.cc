// What the parts of an engine are made with.
#include <utility>

#include "cache/shard_directory.h"
#include "engine/engine.h"
#include "engine/engine_log.h"
#include "shm/base/clock.h"
#include "shm/base/host.h"
#include "shm/hot_table.h"

namespace sutra {

CacheConfig Engine::MakeCacheConfig() const {
  const ModelInfo& model = info();
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
  cache.observer = hot_.get();
  cache.log = WriteLog;
  return cache;
}

OtherIdentities::Options Engine::MakeIdentityOptions() const {
  return {.data = config_.data,
          .served = ShardName(info().identity),
          .bytes_max = config_.data_bytes_max != 0 ? config_.data_bytes_max : 2 * config_.wal_bytes_max,
          .may_go_on = [this] { return data_lock_->InPlace(); },
          .clock = Clock::Real(),
          .log = WriteLog};
}

FileWatch::Options Engine::MakeWatchOptions() {
  return {.socket = &*listener_,
          .socket_lock = &*socket_lock_,
          .data_lock = data_lock_.has_value() ? &*data_lock_ : nullptr,
          .cache = &model_->cache,
          .shard_directory = HasLog() ? ShardPath(config_.data, info().identity) : "",
          .stats = stats_,
          .log = WriteLog};
}

Acceptor::Options Engine::MakeAttachOptions() {
  return {.allow_uids = config_.allow_uids,
          .allow_gids = config_.allow_gids,
          .slots_default = config_.slots,
          .text_bytes_max = config_.text_bytes_max,
          .model = info(),
          .engine_generation = generation_,
          .engine_page_fd = page_.fd(),
          .hot_fd = hot_ != nullptr ? hot_->fd() : -1,
          .hot_slots = hot_ != nullptr ? hot_->slots() : 0,
          .hot_gids = config_.hot_gids,
          .quota = lane_limits_,
          .attach_rate_max = config_.attach_rate_max,
          .stats = stats_,
          .log = client_logs_.log()};
}

ControlSessions::Options Engine::MakeControlOptions() {
  return {.control_gids = config_.control_gids,
          .text_gids = config_.hot_gids,
          .version = kEngineVersion,
          .socket_path = config_.socket,
          .verbosity = LogVerbosityNow,
          .set_verbosity = SetLogVerbosity,
          .admin = admin_.has_value() ? &*admin_ : nullptr};
}

// Clients may answer from the hot table of the engine before for as long as they believe its last heartbeat; twice
// that, in case one was stopped between its look at the heartbeat and its answer.
CacheCommands::Options Engine::MakeCommandOptions() {
  return {.shard = [this] { return model_->cache.Get(); },
          .shard_may_come = [this] { return model_->cache.state() != kShardNone; },
          .data_lock_held = [this] { return data_lock_->InPlace(); },
          .config = MakeCacheConfig(),
          .confirm_from_ns = locked_ns_ + 2 * kHotHeartbeatNsMax,
          .log = WriteLog};
}

ServedModel::Options Engine::MakeModelOptions() {
  // On two CPUs a polling worker occupies the CPU that the loop and the clients need.
  const uint32_t worker_spin_us = UsableCpus() > 2 ? config_.spin_us : 0;
  return {.backend = backends_.front().get(),
          .cache = cache_.get(),
          .hot = hot_.get(),
          .ttl_s_default = config_.ttl_s,
          .batches = {.tokens_max = config_.batch_tokens_max,
                      .texts_max = config_.batch_tokens_max,  // every text has a token: tokens alone bound a batch
                      .queue_texts_max = config_.queue_texts_max,
                      .queue_bytes_max = config_.queue_bytes_max,
                      .spin_us = worker_spin_us,
                      .workers = static_cast<uint32_t>(backends_.size())},
          .stats = stats_};
}

}  // namespace sutra
