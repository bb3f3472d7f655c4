// A tool's connection to an engine, which may be replaced while texts are in flight.
//
// A client that lost its engine stays alive as long as somebody holds it: answers that arrived before the loss lie in
// its memory. The link only ever moves on to an engine that computes the same vectors: same identity, same width.
//
// Thread rule: one thread owns a link.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "producer/include/sutra/embed.hpp"
#include "shm/base/status.h"

namespace sutra {

using SharedClient = std::shared_ptr<sutra_client>;  // detaches when the last holder lets go

struct LinkOptions {
  std::string socket;
  std::string model;  // refuse an engine with another one; empty: any
  std::string client_name;
  uint32_t slots = 0;  // asked for; the engine's default where it refuses them
  uint32_t width = 0;  // refuse an engine with another one; 0: any
};

// "shutting down: PATH: the engine is ...", with the status named once.
std::string WithErrorText(sutra_status status);
// After these an engine answers nothing more through the client.
bool MeansLoss(sutra_status status);

class EngineLink {
 public:
  static Result<EngineLink> Attach(const LinkOptions& options);

  const SharedClient& client() const { return client_; }
  const sutra_info& info() const { return info_; }

  // One attempt to attach to the next engine; blocks for kAttemptMsMax at most. kNotReady: none yet, the message says
  // what is there. kRefused: an engine is there whose vectors cannot be mixed with the first one's.
  Status Reattach();

 private:
  static constexpr uint32_t kAttemptMsMin = 100;  // an interruption waits for it
  static constexpr uint32_t kAttemptMsMax = 1000;

  explicit EngineLink(LinkOptions options) : options_(std::move(options)) {}
  sutra_status Open(uint32_t timeout_ms, SharedClient* client, sutra_info* info) const;

  LinkOptions options_;
  SharedClient client_;
  sutra_info info_ = embed::Info();
  uint32_t attempt_ms_ = kAttemptMsMin;  // grows: a busy machine needs longer to shake hands
};

}  // namespace sutra
