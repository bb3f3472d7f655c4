// The memory of a hot table, on the engine's side: a sealed memfd and the only writable mapping of it. (The client's
// side, which maps and verifies it, is producer/hot_mapping.h.)
//
// Thread rule: one thread at a time. Invariants: the memfd is sealed against resizing and against any further writable
// mapping before fd() is there for anybody to send; header and buckets are allocated at creation, slots as they come
// into use, so that no touch of them can fail, and the rest takes no memory.
#pragma once

#include <cstdint>

#include "shm/base/status.h"
#include "shm/base/unique_fd.h"
#include "shm/hot_table.h"

namespace sutra {

class HotTableMemory {
 public:
  HotTableMemory() = default;
  // An empty table with a fresh seed. kOutOfMemory; kRefused: an invalid geometry.
  static Result<HotTableMemory> Create(const HotGeometry& geometry, uint64_t engine_generation);

  HotTableView view() const { return {map_.base(), geometry_}; }
  int fd() const { return fd_.get(); }  // sent to clients

  // Memory for slots [0, slot], before the first write to them. RETURNS false, and nothing has changed, if there is
  // none. A system call once per kBackBytes.
  bool Back(uint32_t slot);
  static constexpr uint64_t kBackBytes = 256 * 1024;

 private:
  HotGeometry geometry_;
  uint64_t backed_bytes_ = 0;  // from the start of the file
  UniqueFd fd_;
  Mapping map_;
};

}  // namespace sutra
