// What the client of one lane says of its hits in the hot table. The words are its own, so they are believed within
// bounds and decide nothing: the count is shown, the hints spare slots from eviction.
//
// Thread rule: the loop thread. Invariants: the hits believed never exceed what the client said, nor kHitsPerSecondMax
// for the time since the look before; a count that goes back counts nothing until it passes its highest.
#pragma once

#include <array>
#include <cstdint>

#include "shm/base/time.h"
#include "shm/layout.h"

namespace sutra {

class HotReport {
 public:
  static constexpr uint64_t kHitsPerSecondMax = 50'000'000;

  struct News {
    uint64_t hits = 0;
    std::array<uint32_t, kHotHintsPerLane> hints = {};  // of a client that has hit something; 0 = none
  };
  // What is new since the look before, or since the lane was added.
  News Look(const ClientLine& line, uint64_t now_ns);
  void Begin(uint64_t now_ns) { looked_ns_ = now_ns; }

 private:
  uint64_t highest_ = 0;
  uint64_t looked_ns_ = 0;
};

}  // namespace sutra
