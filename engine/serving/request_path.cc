// Join, cache, compute: each step answers the request or passes it to the next one.
#include "engine/serving/request_path.h"

#include <algorithm>
#include <new>
#include <utility>

#include "engine/lanes/lane.h"
#include "engine/serving/text_cost.h"
#include "shm/base/checkpoint.h"
#include "shm/base/cycle_clock.h"
#include "shm/layout.h"
#include "shm/text_key.h"

namespace sutra {
// Memory that runs out fails this request: each step below leaves the waiter where it is until it can no longer fail.
void RequestPath::Handle(LaneReader::Taken* request, bool draining) {
  LaneReader::Taken& taken = *request;
  try {
    Answer(&taken, draining);
  } catch (const std::bad_alloc&) {
    model_.stats.Add(Counter::kOutOfMemory);
    model_.replies.Refuse(taken.waiter, StatusCode::kOutOfMemory);
  }
}

void RequestPath::Answer(LaneReader::Taken* request, bool draining) {
  LaneReader::Taken& taken = *request;
  model_.stats.Add(Counter::kTexts);
  Waiter& waiter = taken.waiter;
  model_.stats.RecordSpan(Histogram::kStageTake, waiter.submitted_ns, waiter.taken_ns);
  if (draining) return model_.replies.Refuse(waiter, StatusCode::kShuttingDown);
  if (taken.status != StatusCode::kOk) return model_.replies.Refuse(waiter, taken.status);
  waiter.ttl_s = static_cast<uint32_t>(
      std::min<uint64_t>(waiter.ttl_s == 0 ? model_.ttl_s_default : waiter.ttl_s, kTtlSecondsMax));
  if (Join(waiter, taken.text)) return;
  if (AnswerFromCache(waiter, taken.text)) return;
  Compute(waiter, taken.text);
}

bool RequestPath::Join(const Waiter& waiter, std::string_view text) {
  ComputationPtr computation;
  model_.batcher.ReserveOne();  // before it has joined: from then on it cannot be refused
  switch (model_.in_flight.Join(text, kVariantOfModel, waiter, &computation)) {
    case InFlight::JoinResult::kNone: return false;
    case InFlight::JoinResult::kTooLong: model_.replies.Refuse(waiter, StatusCode::kTextTooLong); return true;
    case InFlight::JoinResult::kJoined: Queue(computation, waiter, true); break;
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

// The text is only copied here: the worker checks and tokenises it.
void RequestPath::Compute(const Waiter& first, std::string_view text) {
  if (!model_.batcher.Admits(*first.lane->client(), text.size())) {
    return model_.replies.Refuse(first, StatusCode::kOverloaded, model_.batcher.RetryAfterMs());
  }
  auto computation = std::make_shared<Computation>();
  computation->text = text;
  computation->variant = kVariantOfModel;
  computation->client = first.lane->client();
  computation->cost_estimate = EstimatedTextCost(text.size(), model_.info.tokens_max);
  computation->queued_ns = first.taken_ns;
  model_.batcher.ReserveOne();  // a computation that is under way must reach the workers
  model_.in_flight.Start(computation, first);
  Queue(computation, first, false);
  model_.stats.Add(Counter::kMisses);
}

// A text that is joined is queued again where its new waiter may reach it sooner: at another client, which is charged
// if its turn comes first, or in a higher class of the same client. REQUIRES: the batcher's ReserveOne.
void RequestPath::Queue(const ComputationPtr& computation, const Waiter& waiter, bool joined) {
  const uint64_t client = waiter.lane->client()->id;
  // Only where it was queued last is remembered: more would cost more than the entry that it saves.
  if (joined && client == computation->queued_for && waiter.priority >= computation->queued_class) return;
  computation->queued_for = client;
  computation->queued_class = waiter.priority;
  model_.batcher.Add(computation, {.client = client, .priority = waiter.priority, .deadline_ns = waiter.deadline_ns},
                     joined);
}

}  // namespace sutra
