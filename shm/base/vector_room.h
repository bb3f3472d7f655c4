// Room in a vector before something is added, so that a lack of memory shows while nothing has changed yet.
// Header-only. Thread rule: as the vector.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace sutra {

// The next push_back allocates nothing. At least doubles the room, so that the cost per item stays constant; `least` is
// what an empty vector gets. Throws std::bad_alloc and has changed nothing.
template <typename T>
void MakeRoomForOne(std::vector<T>* items, size_t least = 16) {
  if (items->size() == items->capacity()) items->reserve(std::max(least, 2 * items->size()));
}

}  // namespace sutra
