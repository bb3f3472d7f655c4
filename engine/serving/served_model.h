// What serves one model: what computes its vectors, what stores them, and each text of it that is in flight. The loop,
// the request path and the workers get one of these and nothing else of a model.
//
// Thread rule: any thread may read the members that do not change; each part has its own thread rule. Backends belong
// to their workers.
#pragma once

#include <cassert>
#include <cstdint>

#include "cache/cache_shard.h"
#include "engine/lanes/reply_writer.h"
#include "engine/model/model_backend.h"
#include "engine/serving/hot_cache.h"
#include "engine/serving/in_flight.h"
#include "engine/serving/long_texts.h"
#include "engine/serving/request_batcher.h"
#include "engine/serving/shard_slot.h"
#include "shm/stats/stats_writer.h"

namespace sutra {

struct ServedModel {
  // What is not owned; it must outlive the served model.
  struct Options {
    const ModelBackend* backend = nullptr;  // any of the model's: of it, only info and tokenizer are used
    CacheShard* cache = nullptr;  // null: nothing is looked up or stored, unless a shard is expected (shard_slot.h)
    HotCache* hot = nullptr;      // null: clients read no vectors themselves
    uint64_t ttl_s_default = 0;   // of a request that names no lifetime
    RequestBatcher::Limits batches;
    StatsWriter stats;
  };

  explicit ServedModel(const Options& options)
      : info(options.backend->info()),
        tokenizer(options.backend->tokenizer()),
        cache(options.cache),
        hot(options.hot),
        ttl_s_default(options.ttl_s_default),
        stats(options.stats),
        batcher(options.batches),
        replies(options.stats, info.normalizes) {
    assert(ttl_s_default > 0);
  }

  const ModelInfo& info;
  const Tokenizer& tokenizer;
  ShardSlot cache;
  HotCache* const hot;
  const uint64_t ttl_s_default;
  const StatsWriter stats;
  InFlight in_flight;
  RequestBatcher batcher;
  LongTexts long_texts;
  const ReplyWriter replies;
};

}  // namespace sutra
