// The only way that data of a client enters the engine: copy once, check the copy, use only the copy.
// Bytes that the client may change meanwhile are read as relaxed atomic 64-bit words, never with memcpy; a changed byte
// can thus give a garbled text (which harms only that client), never a torn check. The copy is what gets hashed and
// embedded, so a client that edits its text after the check cannot poison the cache.
//
// Thread rule: the thread that owns the lane's SubmissionReader; any thread may call Cancelled.
// Invariants: no offset and no length from the client is used before it was bounded by the engine's own geometry; a
// fault while copying (SIGBUS) gives kViolation and does not kill the engine.
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
};

enum class CopyOutcome : uint8_t {
  kOk,
  kAnswer,     // the request cannot be served: answer its sequence with `status`
  kViolation,  // no client library writes this: the lane is closed
};

class UntrustedRequest {
 public:
  // `request_fd` is the engine's descriptor of the request lane, for the tail of long texts. REQUIRES slot < slots.
  UntrustedRequest(const RequestLane& lane, int request_fd, uint32_t slot);

  // On kAnswer `request` holds sequence, tag and submitted_ns, `status` the reason.
  CopyOutcome CopyAndCheck(uint64_t now_ns, CheckedRequest* request, StatusCode* status) const;

  // Copies text_bytes of the checked request to `text`. RETURNS false = violation (a fault or a short read).
  [[nodiscard]] bool CopyText(const CheckedRequest& request, char* text) const;

  // The caller no longer wants the request (a hint, read at any time while the engine holds the slot).
  bool Cancelled(uint64_t sequence) const;

 private:
  struct Words {
    uint64_t sequence, submitted_ns, deadline_ns, tag, bytes_and_options, width_and_ttl, priority;
  };

  void LoadWords(Words* words) const;
  void LoadHead(char* text, uint32_t bytes) const;
  StatusCode Check(uint64_t priority, CheckedRequest* request) const;

  RequestLane lane_;
  int request_fd_;
  uint32_t slot_;
};

}  // namespace sutra
