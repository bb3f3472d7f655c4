#include "shm/lane_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cassert>
#include <cstring>
#include <string>

#include "shm/memory_file.h"
#include "shm/peer_liveness.h"

namespace sutra {
namespace {

constexpr const char* kFix = "or attach with fewer slots or shorter texts";

Status Fail(const char* object, const char* step, int os_error) {
  return FailMemoryFile(object, step, 0, kFix, os_error);
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

  auto request_fd = MakeMemoryFile("sutra-request-lane", geometry.request_bytes(), geometry.request_bytes(), kFix);
  if (!request_fd.ok()) return request_fd.status();
  lane.request_fd_ = std::move(request_fd).value();
  {
    // The only time the engine writes the request lane: its header, before the lane is handed out.
    auto header_map =
        MapMemoryFile("request lane", lane.request_fd_.get(), kPageBytes, PROT_READ | PROT_WRITE, true, kFix);
    if (!header_map.ok()) return header_map.status();
    const RequestLane request{header_map->base(), geometry};
    FillHeader(geometry, identity, kRequestLaneMagic, geometry.request_bytes(), &request.header());
  }
  auto request_map =
      MapMemoryFile("request lane", lane.request_fd_.get(), geometry.request_bytes(), PROT_READ, true, kFix);
  if (!request_map.ok()) return request_map.status();
  lane.request_map_ = std::move(request_map).value();

  auto reply_fd = MakeMemoryFile("sutra-reply-lane", geometry.reply_bytes(), geometry.reply_bytes(), kFix);
  if (!reply_fd.ok()) return reply_fd.status();
  lane.reply_fd_ = std::move(reply_fd).value();
  auto reply_map =
      MapMemoryFile("reply lane", lane.reply_fd_.get(), geometry.reply_bytes(), PROT_READ | PROT_WRITE, true, kFix);
  if (!reply_map.ok()) return reply_map.status();
  lane.reply_map_ = std::move(reply_map).value();
  const ReplyLane reply = lane.reply();
  // relaxed: published with the version word
  reply.engine().state.store(kLaneOpen, std::memory_order_relaxed);
  FillHeader(geometry, identity, kReplyLaneMagic, geometry.reply_bytes(), &reply.header());

  auto tail_fd = MakeMemoryFile("sutra-tail-file", geometry.tail_bytes(), 0, kFix);
  if (!tail_fd.ok()) return tail_fd.status();
  lane.tail_fd_ = std::move(tail_fd).value();

  // The size seals make truncation impossible for both sides; FUTURE_WRITE leaves the map above the only writable one.
  if (fcntl(lane.request_fd_.get(), F_ADD_SEALS, kSealsOfSize) != 0) return Fail("request lane", "sealing", errno);
  if (fcntl(lane.tail_fd_.get(), F_ADD_SEALS, kSealsOfSize) != 0) return Fail("tail file", "sealing", errno);
  if (fcntl(lane.reply_fd_.get(), F_ADD_SEALS, kSealsOfEngine) != 0) {
    return Fail("reply lane", "sealing", errno);
  }
  assert((fcntl(lane.request_fd_.get(), F_GET_SEALS) & kSealsOfSize) == kSealsOfSize);
  assert((fcntl(lane.tail_fd_.get(), F_GET_SEALS) & kSealsOfSize) == kSealsOfSize);
  assert((fcntl(lane.reply_fd_.get(), F_GET_SEALS) & kSealsOfEngine) == kSealsOfEngine);
  if (!TakeLock(lane.reply_fd_.get())) return Fail("reply lane", "locking", errno);
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
  auto fd = MakeMemoryFile("sutra-engine-page", kPageBytes, kPageBytes, kFix);
  if (!fd.ok()) return fd.status();
  memory.fd_ = std::move(fd).value();
  auto map = MapMemoryFile("engine page", memory.fd_.get(), kPageBytes, PROT_READ | PROT_WRITE, true, kFix);
  if (!map.ok()) return map.status();
  memory.map_ = std::move(map).value();
  EnginePage* page = memory.page();
  page->page_bytes = kPageBytes;
  page->magic = kEnginePageMagic;
  page->engine_generation = engine_generation;
  // SYNC L0 (release): as for a lane's header.
  page->layout_version.store(kLayoutVersion, std::memory_order_release);
  if (fcntl(memory.fd_.get(), F_ADD_SEALS, kSealsOfEngine) != 0) return Fail("engine page", "sealing", errno);
  return memory;
}

EnginePage* EnginePageMemory::page() const { return &EnginePageAt(map_.base()); }

}  // namespace sutra
