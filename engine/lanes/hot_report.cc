// One look: two cache lines of the client's, each word read once.
#include "engine/lanes/hot_report.h"

#include <algorithm>
#include <cassert>

namespace sutra {

HotReport::News HotReport::Look(const ClientLine& line, uint64_t now_ns) {
  News news;
  const uint64_t said = line.hot_hits.load(std::memory_order_relaxed);  // relaxed, all: only numbers, and a client's
  if (said <= highest_) return news;
  // What is over the bound is lost to it: nobody earns by saying more at once.
  constexpr uint64_t kNsPerHit = kNsPerSecond / kHitsPerSecondMax;
  const uint64_t since_ns = now_ns - std::min(looked_ns_, now_ns);
  news.hits = std::min(said - highest_, since_ns / kNsPerHit);
  assert(news.hits <= said - highest_ && news.hits * kNsPerHit <= since_ns);
  highest_ = said;
  looked_ns_ = now_ns;
  for (uint32_t i = 0; i < kHotHintsPerLane; ++i) news.hints[i] = line.hot_hints[i].load(std::memory_order_relaxed);
  return news;
}

}  // namespace sutra
