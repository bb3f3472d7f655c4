// See request_path.h.
#include "engine/serving/request_path.h"

#include <algorithm>
#include <utility>

#include "engine/lanes/lane.h"
#include "shm/base/checkpoint.h"
#include "shm/sleep_wake.h"

namespace sutra {
namespace {

// No request option changes the stored vector in this version: normalised and raw answers come from one entry, and
// other output widths are refused.
constexpr uint32_t kVariant = 0;

}  // namespace

void RequestPath::Handle(LaneReader::Taken taken, bool draining) {
  parts_.stats.Add(Counter::kTexts);
  Waiter& waiter = taken.waiter;
  parts_.stats.Record(Histogram::kStageTake, waiter.taken_ns - waiter.submitted_ns);
  if (draining) return parts_.replies->Refuse(waiter, StatusCode::kShuttingDown);
  if (taken.status != StatusCode::kOk) return parts_.replies->Refuse(waiter, taken.status);
  waiter.ttl_s = static_cast<uint32_t>(
      std::min<uint64_t>(waiter.ttl_s == 0 ? parts_.ttl_s_default : waiter.ttl_s, kTtlSecondsMax));
  if (Join(waiter, taken.text)) return;
  if (AnswerFromCache(waiter, taken.text)) return;
  Compute(std::move(waiter), taken.text);
}

bool RequestPath::Join(const Waiter& waiter, std::string_view text) {
  ComputationPtr computation;
  switch (parts_.in_flight->Join(text, kVariant, waiter, &computation)) {
    case InFlight::JoinResult::kNone: return false;
    case InFlight::JoinResult::kTooLong: parts_.replies->Refuse(waiter, StatusCode::kTextTooLong); return true;
    case InFlight::JoinResult::kJoinedRaised: parts_.batcher->Add(computation, waiter.priority, true); break;
    case InFlight::JoinResult::kJoined: break;
  }
  parts_.stats.Add(Counter::kJoined);
  return true;
}

bool RequestPath::AnswerFromCache(const Waiter& waiter, std::string_view text) {
  static_cast<void>(SUTRA_CHECKPOINT("poll.hashed"));
  if (parts_.cache == nullptr || (waiter.options & kOptionCacheSkipLookup) != 0) return false;
  CacheValue value;
  if (!parts_.cache->Lookup(text, kVariant, waiter.lane->vector(waiter.slot), &value)) return false;
  static_cast<void>(SUTRA_CHECKPOINT("cache.hit_checked"));
  if (value.truncated && (waiter.options & kOptionReject) != 0) {
    parts_.replies->Refuse(waiter, StatusCode::kTextTooLong);
    return true;
  }
  parts_.stats.Add(Counter::kHits);
  parts_.replies->AnswerHit(waiter, value.norm, value.token_count, value.truncated);
  return true;
}

void RequestPath::Compute(Waiter waiter, std::string_view text) {
  if (parts_.batcher->full()) return parts_.replies->Refuse(waiter, StatusCode::kOverloaded);
  auto computation = std::make_shared<Computation>();
  const Encoded encoded = parts_.tokenizer->Encode(text, parts_.model->tokens_max, &computation->ids);
  if (encoded.truncated && (waiter.options & kOptionReject) != 0) {
    return parts_.replies->Refuse(waiter, StatusCode::kTextTooLong);
  }
  waiter.tokenised_ns = MonotonicNs();
  parts_.stats.Add(Counter::kMisses);
  parts_.stats.Record(Histogram::kStageTokenise, waiter.tokenised_ns - waiter.taken_ns);
  computation->text = text;
  computation->variant = kVariant;
  computation->flow = waiter.lane->flow();
  computation->truncated = encoded.truncated;
  computation->queued_ns = waiter.tokenised_ns;
  const PriorityClass priority = waiter.priority;
  parts_.in_flight->Start(computation, std::move(waiter));
  parts_.batcher->Add(computation, priority, false);
}

}  // namespace sutra
