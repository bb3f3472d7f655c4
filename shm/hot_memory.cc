#include "shm/hot_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cassert>
#include <string>

#include "shm/base/random.h"
#include "shm/memory_file.h"

namespace sutra {
namespace {

constexpr const char* kName = "hot table";
constexpr const char* kFix = "or start it with a smaller --hot-bytes-max";

}  // namespace

Result<HotTableMemory> HotTableMemory::Create(const HotGeometry& geometry, uint64_t engine_generation) {
  if (!geometry.valid()) {
    return Status(StatusCode::kRefused, "hot table: " + std::to_string(geometry.slots) + " slots of width " +
                                            std::to_string(geometry.width) + " are outside the limits of the layout");
  }
  HotTableMemory memory;
  memory.geometry_ = geometry;
  memory.backed_bytes_ = geometry.slots_at();
  auto fd = MakeMemoryFile("sutra-hot-table", geometry.bytes(), geometry.slots_at(), kFix);
  if (!fd.ok()) return fd.status();
  memory.fd_ = std::move(fd).value();
  auto map = MapMemoryFile(kName, memory.fd_.get(), geometry.bytes(), PROT_READ | PROT_WRITE, false, kFix);
  if (!map.ok()) return map.status();
  memory.map_ = std::move(map).value();

  HotHeader& header = memory.view().header();
  header.header_bytes = sizeof(HotHeader);
  header.magic = kHotTableMagic;
  header.segment_bytes = geometry.bytes();
  header.engine_generation = engine_generation;
  header.seed = RandomSeed();
  header.width = geometry.width;
  header.slots = geometry.slots;
  header.buckets = geometry.buckets();
  header.slot_bytes = static_cast<uint32_t>(geometry.slot_bytes());
  // SYNC H0 (release): the header is complete; meets SYNC H0 (acquire) in the client's hot_mapping.cc.
  header.version.store(kHotTableVersion, std::memory_order_release);
  if (fcntl(memory.fd_.get(), F_ADD_SEALS, kSealsOfEngine) != 0) {
    return FailMemoryFile(kName, "sealing", geometry.bytes(), kFix, errno);
  }
  assert((fcntl(memory.fd_.get(), F_GET_SEALS) & kSealsOfEngine) == kSealsOfEngine);
  return memory;
}

bool HotTableMemory::Back(uint32_t slot) {
  assert(slot < geometry_.slots);
  const uint64_t needed = geometry_.slots_at() + (uint64_t{slot} + 1) * geometry_.slot_bytes();
  if (needed <= backed_bytes_) return true;
  const uint64_t end = std::min(RoundUp(needed, kBackBytes), geometry_.bytes());
  if (!AllocateMemory(fd_.get(), backed_bytes_, end - backed_bytes_)) return false;
  backed_bytes_ = end;
  return true;
}

}  // namespace sutra
