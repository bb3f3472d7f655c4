// How a cache command makes its reply. Header-only; stateless.
#pragma once

#include <string_view>
#include <utility>

#include "engine/control/admin_thread.h"
#include "engine/control/sealed_payload.h"

namespace sutra {

inline CacheReply Failed(Status status) {
  CacheReply reply;
  reply.status = std::move(status);
  return reply;
}

// REQUIRES: bytes.size() <= kCachePayloadBytesMax, not 0.
inline CacheReply WithPayload(CacheReply reply, std::string_view bytes) {
  Result<UniqueFd> payload = MakeSealedPayload(bytes);
  if (!payload.ok()) return Failed(payload.status());
  reply.payload = std::move(payload).value();
  reply.body.payload_bytes = static_cast<uint32_t>(bytes.size());
  return reply;
}

}  // namespace sutra
