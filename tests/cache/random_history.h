// Random histories of a shard whose store is always full: inserts of skewed keys, hits, replacements with other
// lifetimes, removals, texts of very different lengths, time that passes. The log's bound is twice the memory's, as in
// the defaults, and the log goes round several times.
//
// Thread rule: Step may run on several threads with a random source each, as long as each thread has keys of its own
// to remove and replace (`first`, `count`); the rest belongs to one thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <random>
#include <shared_mutex>
#include <string>
#include <vector>

#include "tests/cache/entry_set.h"
#include "tests/sim/manual_clock.h"

namespace sutra::test {

class RandomHistory {
 public:
  static constexpr uint64_t kKeys = 1500;

  explicit RandomHistory(uint64_t seed) : random_(seed) {
    config_ = SmallConfig("/data");
    const bool long_texts = Random(3) == 0;
    by_count_ = Random(2) == 0;
    config_.wal_segment_bytes = long_texts ? 240 << 10 : 64 << 10;
    config_.wal_bytes_max = (long_texts ? 24 : 32) * config_.wal_segment_bytes;
    config_.bytes_max = config_.wal_bytes_max / 2;
    config_.interval_bytes_max = 32 << 10;
    config_.entries_max = by_count_ ? 40 + Random(200) : 10'000;
    const DurabilityPolicy policies[] = {DurabilityPolicy::kInterval, DurabilityPolicy::kInterval,
                                         DurabilityPolicy::kGroup, DurabilityPolicy::kSync};
    config_.policy = policies[Random(4)];
    for (uint64_t i = 0; i < kKeys; ++i) keys_.push_back(MakeKey(i, long_texts));
  }

  // A log with so few segments that it has to evict, too.
  void TightenLog() {
    config_.bytes_max = (config_.wal_segment_bytes > 64 << 10 ? 4 : 6) * config_.wal_segment_bytes;
    config_.wal_bytes_max = 2 * config_.bytes_max;
    config_.interval_bytes_max = kIntervalBytesDefault;
  }

  // No entry is evicted any more.
  void MakeRoom() {
    by_count_ = false;
    config_.entries_max = 10'000;
    config_.bytes_max = 64 << 20;
    config_.wal_bytes_max = 6 << 20;
  }

  CacheConfig& config() { return config_; }
  sim::ManualClock& clock() { return clock_; }
  const std::vector<TextKey>& keys() const { return keys_; }
  std::mt19937_64& random() { return random_; }
  bool by_count() const { return by_count_; }
  uint64_t Random(uint64_t below) { return RandomFrom(&random_, below); }

  // One call or a little time. Keys from `first` on, `count` of them.
  void Step(CacheShard* shard, std::mt19937_64* random, uint64_t first = 0, uint64_t count = kKeys) {
    const uint64_t number = first + Skewed(random, count);
    const TextKey& key = keys_[number];
    const uint64_t kind = RandomFrom(random, 100);
    Answer answer;
    if (kind < 55) {
      Insert(shard, number, random);
    } else if (kind < 88) {
      // As the engine does: what is not there is computed and stored.
      if (!Ask(shard, key, &answer)) Insert(shard, number, random);
    } else if (kind < 93) {
      erase_failed_ = erase_failed_ || !shard->Erase(key.first, key.second).ok();
    } else {
      const uint64_t pass = RandomFrom(random, 400);
      const std::unique_lock<std::shared_mutex> no_insert_is_under_way(time_);
      clock_.Advance((pass == 0   ? 3600 * 1000
                      : pass < 20 ? RandomFrom(random, 5000)
                                  : RandomFrom(random, 60)) *
                     1'000'000);
    }
  }

  // What is left of `entries` at this time, if one thread made the history.
  EntrySet Unexpired(const EntrySet& entries) const {
    EntrySet left;
    for (size_t i = 0; i < keys_.size(); ++i) {
      const auto found = entries.find(keys_[i]);
      if (found != entries.end() && expires_ns_[i] > clock_.BootNs()) left.insert(*found);
    }
    return left;
  }

  // "" or why the history is not what it should be.
  std::string CheckCalls() const { return erase_failed_ ? "a removal was not confirmed" : ""; }

  // "" or an answer that was never stored under its key.
  static std::string CheckAnswers(const EntrySet& entries) {
    for (const auto& [key, answer] : entries) {
      if (!(answer == AnswerOf(key, static_cast<uint32_t>(answer.norm)))) {
        return "\"" + key.first.substr(0, 12) + "\" answers with what was never stored";
      }
    }
    return "";
  }

  static Answer AnswerOf(const TextKey& key, uint32_t version) {
    return Answer{VectorOf(key.first + std::to_string(key.second), version), static_cast<float>(version),
                  1 + version * 37 % 512, version % 5 == 0};
  }

 private:
  static constexpr uint32_t kVersions = 1 << 20;  // a float tells them apart

  static uint64_t RandomFrom(std::mt19937_64* random, uint64_t below) {
    return std::uniform_int_distribution<uint64_t>(0, below - 1)(*random);
  }
  // Small numbers far more often than large ones.
  static uint64_t Skewed(std::mt19937_64* random, uint64_t count) {
    const double x = static_cast<double>(RandomFrom(random, 1 << 20)) / (1 << 20);
    return static_cast<uint64_t>(x * x * x * static_cast<double>(count));
  }

  TextKey MakeKey(uint64_t number, bool long_texts) {
    const uint64_t kind = Random(40);
    uint64_t bytes = Random(90);
    if (kind < 10) bytes = Random(3000);
    if (kind < 2) bytes = 8000 + Random(16'000);
    if (kind == 0 && long_texts) bytes = 60'000 + Random(50'000);  // beside EntryStore's limit for long texts
    return {std::to_string(number) + " " + std::string(bytes, static_cast<char>('a' + number % 26)),
            number % 7 == 0 ? 1u : 0u};
  }

  void Insert(CacheShard* shard, uint64_t number, std::mt19937_64* random) {
    const TextKey& key = keys_[number];
    const auto version = static_cast<uint32_t>(1 + RandomFrom(random, kVersions));
    const uint64_t lives[] = {0, 0, 0, 1, 3, 10, 600, 5400};  // 0: a day
    const uint64_t ttl_s = lives[RandomFrom(random, 8)];
    const Answer answer = AnswerOf(key, version);
    // An insert reads two clocks: an hour that passes between the two readings would be a difference of an hour between
    // memory and log.
    const std::shared_lock<std::shared_mutex> no_time_passes(time_);
    expires_ns_[number] = clock_.BootNs() + (ttl_s == 0 ? kTtlSecondsDefault : ttl_s) * 1'000'000'000;
    shard->Insert(key.first, key.second, answer.vector, CacheValue{answer.norm, answer.tokens, answer.truncated},
                  ttl_s);
  }

  std::mt19937_64 random_;
  std::shared_mutex time_;  // held alone while time passes
  sim::ManualClock clock_;
  CacheConfig config_;
  bool by_count_ = false;
  std::vector<TextKey> keys_;
  std::vector<uint64_t> expires_ns_ = std::vector<uint64_t>(kKeys);  // by key, on the boot clock
  std::atomic<bool> erase_failed_{false};
};

}  // namespace sutra::test
