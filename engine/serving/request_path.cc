// Cache, join, compute: each step answers the request or passes it to the next one.
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
bool RequestPath::Handle(LaneReader::Taken* request) {
  model_.stats.Add(Counter::kTexts);
  model_.stats.RecordSpan(Histogram::kStageTake, request->waiter.submitted_ns, request->waiter.taken_ns);
  return HandleAgain(request);
}

bool RequestPath::HandleAgain(LaneReader::Taken* request) {
  try {
    return Answer(request);
  } catch (const std::bad_alloc&) {
    model_.stats.Add(Counter::kOutOfMemory);
    return model_.replies.Refuse(request->waiter, StatusCode::kOutOfMemory);
  }
}

bool RequestPath::Answer(LaneReader::Taken* request) {
  Waiter& waiter = request->waiter;
  if (request->status != StatusCode::kOk) return model_.replies.Refuse(waiter, request->status);
  waiter.ttl_s = static_cast<uint32_t>(
      std::min<uint64_t>(waiter.ttl_s == 0 ? model_.ttl_s_default : waiter.ttl_s, kTtlSecondsMax));
  if (request->long_text.bytes != 0) return HandOver(waiter, request->long_text) == Step::kDone;
  const uint64_t removals = model_.cache.Removals();
  Step step = Find(waiter, request->text, removals);
  if (step == Step::kNothing) step = Compute(waiter, request->text, removals);
  return step == Step::kDone;
}

RequestPath::Step RequestPath::Find(const Waiter& waiter, std::string_view text, uint64_t removals) {
  const uint64_t ended = model_.in_flight.ended(text);
  Step step = AnswerFromCache(waiter, text, removals);
  if (step == Step::kNothing) step = Join(waiter, text, removals);
  // What ended between the two may have been this text: then it is in the cache by now.
  if (step == Step::kNothing && model_.in_flight.ended(text) != ended) step = AnswerFromCache(waiter, text, removals);
  return step;
}

RequestPath::Step RequestPath::Refuse(const Waiter& waiter, StatusCode status, uint32_t retry_after_ms) {
  return model_.replies.Refuse(waiter, status, retry_after_ms) ? Step::kDone : Step::kBusy;
}

RequestPath::Step RequestPath::Join(const Waiter& waiter, std::string_view text, uint64_t removals) {
  ComputationPtr computation;
  model_.batcher.ReserveOne(producer_);  // before it has joined: from then on it cannot be refused
  switch (model_.in_flight.Join(text, kVariantOfModel, removals, waiter, &computation)) {
    case InFlight::JoinResult::kNone: return Step::kNothing;
    case InFlight::JoinResult::kBusy: return Step::kBusy;
    case InFlight::JoinResult::kFull: return Refuse(waiter, StatusCode::kOverloaded, model_.batcher.RetryAfterMs());
    case InFlight::JoinResult::kTooLong: return Refuse(waiter, StatusCode::kTextTooLong);
    case InFlight::JoinResult::kJoined: break;
  }
  Queue(computation, waiter, true);
  model_.stats.Add(Counter::kJoined);
  return Step::kDone;
}

RequestPath::Step RequestPath::AnswerFromCache(const Waiter& waiter, std::string_view text, uint64_t removals) {
  static_cast<void>(SUTRA_CHECKPOINT("poll.hashed"));
  CacheShard* const cache = model_.cache.Get();
  if (cache == nullptr || (waiter.options & kOptionCacheSkipLookup) != 0) return Step::kNothing;
  CacheValue value;
  float* const vector = waiter.lane->vector(waiter.slot);
  const std::optional<bool> found = cache->TryLookup(text, kVariantOfModel, vector, &value);
  if (!found.has_value()) return Step::kBusy;
  if (!*found) return Step::kNothing;
  static_cast<void>(SUTRA_CHECKPOINT("cache.hit_checked"));
  if (value.truncated && (waiter.options & kOptionReject) != 0) return Refuse(waiter, StatusCode::kTextTooLong);
  // Its client will look there before it asks again. One without the table brings nothing in: the next client with it
  // does.
  if (model_.hot != nullptr && waiter.lane->hot()) {
    model_.hot->TryPublish(text, kVariantOfModel, {vector, model_.info.width}, value, removals);
  }
  if (!model_.replies.AnswerHit(waiter, value.norm, value.token_count, value.truncated)) return Step::kBusy;
  model_.stats.Add(Counter::kHits);
  return Step::kDone;
}

template <typename Request>
std::shared_ptr<Request> RequestPath::MakeComputation(const Waiter& first, size_t text_bytes) const {
  auto computation = std::make_shared<Request>();
  computation->variant = kVariantOfModel;
  computation->client = first.lane->client();
  computation->cost_estimate = EstimatedTextCost(text_bytes, model_.info.tokens_max);
  computation->queued_ns = first.taken_ns;
  return computation;
}

// The text is only copied here: the worker checks and tokenises it.
RequestPath::Step RequestPath::Compute(const Waiter& first, std::string_view text, uint64_t removals) {
  if (!model_.batcher.Admits(*first.lane->client(), text.size())) {
    return Refuse(first, StatusCode::kOverloaded, model_.batcher.RetryAfterMs());
  }
  const auto computation = MakeComputation<Computation>(first, text.size());
  computation->text = text;
  computation->removals_seen = removals;
  model_.batcher.ReserveOne();  // a computation that is under way must reach the workers
  if (!model_.in_flight.Start(computation, first)) return Step::kBusy;
  Queue(computation, first, false);
  model_.stats.Add(Counter::kMisses);
  return Step::kDone;
}

// It waits for the long texts' thread as a miss waits for the model, and within the same bounds, whether or not it is
// cached.
RequestPath::Step RequestPath::HandOver(const Waiter& first, const TailText& long_text) {
  if (!model_.batcher.Admits(*first.lane->client(), long_text.bytes)) {
    return Refuse(first, StatusCode::kOverloaded, model_.batcher.RetryAfterMs());
  }
  const auto request = MakeComputation<LongRequest>(first, long_text.bytes);
  request->first = first;
  request->unread = long_text;
  model_.batcher.Charge(request->client.get(), long_text.bytes, request->cost_estimate);
  try {
    model_.long_texts.Add(request);
  } catch (const std::bad_alloc&) {
    model_.batcher.Uncharge(request->client.get(), long_text.bytes, request->cost_estimate);
    throw;
  }
  return Step::kDone;
}

// A text that is joined is queued again where its new waiter may reach it sooner: at another client, which is charged
// if its turn comes first, or in a higher class of the same client.
void RequestPath::Queue(const ComputationPtr& computation, const Waiter& waiter, bool again) {
  const uint64_t client = waiter.lane->client()->id;
  // Only where it was queued last is remembered: more would cost more than the entry that it saves. A computation that
  // is new is queued for nobody yet: clients are numbered from 1.
  if (again && client == computation->queued_for && waiter.priority >= computation->queued_class) return;
  computation->queued_for = client;
  computation->queued_class = waiter.priority;
  model_.batcher.Add(computation, {.client = client, .priority = waiter.priority, .deadline_ns = waiter.deadline_ns},
                     again, producer_);
}

}  // namespace sutra
