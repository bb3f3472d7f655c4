// The client's side of a lane's shared memory: maps the descriptors of a welcome and trusts nothing about them that
// it has not checked. Libc only.
//
// Thread rule: one thread opens or closes a mapping; the mapped memory follows layout.h.
// Invariants: memory is mapped only when seals forbid its truncation and its size is the one that both sides compute;
// no mapping exists in a forked child, so a child must not unmap what it inherited by address.
#pragma once

#include "producer/include/sutra/embed.h"
#include "shm/handshake_messages.h"
#include "shm/layout.h"

namespace sutra::client {

struct LaneMapping {
  RequestLane request;               // read and write
  ReplyLane reply;                   // read-only
  std::byte* tails = nullptr;        // the tail file; read and write
  const EnginePage* page = nullptr;  // read-only
};

// The memory files of a welcome. The caller keeps them.
struct LaneFiles {
  int request = -1;
  int reply = -1;
  int tail = -1;
  int page = -1;
};

// RETURNS SUTRA_OK, SUTRA_REFUSED (unsealed, wrong size, other layout: the text says which) or SUTRA_OUT_OF_MEMORY.
sutra_status MapLane(const WelcomeMessage& welcome, const LaneFiles& files, LaneMapping* mapping);
void UnmapLane(LaneMapping* mapping);

}  // namespace sutra::client
