// How large the log and its segments may be, and how long records may wait for the disk: the bounds and defaults of
// what the log's users choose. Plain constants.
#pragma once

#include <cstdint>

namespace sutra {

inline constexpr uint64_t kWalBlockBytes = 4096;  // unit of segments and groups

inline constexpr uint64_t kSegmentBytesMin = 64ull << 10;
inline constexpr uint64_t kSegmentBytesMax = 1ull << 30;
inline constexpr uint64_t kSegmentBytesDefault = 32ull << 20;

inline constexpr uint64_t kWalSegmentsMin = 4;  // the reserve and three with records
inline constexpr uint64_t kWalBytesDefault = 4ull << 30;

inline constexpr uint64_t kIntervalUsDefault = 50'000;  // an accepted record is written within
inline constexpr uint64_t kIntervalUsMax = 10'000'000;
inline constexpr uint64_t kIntervalBytesDefault = 1ull << 20;  // or when this many bytes wait
inline constexpr uint64_t kSyncUsDefault = 1'000'000;          // a written record is synced within
inline constexpr uint64_t kSyncUsMax = 60'000'000;

}  // namespace sutra
