// Takes requests out of a lane: everything a client wrote enters the engine here, as a private, checked copy.
//
// Thread rule: the loop thread. The text of a Taken stays in the reader's buffer until the next call.
// Invariants: the engine's own slot table, never the client's words, decides what is held; a client that breaks the
// protocol loses its lane and harms nothing else; the work of one call is bounded by one text.
#pragma once

#include <memory>
#include <string_view>

#include "engine/lanes/lane.h"
#include "engine/lanes/request.h"

namespace sutra {

class LaneReader {
 public:
  enum class Next { kNone, kTaken, kViolation };

  struct Taken {
    Waiter waiter;
    std::string_view text;                // empty unless status is ok
    StatusCode status = StatusCode::kOk;  // anything else: answer the request with this
  };

  // Reads from lanes whose slots hold at most `text_bytes_max`.
  explicit LaneReader(uint32_t text_bytes_max) : buffer_bytes_(text_bytes_max), buffer_(new char[text_bytes_max]) {}

  // `lane` is not owned by the reader; the waiter keeps it alive. `taken` may be the one of the call before: then its
  // waiter keeps the reference that it has. On kViolation *why says what the client did.
  Next Take(const std::shared_ptr<Lane>& lane, Taken* taken, const char** why);

 private:
  const uint32_t buffer_bytes_;
  const std::unique_ptr<char[]> buffer_;
};

}  // namespace sutra
