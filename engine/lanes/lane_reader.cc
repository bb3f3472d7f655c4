// Reads one request: ring entry, slot table, descriptor, then the reasons to refuse it, and its text last.
#include "engine/lanes/lane_reader.h"

#include <cassert>

#include "shm/base/checkpoint.h"
#include "shm/base/cycle_clock.h"

namespace sutra {

LaneReader::Next LaneReader::Take(const std::shared_ptr<Lane>& lane, Taken* taken, const char** why) {
  assert(std::min(lane->geometry().text_bytes_max, kLongTextBytes) <= buffer_bytes_);
  uint32_t slot = 0;
  const SubmissionReader::Take take = lane->submissions().Next(&slot);
  if (take == SubmissionReader::Take::kNone) return Next::kNone;
  static_cast<void>(SUTRA_CHECKPOINT("poll.index_read"));
  if (take == SubmissionReader::Take::kViolation) {
    *why = "a submission ring entry with an invalid position or slot";
    return Next::kViolation;
  }
  if (!lane->Hold(slot)) {
    *why = "a slot submitted again before it was answered";
    return Next::kViolation;
  }

  const uint64_t now_ns = CycleNs();
  const UntrustedRequest untrusted(lane->request(), lane->memory().tail_fd(), slot);
  CheckedRequest request;
  StatusCode status = StatusCode::kOk;
  const CopyOutcome outcome = untrusted.CopyAndCheck(now_ns, buffer_.get(), &request, &status);
  static_cast<void>(SUTRA_CHECKPOINT("poll.header_copied"));
  if (outcome == CopyOutcome::kViolation) {
    *why = "a request descriptor with a zero sequence or a text outside the slot and the tail file";
    return Next::kViolation;
  }

  Waiter& waiter = taken->waiter;
  if (waiter.lane != lane) waiter.lane = lane;  // a hit of the lane that was read last touches no reference count
  waiter.slot = slot;
  waiter.options = request.options;
  waiter.sequence = request.sequence;
  waiter.tag = request.tag;
  waiter.submitted_ns = request.submitted_ns;
  waiter.deadline_ns = request.deadline_ns;
  waiter.taken_ns = now_ns;
  waiter.ttl_s = request.ttl_s;
  waiter.priority = request.priority;
  waiter.joined = false;
  taken->text = {};
  taken->long_text = {};
  taken->status = status;
  if (outcome == CopyOutcome::kAnswer) return Next::kTaken;

  if (request.width != lane->geometry().width) {
    taken->status = StatusCode::kBadOption;  // this version has no shorter output widths
  } else if (request.deadline_ns <= now_ns) {
    taken->status = StatusCode::kDeadlineExceeded;
  } else if (request.cancelled) {
    taken->status = StatusCode::kCancelled;
  } else if (request.text_bytes > kLongTextBytes) {
    taken->long_text = {.offset = request.tail_offset, .bytes = request.text_bytes};
  } else {
    if (!untrusted.CopyLongText(request, buffer_.get())) {
      *why = "a text that cannot be read";
      return Next::kViolation;
    }
    static_cast<void>(SUTRA_CHECKPOINT("poll.payload_copied"));
    taken->text = std::string_view(buffer_.get(), request.text_bytes);
  }
  return Next::kTaken;
}

}  // namespace sutra
