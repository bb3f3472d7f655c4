// One condition per member, in the order of CacheConfig; those of the log are checked only where there is a log.
#include "cache/config_check.h"

#include <string>

#include "cache/wal/wal_format.h"

namespace sutra {
namespace {

Status BadOption(const std::string& message) { return Status(StatusCode::kBadOption, "cache: " + message); }

}  // namespace

Status CheckConfig(const CacheConfig& config) {
  if (config.width == 0 || config.width > kCacheWidthMax) {
    return BadOption("width " + std::to_string(config.width) + " is not within 1.." + std::to_string(kCacheWidthMax));
  }
  ModelIdentity identity;
  if (!ParseIdentity(config.model_identity, &identity)) return BadOption("model_identity is not 64 hex digits");
  if (config.entries_max == 0) return BadOption("entries_max is 0");
  if (config.bytes_max < kCacheBytesMin) return BadOption("bytes_max is below " + std::to_string(kCacheBytesMin));
  if (config.ttl_s_default == 0 || config.ttl_s_default > kTtlSecondsMax) {
    return BadOption("ttl_s_default is not within 1.." + std::to_string(kTtlSecondsMax));
  }
  if (config.policy == DurabilityPolicy::kNone) return {};
  if (config.directory.empty()) return BadOption("no data directory given");
  if (config.wal_segment_bytes < kSegmentBytesMin || config.wal_segment_bytes > kSegmentBytesMax ||
      config.wal_segment_bytes % kWalBlockBytes != 0) {
    return BadOption("wal_segment_bytes is not a multiple of " + std::to_string(kWalBlockBytes) + " within " +
                     std::to_string(kSegmentBytesMin) + ".." + std::to_string(kSegmentBytesMax));
  }
  if (config.wal_bytes_max / kWalSegmentsMin < config.wal_segment_bytes) {
    return BadOption("wal_bytes_max is below four segments (" +
                     std::to_string(kWalSegmentsMin * config.wal_segment_bytes) + ")");
  }
  if (config.interval_us_max > kIntervalUsMax || config.sync_us_max > kSyncUsMax) {
    return BadOption("interval_us_max or sync_us_max is over 10 s or 60 s");
  }
  return {};
}

}  // namespace sutra
