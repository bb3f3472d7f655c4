// What happens to a taken request in the loop thread: join, cache, or on to the model. One direction; nothing here
// waits.
//
// Order: a text that is on its way already is joined before the cache is asked (in_flight.h says why); a hit is copied
// straight into the reply slot and answered here, without another thread; a miss is tokenised and staged in the
// batcher.
//
// Thread rule: the loop thread. Everything it hands over to (cache, in-flight table, batcher, reply writer) has its
// own.
#pragma once

#include "cache/cache_shard.h"
#include "engine/serving/in_flight.h"
#include "engine/lanes/lane_reader.h"
#include "engine/model/model_backend.h"
#include "engine/lanes/reply_writer.h"
#include "engine/serving/request_batcher.h"

namespace sutra {

class RequestPath {
 public:
  struct Parts {
    const ModelInfo* model = nullptr;
    const Tokenizer* tokenizer = nullptr;
    CacheShard* cache = nullptr;      // null: every text is computed
    InFlight* in_flight = nullptr;
    RequestBatcher* batcher = nullptr;
    const ReplyWriter* replies = nullptr;
    StatsWriter stats;
    uint64_t ttl_s_default = 86'400;
  };

  explicit RequestPath(const Parts& parts) : parts_(parts) {}

  // Answers the request, or hands it on. `draining`: what is not taken yet is refused.
  void Handle(LaneReader::Taken taken, bool draining);

 private:
  // The longest lifetime the shard stores (cache_shard.h).
  static constexpr uint64_t kTtlSecondsMax = 10ull * 365 * 86'400;

  bool Join(const Waiter& waiter, std::string_view text);
  bool AnswerFromCache(const Waiter& waiter, std::string_view text);
  void Compute(Waiter waiter, std::string_view text);

  const Parts parts_;
};

}  // namespace sutra
