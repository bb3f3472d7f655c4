// Loads single words under the guard, and checks the copy.
#include "engine/lanes/untrusted_copy.h"

#include <unistd.h>

#include <atomic>
#include <cassert>
#include <cerrno>
#include <cstring>

#include "engine/lanes/sigbus_guard.h"

namespace sutra {

UntrustedRequest::UntrustedRequest(const RequestLane& lane, int tail_fd, uint32_t slot)
    : lane_(lane), tail_fd_(tail_fd), slot_(slot) {
  assert(slot < lane.geometry.slots);
}

CopyOutcome UntrustedRequest::CopyAndCheck(uint64_t now_ns, char* text, CheckedRequest* request,
                                           StatusCode* status) const {
  // The text's cache lines are fetched together with the descriptor's.
  for (uint32_t offset = 0; offset < kTextHeadBytes; offset += 64) {
    __builtin_prefetch(lane_.text_head(slot_) + offset);
  }
  Words words;
  const auto copy = [&] {
    LoadWords(&words);
    const auto bytes = static_cast<uint32_t>(words.bytes_and_options);
    if (bytes <= kTextHeadBytes) LoadHead(text, bytes);
  };
  if (!RunGuarded(copy)) return CopyOutcome::kViolation;
  if (words.sequence == 0 || words.sequence >> 56 != 0) return CopyOutcome::kViolation;
  const auto text_bytes = static_cast<uint32_t>(words.bytes_and_options);
  if (text_bytes > lane_.geometry.text_bytes_max) return CopyOutcome::kViolation;
  request->tail_offset = TailOffsetOf(words.priority_and_tail);
  if (text_bytes > kTextHeadBytes && !lane_.geometry.InTailFile(request->tail_offset, text_bytes)) {
    return CopyOutcome::kViolation;
  }

  request->sequence = words.sequence;
  request->tag = words.tag;
  request->text_bytes = text_bytes;
  request->cancelled = words.cancel_sequence == words.sequence;
  const bool plausible = words.submitted_ns <= now_ns && now_ns - words.submitted_ns <= kSubmittedAgeNsMax;
  request->submitted_ns = plausible ? words.submitted_ns : now_ns;
  request->deadline_ns = words.deadline_ns == 0 ? request->submitted_ns + kRequestTimeoutNsDefault : words.deadline_ns;
  if (request->deadline_ns > now_ns && request->deadline_ns - now_ns > kRequestNsMax) {
    request->deadline_ns = now_ns + kRequestNsMax;
  }
  request->options = static_cast<uint32_t>(words.bytes_and_options >> 32);
  request->width = static_cast<uint32_t>(words.width_and_ttl);
  request->ttl_s = static_cast<uint32_t>(words.width_and_ttl >> 32);
  *status = Check(PriorityOf(words.priority_and_tail), request);
  return *status == StatusCode::kOk ? CopyOutcome::kOk : CopyOutcome::kAnswer;
}

bool UntrustedRequest::CopyLongText(const CheckedRequest& request, char* text) const {
  if (request.text_bytes <= kTextHeadBytes) return true;
  return CopyTailText(tail_fd_, {request.tail_offset, request.text_bytes}, text);
}

// pread neither faults nor allocates nor waits for a hole that the client is punching; in a mapping, an untouched page
// would be allocated on the engine's account, and one that is being punched would be waited for.
bool CopyTailText(int tail_fd, const TailText& tail_text, char* text) {
  for (uint32_t done = 0; done < tail_text.bytes;) {
    const ssize_t count =
        pread(tail_fd, text + done, tail_text.bytes - done, static_cast<off_t>(tail_text.offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    done += static_cast<uint32_t>(count);
  }
  return true;
}

bool IsCancelled(const RequestLane& lane, uint32_t slot, uint64_t sequence) {
  bool cancelled = false;
  // relaxed: a hint that publishes nothing
  const auto look = [&] { cancelled = lane.request(slot).cancel_sequence.load(std::memory_order_relaxed) == sequence; };
  return RunGuarded(look) && cancelled;
}

void UntrustedRequest::LoadWords(Words* words) const {
  // relaxed: the entry's SYNC L1 acquire ordered these after the client's writes; later changes harm only the client
  const RequestDescriptor& descriptor = lane_.request(slot_);
  words->sequence = descriptor.sequence.load(std::memory_order_relaxed);
  words->cancel_sequence = descriptor.cancel_sequence.load(std::memory_order_relaxed);
  words->submitted_ns = descriptor.submitted_ns.load(std::memory_order_relaxed);
  words->deadline_ns = descriptor.deadline_ns.load(std::memory_order_relaxed);
  words->tag = descriptor.tag.load(std::memory_order_relaxed);
  words->bytes_and_options = descriptor.bytes_and_options.load(std::memory_order_relaxed);
  words->width_and_ttl = descriptor.width_and_ttl.load(std::memory_order_relaxed);
  words->priority_and_tail = descriptor.priority_and_tail.load(std::memory_order_relaxed);
}

void UntrustedRequest::LoadHead(char* text, uint32_t bytes) const {
  const SharedWord<uint64_t>* words = lane_.text_words(slot_);
  uint32_t done = 0;
  for (; done + 8 <= bytes; done += 8) {
    const uint64_t word = words[done / 8].load(std::memory_order_relaxed);  // relaxed: as in LoadWords
    std::memcpy(text + done, &word, 8);
  }
  if (done < bytes) {
    const uint64_t word = words[done / 8].load(std::memory_order_relaxed);  // relaxed: as in LoadWords
    std::memcpy(text + done, &word, bytes - done);
  }
}

StatusCode UntrustedRequest::Check(uint32_t priority, CheckedRequest* request) const {
  if (request->text_bytes == 0) return StatusCode::kEmptyText;
  if ((request->options & ~kOptionsKnown) != 0) return StatusCode::kBadOption;
  const uint32_t both = kOptionNormalize | kOptionRaw;
  if ((request->options & both) == both) return StatusCode::kBadOption;
  if (request->width > lane_.geometry.width) return StatusCode::kBadOption;
  if (request->width == 0) request->width = lane_.geometry.width;
  const std::optional<PriorityClass> priority_class = ClassOfWire(priority);
  if (!priority_class.has_value()) return StatusCode::kBadOption;
  request->priority = *priority_class;
  return StatusCode::kOk;
}

}  // namespace sutra
