// Takes requests out of a lane: everything a client wrote enters the engine here, as a private, checked copy.
//
// Thread rule: the loop thread. The text of a Taken stays in the reader's buffer until the next call.
// Invariants: the engine's own slot table, never the client's words, decides what is held; a client that breaks the
// protocol loses its lane and harms nothing else; the work of one call is bounded by kLongTextBytes of text: a longer
// one stays where it is, for another thread to read.
#pragma once

#include <algorithm>
#include <memory>
#include <string_view>

#include "engine/lanes/lane.h"
#include "engine/lanes/request.h"
#include "engine/lanes/untrusted_copy.h"

namespace sutra {

// Texts that are longer cost milliseconds: to read, to hash and to compare.
inline constexpr uint32_t kLongTextBytes = 64 << 10;

class LaneReader {
 public:
  enum class Next { kNone, kTaken, kViolation };

  struct Taken {
    Waiter waiter;
    std::string_view text;                // empty unless status is ok, and of a long text
    TailText long_text;                   // one of more than kLongTextBytes, not read yet
    StatusCode status = StatusCode::kOk;  // anything else: answer the request with this
  };

  // Reads from lanes whose slots hold at most `text_bytes_max`.
  explicit LaneReader(uint32_t text_bytes_max)
      : buffer_bytes_(std::min(text_bytes_max, kLongTextBytes)), buffer_(new char[buffer_bytes_]) {}

  // `lane` is not owned by the reader; the waiter keeps it alive. `taken` may be the one of the call before: then its
  // waiter keeps the reference that it has. On kViolation *why says what the client did.
  Next Take(const std::shared_ptr<Lane>& lane, Taken* taken, const char** why);

 private:
  const uint32_t buffer_bytes_;
  const std::unique_ptr<char[]> buffer_;
};

}  // namespace sutra
