#include "shm/lane_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cassert>
#include <cstring>
#include <string>

#include "shm/peer_liveness.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

namespace sutra {
namespace {

Status Fail(const char* object, const char* step, uint64_t bytes, int os_error) {
  const StatusCode code = StatusCode::kOutOfMemory;
  const std::string cause =
      os_error == ENFILE || os_error == EMFILE ? "; raise the engine's limit of open files (ulimit -n, LimitNOFILE=)"
      : os_error == EFBIG
          ? "; raise the engine's limit of file sizes (ulimit -f, LimitFSIZE=)"
          : "; free memory, raise the memory limit of the engine's cgroup, or attach with fewer slots or shorter texts";
  return Status(code,
                std::string(object) + ": " + step + " of " + std::to_string(bytes) +
                    " bytes failed: " + std::strerror(os_error) + cause,
                os_error);
}

// A memfd of `bytes` that can be sealed; its first `allocated_bytes` (if any) are allocated.
Result<UniqueFd> MakeMemfd(const char* name, uint64_t bytes, uint64_t allocated_bytes) {
  UniqueFd fd(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return Fail(name, "memfd_create", bytes, errno);
  if (ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) return Fail(name, "sizing", bytes, errno);
  // ftruncate alone would succeed even with memory full, and the first touch would then raise SIGBUS.
  int result = 0;
  do {
    if (allocated_bytes > 0) result = fallocate(fd.get(), 0, 0, static_cast<off_t>(allocated_bytes));
  } while (result != 0 && errno == EINTR);
  if (result != 0) return Fail(name, "allocation", allocated_bytes, errno);
  return fd;
}

Result<Mapping> MapFd(const char* name, int fd, uint64_t bytes, int protection) {
  void* base = mmap(nullptr, bytes, protection, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) return Fail(name, "mapping", bytes, errno);
  // A hint: page tables are filled now rather than in the first requests. Older kernels refuse it.
  madvise(base, bytes, (protection & PROT_WRITE) != 0 ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
  madvise(base, bytes, MADV_DONTFORK);
  return Mapping(static_cast<std::byte*>(base), bytes);
}

void FillHeader(const LaneGeometry& geometry, const LaneIdentity& identity, uint64_t magic, uint64_t bytes,
                LaneHeader* header) {
  header->header_bytes = sizeof(LaneHeader);
  header->magic = magic;
  header->segment_bytes = bytes;
  header->engine_generation = identity.engine_generation;
  header->lane_id = identity.lane_id;
  header->compatible_flags = 0;
  header->incompatible_flags = 0;
  header->slots = geometry.slots;
  header->text_bytes_max = geometry.text_bytes_max;
  header->width = geometry.width;
  header->vector_stride_bytes = static_cast<uint32_t>(geometry.vector_stride());
  std::memcpy(header->boot_id, identity.boot_id.data(), sizeof(header->boot_id));
  // SYNC L0 (release): the header is complete; meets SYNC L0 (acquire) in the client's lane_mapping.cc.
  header->layout_version.store(kLayoutVersion, std::memory_order_release);
}

}  // namespace

Result<LaneMemory> LaneMemory::Create(const LaneGeometry& geometry, const LaneIdentity& identity) {
  if (!geometry.valid()) {
    return Status(StatusCode::kRefused,
                  "lane: " + std::to_string(geometry.slots) + " slots of " + std::to_string(geometry.text_bytes_max) +
                      " text bytes are outside the limits: slots must be a power of two from " +
                      std::to_string(kSlotsMin) + " to " + std::to_string(kSlotsMax) + ", text bytes from " +
                      std::to_string(kTextHeadBytes) + " to " + std::to_string(kTextBytesMaxLimit));
  }
  LaneMemory lane;
  lane.geometry_ = geometry;

  auto request_fd = MakeMemfd("sutra-request-lane", geometry.request_bytes(), geometry.request_bytes());
  if (!request_fd.ok()) return request_fd.status();
  lane.request_fd_ = std::move(request_fd).value();
  {
    // The only time the engine writes the request lane: its header, before the lane is handed out.
    auto header_map = MapFd("request lane", lane.request_fd_.get(), kPageBytes, PROT_READ | PROT_WRITE);
    if (!header_map.ok()) return header_map.status();
    const RequestLane request{header_map->base(), geometry};
    FillHeader(geometry, identity, kRequestLaneMagic, geometry.request_bytes(), &request.header());
  }
  auto request_map = MapFd("request lane", lane.request_fd_.get(), geometry.request_bytes(), PROT_READ);
  if (!request_map.ok()) return request_map.status();
  lane.request_map_ = std::move(request_map).value();

  auto reply_fd = MakeMemfd("sutra-reply-lane", geometry.reply_bytes(), geometry.reply_bytes());
  if (!reply_fd.ok()) return reply_fd.status();
  lane.reply_fd_ = std::move(reply_fd).value();
  auto reply_map = MapFd("reply lane", lane.reply_fd_.get(), geometry.reply_bytes(), PROT_READ | PROT_WRITE);
  if (!reply_map.ok()) return reply_map.status();
  lane.reply_map_ = std::move(reply_map).value();
  const ReplyLane reply = lane.reply();
  // relaxed: published with the version word
  reply.engine().state.store(kLaneOpen, std::memory_order_relaxed);
  FillHeader(geometry, identity, kReplyLaneMagic, geometry.reply_bytes(), &reply.header());

  auto tail_fd = MakeMemfd("sutra-tail-file", geometry.tail_bytes(), 0);
  if (!tail_fd.ok()) return tail_fd.status();
  lane.tail_fd_ = std::move(tail_fd).value();

  // The size seals make truncation impossible for both sides; FUTURE_WRITE leaves the map above the only writable one.
  const int size_seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  if (fcntl(lane.request_fd_.get(), F_ADD_SEALS, size_seals) != 0) return Fail("request lane", "sealing", 0, errno);
  if (fcntl(lane.tail_fd_.get(), F_ADD_SEALS, size_seals) != 0) return Fail("tail file", "sealing", 0, errno);
  if (fcntl(lane.reply_fd_.get(), F_ADD_SEALS, size_seals | F_SEAL_FUTURE_WRITE) != 0) {
    return Fail("reply lane", "sealing", 0, errno);
  }
  assert((fcntl(lane.request_fd_.get(), F_GET_SEALS) & size_seals) == size_seals);
  assert((fcntl(lane.tail_fd_.get(), F_GET_SEALS) & size_seals) == size_seals);
  assert((fcntl(lane.reply_fd_.get(), F_GET_SEALS) & F_SEAL_FUTURE_WRITE) != 0);
  if (!TakeLock(lane.reply_fd_.get())) return Fail("reply lane", "locking", 0, errno);
  return lane;
}

void LaneMemory::PunchClientFiles() const {
  const auto punch = [](int fd, uint64_t bytes) {
    int result;
    do {
      result = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(bytes));
    } while (result != 0 && errno == EINTR);
  };
  if (request_fd_) punch(request_fd_.get(), geometry_.request_bytes());
  if (tail_fd_) punch(tail_fd_.get(), geometry_.tail_bytes());
}

Result<EnginePageMemory> EnginePageMemory::Create(uint64_t engine_generation) {
  EnginePageMemory memory;
  auto fd = MakeMemfd("sutra-engine-page", kPageBytes, kPageBytes);
  if (!fd.ok()) return fd.status();
  memory.fd_ = std::move(fd).value();
  auto map = MapFd("engine page", memory.fd_.get(), kPageBytes, PROT_READ | PROT_WRITE);
  if (!map.ok()) return map.status();
  memory.map_ = std::move(map).value();
  EnginePage* page = memory.page();
  page->page_bytes = kPageBytes;
  page->magic = kEnginePageMagic;
  page->engine_generation = engine_generation;
  // SYNC L0 (release): as for a lane's header.
  page->layout_version.store(kLayoutVersion, std::memory_order_release);
  const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;
  if (fcntl(memory.fd_.get(), F_ADD_SEALS, seals) != 0) return Fail("engine page", "sealing", kPageBytes, errno);
  return memory;
}

EnginePage* EnginePageMemory::page() const { return &EnginePageAt(map_.base()); }

}  // namespace sutra
