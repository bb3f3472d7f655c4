// The payload of an answer: a memfd that holds nothing else and that nobody can change any more. Whoever receives it
// believes neither its size nor that it is one.
//
// Thread rule: plain functions. Invariants: a payload that is read was sealed before it was looked at, so no read of it
// blocks, and its bytes stay as they are; it is copied, never mapped.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "shm/base/status.h"
#include "shm/base/unique_fd.h"

namespace sutra {

// kOutOfMemory: there is no memory, or no descriptor, for it.
Result<UniqueFd> MakeSealedPayload(std::string_view bytes);

// kProtocolViolation: `fd` is no sealed memfd of exactly `bytes` bytes, at most kCachePayloadBytesMax.
Result<std::string> ReadSealedPayload(int fd, uint64_t bytes);

}  // namespace sutra
