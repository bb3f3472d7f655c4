// A cache shard for tests of the engine: a map, with what was asked and stored kept for inspection. Thread-safe.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cache/cache_shard.h"
#include "shm/base/mutex.h"
#include "shm/base/time.h"

namespace sutra::testing {

class MemoryCache : public CacheShard {
 public:
  struct Entry {
    std::vector<float> vector;
    CacheValue value;
    uint64_t ttl_s = 0;
    uint64_t removals_seen = 0;
  };

  bool Lookup(std::string_view text, uint32_t variant, float* vector, CacheValue* value) override {
    if (on_lookup) on_lookup(text);
    MutexLock lock(mutex_);
    const auto found = entries_.find({std::string(text), variant});
    if (found == entries_.end()) {
      lock.Unlock();
      if (after_lookup) after_lookup(text);
      return false;
    }
    std::copy(found->second.vector.begin(), found->second.vector.end(), vector);
    *value = found->second.value;
    return true;
  }
  std::optional<bool> TryLookup(std::string_view text, uint32_t variant, float* vector, CacheValue* value) override {
    MutexLock lock(mutex_);
    if (text == busy_) return std::nullopt;
    lock.Unlock();
    return Lookup(text, variant, vector, value);
  }
  // Lookups of this text find a lock that another thread holds.
  void SetBusy(std::string text) {
    const MutexLock lock(mutex_);
    busy_ = std::move(text);
  }
  void Insert(std::string_view text, uint32_t variant, std::span<const float> vector, const CacheValue& value,
              uint64_t ttl_s, uint64_t removals_seen = kRemovalsAllSeen) override {
    if (on_insert) on_insert();
    const MutexLock lock(mutex_);
    ++inserts_;
    Entry& entry = entries_[{std::string(text), variant}];
    entry = {{vector.begin(), vector.end()}, value, ttl_s, removals_seen};
    entry.value.expires_ns = BootNs() + ttl_s * kNsPerSecond;
  }
  Status Erase(std::string_view text, uint32_t variant) override {
    const MutexLock lock(mutex_);
    entries_.erase({std::string(text), variant});
    return {};
  }
  uint64_t Removals() const override { return removals.load(); }
  void Touch(const CacheHandle&) override { ++touches; }
  std::atomic<uint64_t> touches{0};

  Result<Preview> PreviewRemoval(const CacheFilter& filter, const GoOn&) override {
    const MutexLock lock(mutex_);
    if (!filter.any()) return Status(StatusCode::kBadOption, "no condition");
    filter_ = filter;
    Preview preview;
    preview.token = ++token_;
    preview.examined = entries_.size();
    for (const auto& [key, entry] : entries_) preview.entries += Matches(filter, key.first);
    return preview;
  }
  Result<Removal> CommitRemoval(uint64_t token, const GoOn&) override {
    const MutexLock lock(mutex_);
    if (token == 0 || token != token_) return Status(StatusCode::kBadOption, "no such preview");
    ++token_;
    ++removals;
    Removal removal;
    removal.entries = std::erase_if(entries_, [&](const auto& item) { return Matches(filter_, item.first.first); });
    return removal;
  }
  Result<bool> Visit(Which, uint64_t* cursor, const std::function<bool(const CacheEntry&)>& visit) override {
    const MutexLock lock(mutex_);
    uint64_t number = 0;
    for (const auto& [key, entry] : entries_) {
      if (number++ < *cursor) continue;
      *cursor = number;
      if (!visit(EntryOf(key, entry))) return false;
    }
    return true;
  }
  Result<CacheEntry> Get(std::string_view text, uint32_t variant) override {
    const MutexLock lock(mutex_);
    const auto found = entries_.find({std::string(text), variant});
    if (found == entries_.end()) return Status(StatusCode::kBadOption, "not cached");
    return EntryOf(found->first, found->second);
  }
  Result<Compaction> Compact(const GoOn&) override { return Compaction{}; }
  std::atomic<uint64_t> removals{0};
  Status Sync() override { return {}; }
  void Close() override {}
  void SetStorageLost(bool) override {}
  CacheStats Stats() const override { return {}; }

  std::function<void(std::string_view)> on_lookup;     // what happens before a lookup; set it before the loop starts
  std::function<void(std::string_view)> after_lookup;  // what happens after a lookup that found nothing; likewise
  std::function<void()> on_insert;  // what happens while a result is being stored; set it before the worker starts

  Entry Get(const std::string& text) {
    const MutexLock lock(mutex_);
    return entries_[{text, 0}];
  }
  int inserts() {
    const MutexLock lock(mutex_);
    return inserts_;
  }

 private:
  using Key = std::pair<std::string, uint32_t>;
  static bool Matches(const CacheFilter& filter, const std::string& text) {
    return filter.everything || (!filter.contains.empty() && text.find(filter.contains) != std::string::npos);
  }
  static CacheEntry EntryOf(const Key& key, const Entry& entry) {
    CacheEntry copy;
    copy.text = key.first;
    copy.variant = key.second;
    copy.vector = entry.vector;
    copy.value = entry.value;
    copy.left_s = entry.ttl_s;
    return copy;
  }

  Mutex mutex_;
  CacheFilter filter_ SUTRA_GUARDED_BY(mutex_);  // of the last preview
  uint64_t token_ SUTRA_GUARDED_BY(mutex_) = 0;
  std::map<Key, Entry> entries_ SUTRA_GUARDED_BY(mutex_);
  int inserts_ SUTRA_GUARDED_BY(mutex_) = 0;
  std::string busy_ SUTRA_GUARDED_BY(mutex_);
};

}  // namespace sutra::testing
