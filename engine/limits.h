// The range and the default of every number that an operator may set, one line per option. Limits of other folders
// (layout, cache, model) are defined there and named here. config.cc checks them once; no other code does.
#pragma once

#include <cstdint>

#include "cache/cache_shard.h"
#include "engine/model/compute_options.h"
#include "shm/hot_table.h"
#include "shm/layout.h"

namespace sutra {

template <typename T>
struct OptionRange {
  T low;
  T otherwise;  // when the option is not given
  T high;
};

inline constexpr uint64_t kMebibyte = 1ull << 20;
inline constexpr uint64_t kTebibyte = 1ull << 40;

// Model.
inline constexpr OptionRange<uint32_t> kFakeWidthRange = {1, 384, kWidthMax};
inline constexpr OptionRange<uint32_t> kThreadsRange = {1, 1, kThreadsMax};         // the default follows the host
inline constexpr OptionRange<uint32_t> kCoreGroupsRange = {0, 0, kCoreGroupsMax};   // 0: by last-level cache
inline constexpr OptionRange<double> kInt8CosineMinRange = {0, kInt8CosineMin, 1};  // 0: any

// Lanes.
inline constexpr OptionRange<uint32_t> kLanesRange = {1, 256, 4096};
inline constexpr OptionRange<uint32_t> kLanesPerUidRange = {0, 0, 4096};  // 0: derived (lane_limits.cc)
inline constexpr OptionRange<uint32_t> kLanesPerClientRange = {1, 64, 4096};
inline constexpr OptionRange<uint32_t> kAttachRateRange = {1, 200, 1'000'000};
inline constexpr OptionRange<uint64_t> kLaneBytesRange = {kMebibyte, 8ull << 30, 16 * kTebibyte};
inline constexpr OptionRange<uint64_t> kLaneBytesShareRange = {0, 0, 16 * kTebibyte};  // 0: derived
inline constexpr OptionRange<uint32_t> kSlotsRange = {kSlotsMin, kSlotsDefault, kSlotsMax};
inline constexpr OptionRange<uint32_t> kTextBytesRange = {kTextHeadBytes, kTextBytesMaxDefault, kTextBytesMaxLimit};

// Cache. The shard itself accepts less than these lower bounds, which are what is useful for an engine.
inline constexpr OptionRange<uint64_t> kCacheEntriesRange = {1, kCacheEntriesDefault, 1ull << 32};
inline constexpr OptionRange<uint64_t> kCacheBytesRange = {kMebibyte, kCacheBytesDefault, 16 * kTebibyte};
inline constexpr OptionRange<uint64_t> kTtlSecondsRange = {1, kTtlSecondsDefault, kTtlSecondsMax};
inline constexpr OptionRange<uint64_t> kWalBytesRange = {kMebibyte, kWalBytesDefault, 16 * kTebibyte};
inline constexpr OptionRange<uint64_t> kDataBytesRange = {0, 0, 16 * kTebibyte};  // 0: twice --wal-bytes-max
inline constexpr OptionRange<uint64_t> kSegmentBytesRange = {kSegmentBytesMin, kSegmentBytesDefault, kSegmentBytesMax};
inline constexpr OptionRange<uint64_t> kHotBytesRange = {0, kHotBytesDefault, kHotBytesMax};  // 0: no table
static_assert(kCacheBytesRange.low >= kCacheBytesMin && kWalBytesRange.low >= kWalSegmentsMin * kSegmentBytesMin);
static_assert(kFakeWidthRange.high <= kCacheWidthMax);

// Scheduling.
inline constexpr OptionRange<uint32_t> kBatchTokensRange = {16, 4096, 1 << 20};
inline constexpr OptionRange<uint32_t> kQueueTextsRange = {1, 65'536, 1 << 24};
inline constexpr OptionRange<uint64_t> kQueueBytesRange = {kMebibyte, 256 * kMebibyte, kTebibyte};
inline constexpr OptionRange<uint32_t> kSpinUsRange = {0, 50, 1'000'000};
inline constexpr OptionRange<uint32_t> kDrainSecondsRange = {0, 30, 3600};

// Commands to a live engine.
inline constexpr OptionRange<uint32_t> kWaitSecondsRange = {1, 60, 86'400};

}  // namespace sutra
