#include "shm/memory_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <string>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

namespace sutra {

static_assert(kSealsOfSize == (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW));
static_assert(kSealsOfEngine == (kSealsOfSize | F_SEAL_FUTURE_WRITE));

Status FailMemoryFile(const char* object, const char* step, uint64_t bytes, const char* fix, int os_error) {
  const std::string cause =
      os_error == ENFILE || os_error == EMFILE ? "; raise the engine's limit of open files (ulimit -n, LimitNOFILE=)"
      : os_error == EFBIG                      ? "; raise the engine's limit of file sizes (ulimit -f, LimitFSIZE=)"
                          : std::string("; free memory, raise the memory limit of the engine's cgroup, ") + fix;
  return Status(StatusCode::kOutOfMemory,
                std::string(object) + ": " + step + " of " + std::to_string(bytes) +
                    " bytes failed: " + std::strerror(os_error) + cause,
                os_error);
}

Result<UniqueFd> MakeMemoryFile(const char* name, uint64_t bytes, uint64_t allocated_bytes, const char* fix) {
  UniqueFd fd(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return FailMemoryFile(name, "memfd_create", bytes, fix, errno);
  if (ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) return FailMemoryFile(name, "sizing", bytes, fix, errno);
  // ftruncate alone would succeed even with memory full, and the first touch would then raise SIGBUS.
  if (allocated_bytes > 0 && !AllocateMemory(fd.get(), 0, allocated_bytes)) {
    return FailMemoryFile(name, "allocation", allocated_bytes, fix, errno);
  }
  return fd;
}

bool AllocateMemory(int fd, uint64_t first, uint64_t bytes) {
  int result;
  do {
    result = fallocate(fd, 0, static_cast<off_t>(first), static_cast<off_t>(bytes));
  } while (result != 0 && errno == EINTR);
  return result == 0;
}

Result<Mapping> MapMemoryFile(const char* name, int fd, uint64_t bytes, int protection, bool fill, const char* fix) {
  void* base = mmap(nullptr, bytes, protection, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) return FailMemoryFile(name, "mapping", bytes, fix, errno);
  // A hint, which older kernels refuse.
  if (fill) madvise(base, bytes, (protection & PROT_WRITE) != 0 ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
  madvise(base, bytes, MADV_DONTFORK);
  return Mapping(static_cast<std::byte*>(base), bytes);
}

}  // namespace sutra
