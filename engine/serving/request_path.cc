// Join, cache, compute: each step answers the request or passes it to the next one.
#include "engine/serving/request_path.h"

#include <algorithm>
#include <utility>

#include "engine/lanes/lane.h"
#include "shm/base/checkpoint.h"
#include "shm/base/time.h"
#include "shm/layout.h"
#include "shm/text_key.h"

namespace sutra {
void RequestPath::Handle(LaneReader::Taken taken, bool draining) {
  model_.stats.Add(Counter::kTexts);
  Waiter& waiter = taken.waiter;
  model_.stats.Record(Histogram::kStageTake, waiter.taken_ns - waiter.submitted_ns);
  if (draining) return model_.replies.Refuse(waiter, StatusCode::kShuttingDown);
  if (taken.status != StatusCode::kOk) return model_.replies.Refuse(waiter, taken.status);
  waiter.ttl_s = static_cast<uint32_t>(
      std::min<uint64_t>(waiter.ttl_s == 0 ? model_.ttl_s_default : waiter.ttl_s, kTtlSecondsMax));
  if (Join(waiter, taken.text)) return;
  if (AnswerFromCache(waiter, taken.text)) return;
  Compute(std::move(waiter), taken.text);
}

bool RequestPath::Join(const Waiter& waiter, std::string_view text) {
  ComputationPtr computation;
  switch (model_.in_flight.Join(text, kVariantOfModel, waiter, &computation)) {
    case InFlight::JoinResult::kNone: return false;
    case InFlight::JoinResult::kTooLong: model_.replies.Refuse(waiter, StatusCode::kTextTooLong); return true;
    case InFlight::JoinResult::kJoinedRaised: model_.batcher.Add(computation, waiter.priority, true); break;
    case InFlight::JoinResult::kJoined: break;
  }
  model_.stats.Add(Counter::kJoined);
  return true;
}

bool RequestPath::AnswerFromCache(const Waiter& waiter, std::string_view text) {
  static_cast<void>(SUTRA_CHECKPOINT("poll.hashed"));
  if (model_.cache == nullptr || (waiter.options & kOptionCacheSkipLookup) != 0) return false;
  CacheValue value;
  if (!model_.cache->Lookup(text, kVariantOfModel, waiter.lane->vector(waiter.slot), &value)) return false;
  static_cast<void>(SUTRA_CHECKPOINT("cache.hit_checked"));
  if (value.truncated && (waiter.options & kOptionReject) != 0) {
    model_.replies.Refuse(waiter, StatusCode::kTextTooLong);
    return true;
  }
  model_.stats.Add(Counter::kHits);
  model_.replies.AnswerHit(waiter, value.norm, value.token_count, value.truncated);
  return true;
}

void RequestPath::Compute(Waiter waiter, std::string_view text) {
  if (model_.batcher.full()) return model_.replies.Refuse(waiter, StatusCode::kOverloaded);
  auto computation = std::make_shared<Computation>();
  const Encoded encoded = model_.tokenizer.Encode(text, model_.info.tokens_max, &computation->ids);
  if (encoded.truncated && (waiter.options & kOptionReject) != 0) {
    return model_.replies.Refuse(waiter, StatusCode::kTextTooLong);
  }
  waiter.tokenised_ns = MonotonicNs();
  model_.stats.Add(Counter::kMisses);
  model_.stats.Record(Histogram::kStageTokenise, waiter.tokenised_ns - waiter.taken_ns);
  computation->text = text;
  computation->variant = kVariantOfModel;
  computation->flow = waiter.lane->flow();
  computation->truncated = encoded.truncated;
  computation->queued_ns = waiter.tokenised_ns;
  const PriorityClass priority = waiter.priority;
  model_.in_flight.Start(computation, std::move(waiter));
  model_.batcher.Add(computation, priority, false);
}

}  // namespace sutra
