// What a child that uses a cache shard tells its parent through a shared file that survives the child's death: every
// change before it is attempted, what became of it, and what was promised. Also what both must agree on: the keys and
// the configuration.
//
// Thread rule: one thread of one process appends; another process reads after the death of the first.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <span>
#include <string>

#include "tests/cache/cache_test_support.h"

namespace sutra::test {

enum class KillEvent : uint8_t {
  kFound = 1,  // a start found KEY with VERSION
  kReady,      // that was all it found; changes begin
  kPut,        // about to insert
  kErase,      // about to remove
  kEraseAlso,  // the same call removes this key, too; told before it begins
  kEvicted,    // KEY is no longer there, and nobody removed it; VERSION: so many were evicted by the log until now
  kDone,       // the call under way has returned, and the evictions that it caused are told
  kConfirmed,  // everything so far is durable: a removal or Sync has said so
  kWritten,    // everything so far is written: nothing is pending
  kWrong,      // a lookup gave a vector that was never stored for KEY
};

struct KillRecord {
  KillEvent event = {};
  uint16_t key = 0;
  uint32_t version = 0;
  uint64_t ns = 0;  // CLOCK_MONOTONIC
};
static_assert(sizeof(KillRecord) == 16);

class KillJournal {
 public:
  static constexpr size_t kRecordsMax = 200'000;

  // Creates the file anew, or opens it.
  KillJournal(const std::string& path, bool create) {
    const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_TRUNC : 0), 0600);
    if (fd >= 0 && (!create || ftruncate(fd, sizeof(Shared)) == 0)) {
      void* const memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
      shared_ = memory == MAP_FAILED ? nullptr : static_cast<Shared*>(memory);
    }
    if (fd >= 0) close(fd);
  }
  ~KillJournal() {
    if (shared_ != nullptr) munmap(shared_, sizeof(Shared));
  }
  KillJournal(const KillJournal&) = delete;
  KillJournal& operator=(const KillJournal&) = delete;

  bool open_ok() const { return shared_ != nullptr; }
  bool full() const { return shared_->count.load(std::memory_order_relaxed) == kRecordsMax; }
  void Append(const KillRecord& record) {
    const uint64_t at = shared_->count.load(std::memory_order_relaxed);  // relaxed: one thread appends
    if (at == kRecordsMax) return;
    shared_->records[at] = record;
    shared_->count.store(at + 1, std::memory_order_release);
  }
  std::span<const KillRecord> records() const {
    return {shared_->records, shared_->count.load(std::memory_order_acquire)};
  }

 private:
  struct Shared {
    std::atomic<uint64_t> count;
    KillRecord records[kRecordsMax];
  };
  Shared* shared_ = nullptr;
};

// The shard of a run: its keys, short ones and some that take the room of many.
inline constexpr uint16_t kKillKeys = 160;
inline std::string KillKey(uint16_t number) {
  const size_t bytes = number % 16 == 0 ? 6000 : number % 4 == 0 ? 700 : number % 50;
  return "key " + std::to_string(number) + " " + std::string(bytes, 'k');
}

inline CacheConfig KillConfig(const std::string& directory, bool full_store, uint64_t seed) {
  CacheConfig config = SmallConfig(directory);
  config.bytes_max = full_store ? 96 << 10 : 1 << 20;
  if (full_store && seed % 2 == 0) config.entries_max = 60;
  // Enough for the log to evict nothing, although each start takes a segment: such an eviction is not one of the
  // store's, and takes effect when the segment is removed.
  config.wal_bytes_max = 3 << 20;
  config.sync_us_max = 200'000;
  if (seed % 5 == 0) config.policy = DurabilityPolicy::kGroup;
  return config;
}

}  // namespace sutra::test
