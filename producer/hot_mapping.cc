#include "producer/hot_mapping.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <new>

namespace sutra::client {
namespace {

// Spelled out for C libraries that hide them.
constexpr int kGetSeals = 1034;
constexpr int kSealsNeeded = 0x0001 | 0x0002 | 0x0004 | 0x0010;  // SEAL, SHRINK, GROW, FUTURE_WRITE
constexpr int kMadvisePopulateRead = 22;

bool CheckFile(int fd, uint64_t bytes) {
  const int seals = fcntl(fd, kGetSeals);
  struct stat info;
  return seals >= 0 && (seals & kSealsNeeded) == kSealsNeeded && fstat(fd, &info) == 0 &&
         static_cast<uint64_t>(info.st_size) == bytes;
}

bool CheckHeader(const HotTableView& view, const WelcomeMessage& welcome) {
  const HotHeader& header = view.header();
  const HotGeometry& geometry = view.geometry;
  // SYNC H0 (acquire): the fields below are complete; meets SYNC H0 (release) in shm/hot_memory.cc.
  return header.version.load(std::memory_order_acquire) == kHotTableVersion && header.magic == kHotTableMagic &&
         header.header_bytes == sizeof(HotHeader) && header.segment_bytes == geometry.bytes() &&
         header.engine_generation == welcome.engine_generation && header.width == geometry.width &&
         header.slots == geometry.slots && header.buckets == geometry.buckets() &&
         header.slot_bytes == geometry.slot_bytes();
}

}  // namespace

HotMapping* MapHotTable(const WelcomeMessage& welcome, int fd) {
  const HotGeometry geometry = {welcome.width, welcome.hot_slots};
  if (fd < 0 || !geometry.valid() || !CheckFile(fd, geometry.bytes())) return nullptr;
  void* address = mmap(nullptr, geometry.bytes(), PROT_READ, MAP_SHARED, fd, 0);
  if (address == MAP_FAILED) return nullptr;
  madvise(address, geometry.bytes(), MADV_DONTFORK);
  const HotTableView view = {static_cast<std::byte*>(address), geometry};
  // Header and buckets are looked at for every text. A slot is looked at only where a cell names it, after the engine
  // has written it.
  const bool filled = madvise(address, geometry.slots_at(), kMadvisePopulateRead) == 0 || errno == EINVAL;
  void* memory = filled && CheckHeader(view, welcome) ? malloc(sizeof(HotMapping)) : nullptr;
  if (memory == nullptr) {
    munmap(address, geometry.bytes());
    return nullptr;
  }
  HotMapping* mapping = new (memory) HotMapping();
  mapping->view = view;
  mapping->engine_generation = welcome.engine_generation;
  return mapping;
}

void HoldHotTable(HotMapping* mapping) {
  // relaxed: the caller has a reference that lasts as long as this call
  const uint32_t before = mapping->references.fetch_add(1, std::memory_order_relaxed);
  assert(before > 0);
  (void)before;
}

void DropHotTable(HotMapping* mapping, bool forked) {
  if (mapping == nullptr) return;
  // acq_rel: whoever unmaps does it after everybody's last look.
  const uint32_t before = mapping->references.fetch_sub(1, std::memory_order_acq_rel);
  assert(before > 0);
  if (before != 1) return;
  if (!forked) munmap(mapping->view.base, mapping->view.geometry.bytes());
  mapping->~HotMapping();
  free(mapping);
}

}  // namespace sutra::client
