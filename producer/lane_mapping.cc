#include "producer/lane_mapping.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <atomic>

#include "producer/thread_state.h"

namespace sutra::client {
namespace {

constexpr int kSealShrink = 0x0002, kSealGrow = 0x0004, kSealSeal = 0x0001;
constexpr int kGetSeals = 1034;  // F_GET_SEALS, spelled out for C libraries that hide it
constexpr int kMadvisePopulateRead = 22, kMadvisePopulateWrite = 23;

// An unsealed or short file could be truncated under our feet, and the next touch would be a SIGBUS in the caller's
// code.
sutra_status CheckFile(const char* name, int fd, uint64_t bytes) {
  const int needed = kSealShrink | kSealGrow | kSealSeal;
  const int seals = fcntl(fd, kGetSeals);
  if (seals < 0 || (seals & needed) != needed) {
    return Fail(SUTRA_REFUSED,
                "the engine's %s is not a memory file sealed against resizing (seals 0x%x): not a Sutra engine, or a "
                "broken one; check which program listens on the socket",
                name, seals < 0 ? 0 : seals);
  }
  struct stat info;
  if (fstat(fd, &info) != 0 || static_cast<uint64_t>(info.st_size) != bytes) {
    return Fail(SUTRA_REFUSED, "the engine's %s has %lld bytes, but its own numbers give %llu: broken engine build",
                name, static_cast<long long>(info.st_size), static_cast<unsigned long long>(bytes));
  }
  return SUTRA_OK;
}

sutra_status MapFile(const char* name, int fd, uint64_t bytes, uint64_t touched_bytes, int protection,
                     std::byte** base) {
  if (const sutra_status status = CheckFile(name, fd, bytes); status != SUTRA_OK) return status;
  void* address = mmap(nullptr, bytes, protection, MAP_SHARED, fd, 0);
  if (address == MAP_FAILED) {
    return Fail(SUTRA_OUT_OF_MEMORY, "mapping the %s of %llu bytes: %s; attach with fewer slots or shorter texts", name,
                static_cast<unsigned long long>(bytes), strerror(errno));
  }
  madvise(address, bytes, MADV_DONTFORK);
  // Fills page tables now instead of in the first requests. A hint for kernels that do not know it; but where pages are
  // missing that the engine should have allocated, and there is no memory for them, a later touch would be a SIGBUS.
  const int advice = (protection & PROT_WRITE) != 0 ? kMadvisePopulateWrite : kMadvisePopulateRead;
  if (touched_bytes > 0 && madvise(address, touched_bytes, advice) != 0 && (errno == ENOMEM || errno == EFAULT)) {
    const int cause = errno;
    munmap(address, bytes);
    return Fail(SUTRA_OUT_OF_MEMORY,
                "no memory for the pages of the %s (%llu bytes): %s; free memory or raise its limit", name,
                static_cast<unsigned long long>(touched_bytes), strerror(cause));
  }
  *base = static_cast<std::byte*>(address);
  return SUTRA_OK;
}

// The version is read first: another major may have moved every other field.
sutra_status CheckVersion(const char* name, uint32_t version) {
  if (version >> 16 == kLayoutMajor) return SUTRA_OK;
  return Fail(
      SUTRA_REFUSED,
      "the engine's %s has layout %u.%u, this library %u.%u: install the client library of the engine's version", name,
      version >> 16, version & 0xffff, unsigned{kLayoutMajor}, unsigned{kLayoutMinor});
}

sutra_status CheckHeader(const char* name, const LaneHeader& header, const WelcomeMessage& welcome, uint64_t magic,
                         const LaneGeometry& geometry, uint64_t bytes) {
  // SYNC L0 (acquire): the fields below are complete; meets SYNC L0 (release) in shm/lane_memory.cc.
  const uint32_t version = header.layout_version.load(std::memory_order_acquire);
  if (const sutra_status status = CheckVersion(name, version); status != SUTRA_OK) return status;
  if (header.incompatible_flags != 0) {
    return Fail(SUTRA_REFUSED,
                "the engine's %s needs features 0x%x that this library does not have: update the library", name,
                header.incompatible_flags);
  }
  const bool same = header.magic == magic && header.header_bytes == sizeof(LaneHeader) &&
                    header.segment_bytes == bytes && header.engine_generation == welcome.engine_generation &&
                    header.lane_id == welcome.lane_id && header.slots == geometry.slots &&
                    header.text_bytes_max == geometry.text_bytes_max && header.width == geometry.width &&
                    header.vector_stride_bytes == geometry.vector_stride();
  if (same) return SUTRA_OK;
  return Fail(SUTRA_REFUSED, "the header of the engine's %s contradicts its welcome: broken engine build", name);
}

}  // namespace

sutra_status MapLane(const WelcomeMessage& welcome, const LaneFiles& files, LaneMapping* mapping) {
  const LaneGeometry geometry = {welcome.slots, welcome.text_bytes_max, welcome.width};
  if (!geometry.valid()) {
    return Fail(SUTRA_REFUSED, "the engine offers a lane outside the layout's limits (%u slots, %u bytes, width %u)",
                welcome.slots, welcome.text_bytes_max, welcome.width);
  }
  LaneMapping made;
  made.request.geometry = geometry;
  made.reply.geometry = geometry;
  sutra_status status = MapFile("request lane", files.request, geometry.request_bytes(), geometry.request_bytes(),
                                PROT_READ | PROT_WRITE, &made.request.base);
  if (status == SUTRA_OK) {
    status =
        MapFile("reply lane", files.reply, geometry.reply_bytes(), geometry.reply_bytes(), PROT_READ, &made.reply.base);
  }
  // Sparse: nothing of it is touched before a long text is written.
  if (status == SUTRA_OK) {
    status = MapFile("tail file", files.tail, geometry.tail_bytes(), 0, PROT_READ | PROT_WRITE, &made.tails);
  }
  std::byte* page_base = nullptr;
  if (status == SUTRA_OK) status = MapFile("engine page", files.page, kPageBytes, kPageBytes, PROT_READ, &page_base);
  if (page_base != nullptr) made.page = &EnginePageAt(page_base);
  if (status == SUTRA_OK) {
    status = CheckHeader("request lane", made.request.header(), welcome, kRequestLaneMagic, geometry,
                         geometry.request_bytes());
  }
  if (status == SUTRA_OK) {
    status = CheckHeader("reply lane", made.reply.header(), welcome, kReplyLaneMagic, geometry, geometry.reply_bytes());
  }
  if (status == SUTRA_OK) {
    // SYNC L0 (acquire): as for the lanes.
    status = CheckVersion("engine page", made.page->layout_version.load(std::memory_order_acquire));
    if (status == SUTRA_OK &&
        (made.page->magic != kEnginePageMagic || made.page->engine_generation != welcome.engine_generation)) {
      status = Fail(SUTRA_REFUSED, "the engine page contradicts the engine's welcome: broken engine build");
    }
  }
  if (status != SUTRA_OK) {
    UnmapLane(&made);
    return status;
  }
  assert(made.request.base != nullptr && made.reply.base != nullptr && made.tails != nullptr && made.page != nullptr);
  *mapping = made;
  return SUTRA_OK;
}

void UnmapLane(LaneMapping* mapping) {
  if (mapping->request.base != nullptr) munmap(mapping->request.base, mapping->request.geometry.request_bytes());
  if (mapping->reply.base != nullptr) munmap(mapping->reply.base, mapping->reply.geometry.reply_bytes());
  if (mapping->tails != nullptr) munmap(mapping->tails, mapping->request.geometry.tail_bytes());
  if (mapping->page != nullptr) munmap(const_cast<EnginePage*>(mapping->page), kPageBytes);
  *mapping = LaneMapping();
}

}  // namespace sutra::client
