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
    entries_[{std::string(text), variant}] = {{vector.begin(), vector.end()}, value, ttl_s, removals_seen};
  }
  Status Erase(std::string_view text, uint32_t variant) override {
    const MutexLock lock(mutex_);
    entries_.erase({std::string(text), variant});
    return {};
  }
  uint64_t Removals() const override { return removals.load(); }
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
  Mutex mutex_;
  std::map<std::pair<std::string, uint32_t>, Entry> entries_ SUTRA_GUARDED_BY(mutex_);
  int inserts_ SUTRA_GUARDED_BY(mutex_) = 0;
  std::string busy_ SUTRA_GUARDED_BY(mutex_);
};

}  // namespace sutra::testing
