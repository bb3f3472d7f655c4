// The only way that data of a client enters the engine: copy once, check the copy, use only the copy.
// Bytes that the client may change meanwhile are read as relaxed atomic 64-bit words, never with memcpy; a changed byte
// can thus give a garbled text (which harms only that client), never a torn check. The copy is what gets hashed and
// embedded, so a client that edits its text after the check cannot poison the cache.
//
// Thread rule: the thread that owns the lane's SubmissionReader; any thread may call IsCancelled.
// Invariants: no offset and no length from the client is used before it was bounded by the engine's own geometry; a
// fault while copying (SIGBUS) gives kViolation and does not kill the engine; descriptor, cancel flag and the text in
// the slot's head come over under one guard.
#pragma once

#include <cstdint>

#include "engine/lanes/priority_class.h"
#include "shm/base/status.h"
#include "shm/base/time.h"
#include "shm/layout.h"

namespace sutra {

inline constexpr uint64_t kRequestNsMax = 24 * 3600 * kNsPerSecond;  // a later deadline is shortened to this
inline constexpr uint64_t kSubmittedAgeNsMax = 3600 * kNsPerSecond;

// A checked, private copy of a request descriptor. All numbers are in range.
struct CheckedRequest {
  uint64_t sequence = 0;      // 1 .. 2^56 - 1
  uint64_t submitted_ns = 0;  // at most now
  uint64_t deadline_ns = 0;   // never 0; at most kRequestNsMax from now; may be in the past
  uint64_t tag = 0;
  uint32_t text_bytes = 0;
  uint32_t options = 0;  // RequestOption bits
  uint32_t width = 0;    // 1 .. the lane's width
  uint32_t ttl_s = 0;    // 0 = the engine's default
  PriorityClass priority = kClassNormal;
  bool cancelled = false;    // the caller no longer wants it (a hint)
  uint64_t tail_offset = 0;  // of a text over kTextHeadBytes; all of it lies in the tail file
};

// A text that is still in the client's tail file. No bytes: there is none.
struct TailText {
  uint64_t offset = 0;
  uint32_t bytes = 0;
};

// Copies the text to `text`. RETURNS false = violation (a short read). Any thread. REQUIRES: it lies in the tail file.
[[nodiscard]] bool CopyTailText(int tail_fd, const TailText& tail_text, char* text);

enum class CopyOutcome : uint8_t {
  kOk,
  kAnswer,     // the request cannot be served: answer its sequence with `status`
  kViolation,  // no client library writes this: the lane is closed
};

class UntrustedRequest {
 public:
  // `tail_fd` is the engine's descriptor of the tail file. REQUIRES slot < slots.
  UntrustedRequest(const RequestLane& lane, int tail_fd, uint32_t slot);

  // On kOk `text`, which has room for text_bytes_max, holds a text of at most kTextHeadBytes. On kAnswer `request`
  // holds sequence, tag and submitted_ns, `status` the reason.
  CopyOutcome CopyAndCheck(uint64_t now_ns, char* text, CheckedRequest* request, StatusCode* status) const;

  // Copies a longer text of the checked request to `text`; a short one is there already. RETURNS false = violation (a
  // short read).
  [[nodiscard]] bool CopyLongText(const CheckedRequest& request, char* text) const;

 private:
  struct Words {
    uint64_t sequence, cancel_sequence, submitted_ns, deadline_ns, tag, bytes_and_options, width_and_ttl,
        priority_and_tail;
  };

  void LoadWords(Words* words) const;
  void LoadHead(char* text, uint32_t bytes) const;
  StatusCode Check(uint32_t priority, CheckedRequest* request) const;

  RequestLane lane_;
  int tail_fd_;
  uint32_t slot_;
};

// The caller no longer wants the request (a hint, read at any time while the engine holds the slot).
bool IsCancelled(const RequestLane& lane, uint32_t slot, uint64_t sequence);

}  // namespace sutra
