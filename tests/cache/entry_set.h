// The set of entries that a shard answers, taken from outside by looking up every key, and how two such sets differ.
// One thread.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/cache/cache_test_support.h"

namespace sutra::test {

using TextKey = std::pair<std::string, uint32_t>;  // text and variant

struct Answer {
  std::vector<float> vector;
  float norm = 0;
  uint32_t tokens = 0;
  bool truncated = false;
  bool operator==(const Answer&) const = default;
};

using EntrySet = std::map<TextKey, Answer>;

// Looks `key` up; true on a hit.
inline bool Ask(CacheShard* shard, const TextKey& key, Answer* answer) {
  CacheValue value;
  answer->vector.assign(kWidth, 0);
  if (!shard->Lookup(key.first, key.second, answer->vector.data(), &value)) return false;
  answer->norm = value.norm;
  answer->tokens = value.token_count;
  answer->truncated = value.truncated;
  return true;
}

// What the shard answers to each of `keys`.
template <typename Keys>
EntrySet EntriesOf(CacheShard* shard, const Keys& keys) {
  EntrySet entries;
  Answer answer;
  for (const TextKey& key : keys) {
    if (Ask(shard, key, &answer)) entries.emplace(key, answer);
  }
  return entries;
}

// How `after` differs from `before`: entries that are missing, that came back, that answer otherwise.
struct Difference {
  uint64_t missing = 0, returned = 0, changed = 0;
  std::string first;  // one of each kind

  bool none() const { return missing + returned + changed == 0; }
  std::string Text() const {
    if (none()) return "";
    return std::to_string(missing) + " missing, " + std::to_string(returned) + " returned, " + std::to_string(changed) +
           " changed:" + first;
  }
};

inline Difference Compare(const EntrySet& before, const EntrySet& after) {
  Difference difference;
  const auto note = [&](uint64_t* count, const char* what, const TextKey& key) {
    if (++*count == 1) {
      difference.first += std::string(" ") + what + " \"" + key.first.substr(0, 12) + "\" (" +
                          std::to_string(key.first.size()) + " bytes) variant " + std::to_string(key.second);
    }
  };
  for (const auto& [key, answer] : before) {
    const auto found = after.find(key);
    if (found == after.end()) {
      note(&difference.missing, "missing", key);
    } else if (!(found->second == answer)) {
      note(&difference.changed, "changed", key);
    }
  }
  for (const auto& [key, answer] : after) {
    if (before.count(key) == 0) note(&difference.returned, "returned", key);
  }
  return difference;
}

// Whether `entries` lies between two sets: each entry is one of theirs, and what both have is there.
inline bool IsBetween(const EntrySet& entries, const EntrySet& one, const EntrySet& other) {
  const auto has = [](const EntrySet& set, const auto& entry) {
    const auto found = set.find(entry.first);
    return found != set.end() && found->second == entry.second;
  };
  for (const auto& entry : entries) {
    if (!has(one, entry) && !has(other, entry)) return false;
  }
  for (const auto& entry : one) {
    if (has(other, entry) && !has(entries, entry)) return false;
  }
  return true;
}

}  // namespace sutra::test
