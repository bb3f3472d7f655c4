// F_GET_SEALS fails on whatever is no memfd: a pipe, a socket and a file of a file system never get to be read.
#include "engine/control/sealed_payload.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>

#include "shm/control_messages.h"

namespace sutra {
namespace {

constexpr int kSeals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;

Status NoPayload(const std::string& what) {
  return Status(StatusCode::kProtocolViolation, "no valid payload of an answer: " + what);
}

}  // namespace

Result<UniqueFd> MakeSealedPayload(std::string_view bytes) {
  const auto failed = [](const char* what) {
    return Status::FromErrno(StatusCode::kOutOfMemory, std::string(what) + " an answer's memory", errno);
  };
  UniqueFd fd(memfd_create("sutra-answer", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return failed("creating");
  for (std::string_view rest = bytes; !rest.empty();) {
    const ssize_t count = write(fd.get(), rest.data(), rest.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return failed("filling");
    rest.remove_prefix(static_cast<size_t>(count));
  }
  if (fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0) return failed("sealing");
  return fd;
}

Result<std::string> ReadSealedPayload(int fd, uint64_t bytes) {
  if (bytes == 0 || bytes > kCachePayloadBytesMax) return NoPayload(std::to_string(bytes) + " bytes");
  if (const int seals = fcntl(fd, F_GET_SEALS); seals < 0 || (seals & kSeals) != kSeals) {
    return NoPayload("its descriptor is no sealed memfd");
  }
  struct stat file;
  if (fstat(fd, &file) != 0 || static_cast<uint64_t>(file.st_size) != bytes)
    return NoPayload("its size is another one");
  std::string payload(bytes, '\0');
  for (uint64_t at = 0; at < bytes;) {
    const ssize_t count = pread(fd, &payload[at], bytes - at, static_cast<off_t>(at));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return NoPayload("it cannot be read");
    at += static_cast<uint64_t>(count);
    assert(at <= bytes);
  }
  return payload;
}

}  // namespace sutra
