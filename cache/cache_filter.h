// Which entries a removal is about. Conditions that are set hold together; a filter without any matches nothing, so
// that a forgotten option never empties a cache: `everything` says it aloud.
//
// Thread rule: plain data.
#pragma once

#include <cstdint>
#include <string>

namespace sutra {

inline constexpr size_t kFilterContainsBytesMax = 4096;

struct CacheFilter {
  bool everything = false;    // REQUIRES: no other condition
  std::string contains;       // the text has these bytes in it, anywhere; empty: no condition
  uint64_t older_than_s = 0;  // inserted at least so long ago; 0: no condition
  bool never_hit = false;     // nobody was answered from it since it was inserted
  bool any() const { return everything || !contains.empty() || older_than_s > 0 || never_hit; }
};

}  // namespace sutra
