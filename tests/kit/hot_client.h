// A client's view of a hot table, over the descriptor that clients get: mapped read-only, with an engine page of the
// test's own whose heart beats when the test says so.
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

namespace sutra::testing {

class HotClient {
 public:
  struct Hit {
    std::vector<float> unit;
    HotValue value;
    uint32_t slot = 0;
  };

  HotClient(int fd, uint32_t width, uint32_t slots) : geometry_{width, slots} {
    void* const base = mmap(nullptr, geometry_.bytes(), PROT_READ, MAP_SHARED, fd, 0);
    EXPECT_NE(base, MAP_FAILED);
    map_ = Mapping(static_cast<std::byte*>(base), geometry_.bytes());
    page_ = std::move(EnginePageMemory::Create(77)).value();
    reader_ = HotReader(HotTableView{map_.base(), geometry_}, page_.page());
  }

  void Beat() { page_.page()->heartbeat_ns.store(MonotonicNs(), std::memory_order_relaxed); }
  std::optional<Hit> Find(std::string_view text) {
    Hit hit;
    hit.unit.resize(geometry_.width);
    HotKey key = reader_.KeyOf(text, 0);
    const bool found = reader_.Find(
        &key, [] { return MonotonicNs(); }, hit.unit.data(), &hit.value, &hit.slot);
    return found ? std::optional(hit) : std::nullopt;
  }

 private:
  HotGeometry geometry_;
  Mapping map_;
  EnginePageMemory page_;
  HotReader reader_;
};

}  // namespace sutra::testing
