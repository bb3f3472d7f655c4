// Memory files of the engine that others map: a memfd of a fixed size, and the engine's own mapping of it.
//
// Thread-safe. The mapping is gone in a forked child.
#pragma once

#include <cstdint>

#include "shm/base/status.h"
#include "shm/base/unique_fd.h"

namespace sutra {

// Against resizing; and against writing by whoever did not map it before.
inline constexpr int kSealsOfSize = 0x0001 | 0x0002 | 0x0004;  // F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW
inline constexpr int kSealsOfEngine = kSealsOfSize | 0x0010;   // F_SEAL_FUTURE_WRITE

// A file of `bytes` that can be sealed; its first `allocated_bytes` (if any) are allocated. kOutOfMemory names the
// bytes asked for and what helps, of which `fix` is what the object's owner can do.
Result<UniqueFd> MakeMemoryFile(const char* name, uint64_t bytes, uint64_t allocated_bytes, const char* fix);
// `fill`: page tables are filled now rather than at the first touches.
Result<Mapping> MapMemoryFile(const char* name, int fd, uint64_t bytes, int protection, bool fill, const char* fix);
// Memory for [first, first + bytes) of the file, so that no later touch can fail. False: errno says why.
bool AllocateMemory(int fd, uint64_t first, uint64_t bytes);
Status FailMemoryFile(const char* object, const char* step, uint64_t bytes, const char* fix, int os_error);

}  // namespace sutra
