// Placement by a clock hand, and the fences that removals raise.
#include "engine/serving/hot_cache.h"

#include <algorithm>
#include <cassert>
#include <string>
#include <utility>

#include "shm/base/checkpoint.h"
#include "shm/base/time.h"
#include "shm/layout.h"

namespace sutra {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

void Add(std::atomic<uint64_t>* figure, int64_t change) {
  figure->store(figure->load(kRelaxed) + static_cast<uint64_t>(change), kRelaxed);  // one writer: the mutex's holder
}

}  // namespace

Result<std::unique_ptr<HotCache>> HotCache::Create(uint32_t width, uint64_t bytes, uint64_t engine_generation) {
  const HotGeometry geometry = HotGeometry::Of(width, bytes);
  if (geometry.slots == 0) {
    return Status(StatusCode::kRefused, "--hot-bytes-max " + std::to_string(bytes) + " holds no vector of " +
                                            std::to_string(width) + " floats: raise it, or give 0 for no hot table");
  }
  Result<HotTableMemory> memory = HotTableMemory::Create(geometry, engine_generation);
  if (!memory.ok()) return memory.status();
  return std::unique_ptr<HotCache>(new HotCache(std::move(memory).value()));
}

HotCache::HotCache(HotTableMemory memory)
    : memory_(std::move(memory)),
      writer_(memory_.view()),
      states_(writer_.slots(), kFree),
      handles_(writer_.slots()),
      usable_(writer_.slots()) {
  freed_.reserve(writer_.slots());
  Beat();
}

HotCache::~HotCache() { Close(); }

void HotCache::TryPublish(std::string_view text, uint32_t variant, std::span<const float> unit, const CacheValue& value,
                          uint64_t removals) {
  if (text.size() > kHotTextBytesMax || closed_.load(kRelaxed)) return;  // relaxed: this thread closes it
  HotKey key = writer_.KeyOf(text, variant);
  if (!mutex_.TryLockBriefly()) return;
  const MutexLock lock(mutex_, MutexLock::Held());
  if (Stopped(key, removals)) return;
  if (const uint32_t slot = writer_.Find(&key); slot != HotWriter::kNoSlot) {
    states_[slot] = kAskedFor;
    if (writer_.expires_ns(slot) == value.expires_ns) return;
    return Write(slot, &key, unit, value);  // stored anew since
  }
  uint32_t slot = TakeFree();
  if (slot == HotWriter::kNoSlot && exchanges_left_ > 0) {
    --exchanges_left_;
    slot = Evict();
  }
  if (slot != HotWriter::kNoSlot) Write(slot, &key, unit, value);
}

bool HotCache::Fill(std::string_view text, uint32_t variant, std::span<const float> unit, const CacheValue& value,
                    uint64_t removals) {
  HotKey key = writer_.KeyOf(text, variant);
  const MutexLock lock(mutex_);
  if (closed_.load(kRelaxed)) return false;  // relaxed: what is published beside it is not read
  if (text.size() > kHotTextBytesMax || Stopped(key, removals) || writer_.Find(&key) != HotWriter::kNoSlot) return true;
  const uint32_t slot = TakeFree();
  if (slot == HotWriter::kNoSlot) return false;
  Write(slot, &key, unit, value);
  return true;
}

bool HotCache::Stopped(const HotKey& key, uint64_t removals) const {
  return std::max(all_removed_at_, removed_at_[key.tag() % kFences]) > removals;
}

uint32_t HotCache::TakeFree() {
  if (!freed_.empty()) {
    const uint32_t slot = freed_.back();
    freed_.pop_back();
    return slot;
  }
  if (fresh_ == usable_) return HotWriter::kNoSlot;
  if (!memory_.Back(fresh_)) {
    usable_ = fresh_;
    return HotWriter::kNoSlot;
  }
  return fresh_++;
}

