// Texts as token ids, one after another: a batch of its own memory.
// Thread rule: plain data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/model/model_backend.h"

namespace sutra::cpu {

struct TokenTexts {
  std::vector<int32_t> ids;
  std::vector<int32_t> offsets = {0};

  size_t size() const { return offsets.size() - 1; }
  TokenBatch batch() const { return {ids, offsets}; }
  // What was appended to `ids` since the last text is one.
  void EndText() { offsets.push_back(static_cast<int32_t>(ids.size())); }
};

}  // namespace sutra::cpu
