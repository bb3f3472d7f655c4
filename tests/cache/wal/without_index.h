// A segment as an engine that was killed leaves it: the index, which a clean stop writes at its end, is zeros.
// Thread rule: plain functions.
#pragma once

#include <algorithm>
#include <cstring>

#include "cache/wal/segment_index.h"

namespace sutra::test {

// `bytes`: the whole segment, as any container of bytes. Nothing happens if there is no index.
template <typename Bytes>
void ZeroIndex(Bytes* bytes) {
  IndexTrailer trailer;
  if (bytes->size() < sizeof(trailer)) return;
  std::memcpy(&trailer, &(*bytes)[bytes->size() - sizeof(trailer)], sizeof(trailer));
  if (trailer.magic != kIndexMagic || trailer.records_end > bytes->size()) return;
  std::memset(&(*bytes)[trailer.records_end], 0, bytes->size() - trailer.records_end);
}

}  // namespace sutra::test
