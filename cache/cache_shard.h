// The cache shard: an exact store of embeddings in front of a write-ahead log. One shard serves one model identity and
// lives in one directory, DATA/<16 hex>/.
//
// Invariants:
//  - A lookup answers only for exactly the bytes that were inserted (full text and variant compared), never a near
//    match.
//  - An entry is served from memory; after a start it is there at once, and its text and vector are read from the log
//    when it is asked for, or in their turn. The log makes it survive `kill -9` once it is written (within
//    `interval_us_max` or `interval_bytes_max`) and power loss once it is synced (within `sync_us_max`). See
//    WAL_FORMAT.md.
//  - A start finds the entries that were there, in the places where they were: nothing evicted returns, and what was
//    hot is there and still counts as hot.
//  - What has expired is out of memory within the hour, whether anybody asks for it or not.
//  - Bounds on entries and bytes hold at all times; the log is bounded by `wal_bytes_max` and recycles its segments.
// The store and the log assert their parts of these; tests/sim and tests/cache check what a crash leaves behind.
// Thread-safe: every call may come from any thread, those of CacheAdmin from one at a time. No call waits for the disk
// except Erase, Sync, Open, Lookup of an entry that is still to be read, and those of CacheAdmin.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "cache/cache_admin.h"
#include "cache/store/cache_value.h"
#include "cache/wal/durability.h"
#include "cache/wal/wal_limits.h"
#include "shm/base/log_line.h"
#include "shm/base/status.h"

namespace sutra {

class DiskIo;
class Clock;

// Bounds and defaults of a shard's configuration; those of its log are in wal_limits.h.
inline constexpr uint32_t kCacheWidthMax = 65'536;
inline constexpr uint64_t kCacheEntriesDefault = 1'000'000;
inline constexpr uint64_t kCacheBytesMin = 64ull << 10;
inline constexpr uint64_t kCacheBytesDefault = 2ull << 30;
inline constexpr uint64_t kTtlSecondsDefault = 86'400;
inline constexpr uint64_t kTtlSecondsMax = 10ull * 365 * 86'400;  // the longest lifetime of an entry: ten years

struct CacheConfig {
  std::string directory;       // DATA; the shard's own subdirectory is named after `model_identity`
  std::string model_identity;  // 64 hex digits; the first 16 name the subdirectory
  std::string model_name;      // for messages only
  uint32_t width = 0;          // floats per vector, at most kCacheWidthMax
  uint64_t entries_max = kCacheEntriesDefault;
  uint64_t bytes_max = kCacheBytesDefault;  // texts, vectors and their overhead in memory
  uint64_t ttl_s_default = kTtlSecondsDefault;
  DurabilityPolicy policy = DurabilityPolicy::kInterval;
  uint64_t wal_bytes_max = kWalBytesDefault;  // at least kWalSegmentsMin segments
  uint64_t wal_segment_bytes = kSegmentBytesDefault;
  uint64_t interval_us_max = kIntervalUsDefault;
  uint64_t interval_bytes_max = kIntervalBytesDefault;
  uint64_t sync_us_max = kSyncUsDefault;
  bool strict_recovery = false;         // refuse to open a damaged log instead of quarantining it
  RemovalObserver* observer = nullptr;  // told of removals; null: nobody is
  LogLine log;
};

struct CacheStats {
  uint64_t entries = 0, bytes = 0, evictions = 0, expirations = 0;
  uint64_t unread_entries = 0;  // of `entries`: found at the start, and still to be read from the log
  uint64_t wal_appends = 0, wal_bytes = 0, wal_syncs = 0, wal_segments = 0, wal_dropped_inserts = 0;
  uint64_t wal_evictions = 0;            // of `evictions`: because the log was at its bound
  uint64_t wal_pending_records = 0;      // accepted, not yet written
  uint64_t wal_oldest_unwritten_us = 0;  // age of the oldest accepted record not yet written
  uint64_t wal_oldest_unsynced_us = 0;   // age of the oldest written record not yet synced
  uint64_t recovered_records = 0, recovered_dropped = 0;
  uint64_t recovered_indexed = 0;  // segments whose index the start has read instead of their records
  uint64_t quarantined_segments =
      0;                        // damaged files in the directory after the start, those of earlier starts included
  bool storage_failed = false;  // the log is refusing records; lookups still work
  bool log_full = false;        // the disk is full: new inserts are not logged; lookups and removals still work
  const char* disk_io = "";     // "io_uring" or "posix"
};

class CacheShard : public CacheAdmin {
 public:
  static constexpr uint64_t kRemovalsAllSeen = UINT64_MAX;

  // Recovers what the directory holds (the caller holds the lock on DATA), opens a new segment and starts the log's
  // committer thread. `io` and `clock` must outlive the shard. An error names the path, the cause and the fix. A full
  // disk is none: the shard then serves without its log (storage_failed), and takes it up when there is room.
  static Result<std::unique_ptr<CacheShard>> Open(const CacheConfig& config, DiskIo* io, Clock* clock);

  virtual ~CacheShard() = default;  // closes

  // Writes and syncs what is pending (except with policy none), ends the log's thread and closes its files: nothing of
  // this shard touches the disk afterwards, so the lock on DATA may be released before the memory is. REQUIRES: no
  // other call is under way, and none follows but Stats and the end.
  virtual void Close() = 0;

  // Copies the vector (`width` floats) and its value out and returns true on an exact, unexpired match.
  // `variant` distinguishes options that change the vector (0 = no such option).
  virtual bool Lookup(std::string_view text, uint32_t variant, float* vector, CacheValue* value) = 0;
  // The same without waiting: nothing if another thread is in the middle of changing this entry, or others around it,
  // for longer than that takes, or if the entry is still to be read from the log: it
  // is read next, and a miss if that fails or takes long.
  virtual std::optional<bool> TryLookup(std::string_view text, uint32_t variant, float* vector, CacheValue* value) = 0;

  // Counts as a hit of the entry that a lookup has named, if it is still there: somebody was answered from a copy of
  // it. Takes no lock.
  virtual void Touch(const CacheHandle& handle) = 0;

  // Stores or replaces; never waits for the disk. ttl_s 0 = the default; one above kTtlSecondsMax is shortened
  // to it. If the log's queue is full, the log record is dropped and counted; the entry still serves from memory.
  // Stores nothing if the text may have been removed since Removals() was `removals_seen`.
  virtual void Insert(std::string_view text, uint32_t variant, std::span<const float> vector, const CacheValue& value,
                      uint64_t ttl_s, uint64_t removals_seen = kRemovalsAllSeen) = 0;

  // How many removals there were. Whoever remembers the number from before it computes a vector and hands it to Insert
  // brings back nothing that is removed meanwhile. Takes no lock.
  virtual uint64_t Removals() const = 0;
  // Removes an entry; returns when the removal is observed, and durable (as under policy group), or kStorageError. kOk
  // if absent.
  virtual Status Erase(std::string_view text, uint32_t variant) = 0;

  // Returns when everything accepted before the call is written and synced; kStorageError if it cannot be, or if
  // something that the log had accepted was lost since the last Sync that said so (inserts that the log did not accept
  // are counted in wal_dropped_inserts and not reported here).
  virtual Status Sync() = 0;

  // The shard's files are no longer where the next start will look for them (or are again): while that lasts nothing is
  // accepted for the log, as after a failure of the disk, and Erase and Sync are kStorageError. Lookups go on.
  virtual void SetStorageLost(bool lost) = 0;

  virtual CacheStats Stats() const = 0;
};

}  // namespace sutra
