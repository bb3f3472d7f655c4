#include "producer/hot_lookup.h"

#include <assert.h>
#include <string.h>

#include "producer/slot_end.h"
#include "shm/text_key.h"

namespace sutra::client {
namespace {

// The hit is the client's word only. relaxed, all of it: nothing follows from it but what somebody sees, and which keys
// the engine keeps. Only this side writes the line, under the lane's mutex.
void NoteHit(const Attachment& attachment, uint32_t slot) {
  ClientLine& line = attachment.connection.mapping.request.client();
  const uint64_t hits = line.hot_hits.load(std::memory_order_relaxed) + 1;
  line.hot_hits.store(hits, std::memory_order_relaxed);
  if (hits % kHotHintEvery != 0) return;
  line.hot_hints[hits / kHotHintEvery % kHotHintsPerLane].store(slot + 1, std::memory_order_relaxed);
}

bool WantsUnitLength(const Request& request, const WelcomeMessage& welcome) {
  if ((request.flags & kOptionNormalize) != 0) return true;
  return (request.flags & kOptionRaw) == 0 && welcome.normalizes != 0;
}

}  // namespace

bool FindHotLocked(ClientLane* lane, const char* text, uint32_t text_bytes, const Request& request, float* vector,
                   HotAnswer* answer) {
  assert(!IsLost(lane) && lane->current != nullptr);
  const Attachment& attachment = *lane->current;
  if (attachment.hot_scratch == nullptr || text_bytes > kHotTextBytesMax) return false;
  const WelcomeMessage& welcome = attachment.connection.welcome;
  if ((request.flags & kOptionCacheSkipLookup) != 0) return false;
  if (request.width != 0 && request.width != welcome.width) return false;

  const HotReader& reader = attachment.hot;
  HotKey key = reader.KeyOf({text, text_bytes}, kVariantOfModel);
  const auto engine_now_ns = [&] {
    answer->found_ns = CycleNs();
    return answer->found_ns + static_cast<uint64_t>(attachment.connection.engine_clock_ahead_ns_max);
  };
  HotValue value;
  uint32_t slot = 0;
  float* const unit = attachment.hot_scratch;
  if (!reader.Find(&key, engine_now_ns, unit, &value, &slot)) return false;
  answer->truncated = (value.flags & kResultTruncated) != 0;
  if (answer->truncated && (request.flags & kOptionReject) != 0) return false;  // the engine says it
  answer->token_count = value.token_count < welcome.tokens_max ? value.token_count : welcome.tokens_max;
  if (WantsUnitLength(request, welcome)) {
    memcpy(vector, unit, welcome.width * sizeof(float));
  } else {
    for (uint32_t i = 0; i < welcome.width; ++i) vector[i] = unit[i] * value.norm;
  }
  NoteHit(attachment, slot);
  return true;
}

void FillHotResult(const HotAnswer& answer, uint64_t tag, uint64_t submitted_ns, const float* vector, uint32_t width,
                   sutra_result* result) {
  *result = {};
  result->size = sizeof(*result);
  result->status = SUTRA_OK;
  result->source = SUTRA_SOURCE_HOT_TABLE;
  result->token_count = answer.token_count;
  result->truncated = answer.truncated ? 1 : 0;
  result->tag = tag;
  result->stage_ns[kSubmitted] = submitted_ns;
  result->stage_ns[kPublished] = answer.found_ns;
  SetVector(vector, width, result);
}

}  // namespace sutra::client
