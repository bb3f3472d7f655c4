// What serves one model: who computes its vectors, what keeps them, and each text of it that is under way. The loop,
// the request path and the worker are given one of these and nothing else of a model.
//
// Thread rule: the members that do not change may be read by any thread; each part has a thread rule of its own. The
// backend belongs to the worker.
#pragma once

#include <cassert>
#include <cstdint>

#include "cache/cache_shard.h"
#include "engine/lanes/reply_writer.h"
#include "engine/model/model_backend.h"
#include "engine/serving/in_flight.h"
#include "engine/serving/request_batcher.h"
#include "shm/stats/stats_writer.h"

namespace sutra {

struct ServedModel {
  // What is not owned; it must outlive the served model.
  struct Options {
    ModelBackend* backend = nullptr;
    CacheShard* cache = nullptr;  // null: nothing is looked up and nothing stored
    uint64_t ttl_s_default = 0;   // of a request that names no lifetime
    RequestBatcher::Limits batches;
    StatsWriter stats;
  };

  explicit ServedModel(const Options& options)
      : backend(*options.backend),
        info(backend.info()),
        tokenizer(backend.tokenizer()),
        cache(options.cache),
        ttl_s_default(options.ttl_s_default),
        stats(options.stats),
        batcher(options.batches),
        replies(options.stats, info.normalizes) {
    assert(ttl_s_default > 0);
  }

  ModelBackend& backend;
  const ModelInfo& info;
  const Tokenizer& tokenizer;
  CacheShard* const cache;
  const uint64_t ttl_s_default;
  const StatsWriter stats;
  InFlight in_flight;
  RequestBatcher batcher;
  const ReplyWriter replies;
};

}  // namespace sutra