// Every slot below fresh_ is in use: there is no free one.
uint32_t HotCache::Evict() {
  if (fresh_ == 0) return HotWriter::kNoSlot;
  for (uint32_t step = 1;; ++step) {
    if (hand_ >= fresh_) hand_ = 0;
    const uint32_t slot = hand_++;
    assert(states_[slot] != kFree);
    if (states_[slot] == kAskedFor && step < kHandStepsMax) {
      states_[slot] = kUsed;
      continue;
    }
    states_[slot] = kFree;
    Add(&evicted_, 1);
    Add(&used_, -1);
    return slot;
  }
}

void HotCache::Free(uint32_t slot) {
  assert(states_[slot] != kFree);
  states_[slot] = kFree;
  freed_.push_back(slot);  // there is room
  Add(&used_, -1);
}

// `slot` is free, or has this key already.
void HotCache::Write(uint32_t slot, HotKey* key, std::span<const float> unit, const CacheValue& value) {
  static_cast<void>(SUTRA_CHECKPOINT("hot.publishing"));
  const uint32_t displaced = writer_.Write(slot, key, unit,
                                           {.norm = value.norm,
                                            .token_count = value.token_count,
                                            .flags = value.truncated ? uint32_t{kResultTruncated} : 0,
                                            .expires_ns = value.expires_ns});
  if (displaced != HotWriter::kNoSlot) {
    Add(&evicted_, 1);
    Free(displaced);
  }
  handles_[slot] = value.handle;
  Add(&published_, 1);
  if (states_[slot] != kFree) return;
  states_[slot] = kUsed;
  Add(&used_, 1);
}

void HotCache::Mark(std::span<const uint32_t> hints, CacheShard* shard) {
  std::array<CacheHandle, 16> handles;
  size_t count = 0;
  {
    if (!mutex_.TryLockBriefly()) return;
    const MutexLock lock(mutex_, MutexLock::Held());
    for (const uint32_t hint : hints) {
      if (hint == 0 || hint > fresh_ || states_[hint - 1] == kFree || count == handles.size()) continue;
      states_[hint - 1] = kAskedFor;
      handles[count++] = handles_[hint - 1];
    }
  }
  if (shard == nullptr) return;
  for (size_t i = 0; i < count; ++i) shard->Touch(handles[i]);
}

void HotCache::Beat() {
  exchanges_left_ = kExchangesPerBeat;
  writer_.SetBootAhead(BootNs() - MonotonicNs());
}

void HotCache::Close() {
  closed_.store(true, kRelaxed);  // relaxed: for this thread; another may publish once more, and nobody reads it
  writer_.Close();
}

void HotCache::OnErased(std::string_view text, uint32_t variant, uint64_t removals) {
  HotKey key = writer_.KeyOf(text, variant);
  const MutexLock lock(mutex_);
  uint64_t& removed_at = removed_at_[key.tag() % kFences];
  removed_at = std::max(removed_at, removals);
  static_cast<void>(SUTRA_CHECKPOINT("hot.fenced"));
  if (text.size() > kHotTextBytesMax) return;
  const uint32_t slot = writer_.Find(&key);
  if (slot == HotWriter::kNoSlot) return;
  writer_.Remove(slot);
  Free(slot);
  Add(&removed_, 1);
}

void HotCache::OnManyErased(uint64_t removals) {
  const MutexLock lock(mutex_);
  all_removed_at_ = std::max(all_removed_at_, removals);
  static_cast<void>(SUTRA_CHECKPOINT("hot.fenced"));
  writer_.Clear();
  for (uint32_t slot = fresh_; slot-- > 0;) {
    if (states_[slot] == kFree) continue;
    Free(slot);
    Add(&removed_, 1);
  }
}

HotCache::Figures HotCache::figures() const {
  return {.slots = slots(),
          .used = used_.load(kRelaxed),
          .published = published_.load(kRelaxed),
          .evicted = evicted_.load(kRelaxed),
          .removed = removed_.load(kRelaxed)};
}

}  // namespace sutra
