// A client's view of a hot table, over the descriptors that clients get, mapped read-only. Without one of an engine
// page it has its own, whose heart beats when the test says so.
//
// Thread rule: one thread; the table and a real page are written by others meanwhile.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstdlib>
#include <optional>
#include <string_view>
#include <vector>

#include "shm/base/time.h"
#include "shm/base/unique_fd.h"
#include "shm/hot_reader.h"
#include "shm/lane_memory.h"

namespace sutra::test {

class HotClient {
 public:
  struct Hit {
    std::vector<float> unit;
    HotValue value;
    uint32_t slot = 0;
  };

  HotClient(int fd, uint32_t width, uint32_t slots, int page_fd = -1) : geometry_{width, slots} {
    map_ = Map(fd, geometry_.bytes());
    if (page_fd >= 0) {
      page_map_ = Map(page_fd, sizeof(EnginePage));
    } else {
      own_page_ = std::move(EnginePageMemory::Create(77)).value();
    }
    reader_ = HotReader(HotTableView{map_.base(), geometry_}, page());
  }

  void Beat() { own_page_.page()->heartbeat_ns.store(MonotonicNs(), std::memory_order_relaxed); }
  const EnginePage* page() const {
    return page_map_.base() != nullptr ? &EnginePageAt(page_map_.base()) : own_page_.page();
  }
  bool closed() const {
    return HotTableView{map_.base(), geometry_}.header().closed.load(std::memory_order_relaxed) != 0;
  }
  std::optional<Hit> Find(std::string_view text) {
    Hit hit;
    hit.unit.resize(geometry_.width);
    HotKey key = reader_.KeyOf(text, 0);
    const bool found = reader_.Find(
        &key, [] { return MonotonicNs(); }, hit.unit.data(), &hit.value, &hit.slot);
    return found ? std::optional(hit) : std::nullopt;
  }

 private:
  static Mapping Map(int fd, uint64_t bytes) {
    void* const base = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
    EXPECT_NE(base, MAP_FAILED);
    return Mapping(static_cast<std::byte*>(base), bytes);
  }

  HotGeometry geometry_;
  Mapping map_, page_map_;
  EnginePageMemory own_page_;
  HotReader reader_;
};

}  // namespace sutra::test
