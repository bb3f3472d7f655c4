// Which counter and which stage times belong to which outcome.
#include "engine/lanes/reply_writer.h"

#include <algorithm>
#include <cassert>

#include "engine/lanes/lane.h"
#include "shm/base/cycle_clock.h"
#include "shm/base/time.h"
#include "shm/layout.h"

namespace sutra {
namespace {

Answer AnswerOf(const Waiter& waiter, StatusCode status, ResultSource source) {
  Answer answer;
  answer.status = status;
  answer.source = source;
  answer.tag = waiter.tag;
  answer.stage_ns[kSubmitted] = waiter.submitted_ns;
  answer.stage_ns[kTaken] = waiter.taken_ns;
  return answer;
}

}  // namespace

void ReplyWriter::CountReply(StatusCode status) const {
  switch (status) {
    case StatusCode::kOk: return stats_.Add(Counter::kRepliesOk);
    case StatusCode::kEmptyText: return stats_.Add(Counter::kRepliesEmptyText);
    case StatusCode::kInvalidUtf8: return stats_.Add(Counter::kRepliesInvalidUtf8);
    case StatusCode::kTextTooLong: return stats_.Add(Counter::kRepliesTextTooLong);
    case StatusCode::kBadOption: return stats_.Add(Counter::kRepliesBadOption);
    case StatusCode::kDeadlineExceeded: return stats_.Add(Counter::kRepliesDeadline);
    case StatusCode::kCancelled: return stats_.Add(Counter::kRepliesCancelled);
    case StatusCode::kOverloaded: return stats_.Add(Counter::kRepliesOverloaded);
    case StatusCode::kShuttingDown: return stats_.Add(Counter::kRepliesShuttingDown);
    case StatusCode::kOutOfMemory: return stats_.Add(Counter::kRepliesOutOfMemory);
    default: return stats_.Add(Counter::kRepliesModelError);
  }
}

bool ReplyWriter::Refuse(const Waiter& waiter, StatusCode status, uint32_t retry_after_ms) const {
  Answer answer = AnswerOf(waiter, status, kSourceNone);
  answer.retry_after_ms = retry_after_ms;
  answer.stage_ns[kPublished] = CycleNs();
  const Lane::Published published = waiter.lane->Publish(waiter.slot, waiter.sequence, answer);
  if (published == Lane::Published::kDone) CountReply(status);
  if (published == Lane::Published::kClosed) stats_.Add(Counter::kTextsLaneEnded);
  return published != Lane::Published::kBusy;
}

bool ReplyWriter::AnswerHit(const Waiter& waiter, float norm, uint32_t token_count, bool truncated) const {
  if (!WantsUnitLength(waiter.options)) {
    float* vector = waiter.lane->vector(waiter.slot);
    for (uint32_t i = 0; i < waiter.lane->geometry().width; ++i) vector[i] *= norm;
  }
  Answer answer = AnswerOf(waiter, StatusCode::kOk, kSourceShard);
  answer.token_count = token_count;
  answer.truncated = truncated;
  const uint64_t now_ns = CycleNs();
  answer.stage_ns[kPublished] = now_ns;
  const Lane::Published published = waiter.lane->Publish(waiter.slot, waiter.sequence, answer);
  if (published == Lane::Published::kBusy) return false;
  if (published == Lane::Published::kClosed) {
    stats_.Add(Counter::kTextsLaneEnded);
    return true;
  }
  stats_.Add(Counter::kRepliesOk);
  if (truncated) stats_.Add(Counter::kTruncated);
  stats_.RecordSpan(Histogram::kHitTotal, waiter.submitted_ns, now_ns);
  return true;
}

void ReplyWriter::AnswerComputed(const Waiter& waiter, std::span<const float> unit, float norm, uint32_t token_count,
                                 bool truncated, const ComputeTimes& times) const {
  float* vector = waiter.lane->vector(waiter.slot);
  if (WantsUnitLength(waiter.options)) {
    std::copy(unit.begin(), unit.end(), vector);
  } else {
    std::transform(unit.begin(), unit.end(), vector, [norm](float value) { return value * norm; });
  }
  Answer answer = AnswerOf(waiter, StatusCode::kOk, waiter.joined ? kSourceJoined : kSourceModel);
  answer.token_count = token_count;
  answer.truncated = truncated;
  if (!waiter.joined) answer.stage_ns[kTokenised] = times.tokenised_ns;
  answer.stage_ns[kBatched] = times.batched_ns;
  answer.stage_ns[kComputed] = times.computed_ns;
  const uint64_t now_ns = MonotonicNs();
  answer.stage_ns[kPublished] = now_ns;
  const Lane::Published published = waiter.lane->Publish(waiter.slot, waiter.sequence, answer);
  assert(published != Lane::Published::kBusy);  // a worker waits
  if (published == Lane::Published::kClosed) return stats_.Add(Counter::kTextsLaneEnded);
  stats_.Add(Counter::kRepliesOk);
  if (truncated) stats_.Add(Counter::kTruncated);
  stats_.RecordSpan(Histogram::kMissTotal, waiter.submitted_ns, now_ns);
  stats_.RecordSpan(Histogram::kStagePublish, times.computed_ns, now_ns);
  if (!waiter.joined) {
    stats_.RecordSpan(Histogram::kStageQueue, waiter.taken_ns + times.tokenising_ns, times.batched_ns);
  }
}

void ReplyWriter::Wake(Lane* lane) const {
  if (lane->Wake()) stats_.Add(Counter::kWakesSent);
}

}  // namespace sutra
