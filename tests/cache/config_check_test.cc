// Every bound of a shard's configuration: the last value that is accepted, and the first that is refused, by name.
#include "cache/config_check.h"

#include <gtest/gtest.h>

#include "tests/cache/cache_test_support.h"

namespace sutra {
namespace {

Status Check(const std::function<void(CacheConfig*)>& change) {
  CacheConfig config = test::SmallConfig("/data");
  change(&config);
  return CheckConfig(config);
}
testing::AssertionResult Refused(const Status& status, const std::string& name) {
  if (status.code() != StatusCode::kBadOption) return testing::AssertionFailure() << "it was taken";
  if (status.message().find("cache: " + name) == std::string::npos)
    return testing::AssertionFailure() << status.message();
  return testing::AssertionSuccess();
}

TEST(CheckConfig, TakesTheDefaultsAndEveryBoundItself) {
  CacheConfig config;
  config.directory = "/data";
  config.model_identity = test::kIdentity;
  config.width = 1;
  EXPECT_TRUE(CheckConfig(config).ok()) << CheckConfig(config).message();
  EXPECT_TRUE(Check([](CacheConfig* c) { c->width = kCacheWidthMax; }).ok());
  EXPECT_TRUE(Check([](CacheConfig* c) { c->entries_max = 1; }).ok());
  EXPECT_TRUE(Check([](CacheConfig* c) { c->bytes_max = kCacheBytesMin; }).ok());
  EXPECT_TRUE(Check([](CacheConfig* c) { c->ttl_s_default = kTtlSecondsMax; }).ok());
  EXPECT_TRUE(Check([](CacheConfig* c) { c->wal_segment_bytes = kSegmentBytesMin; }).ok());
  EXPECT_TRUE(Check([](CacheConfig* c) {
                c->wal_segment_bytes = kSegmentBytesMax;
                c->wal_bytes_max = kWalSegmentsMin * kSegmentBytesMax;
              }).ok());
  EXPECT_TRUE(Check([](CacheConfig* c) { c->interval_us_max = kIntervalUsMax; }).ok());
  EXPECT_TRUE(Check([](CacheConfig* c) { c->sync_us_max = kSyncUsMax; }).ok());
}

TEST(CheckConfig, RefusesWhatLiesBeyondThem) {
  EXPECT_TRUE(Refused(Check([](CacheConfig* c) { c->width = 0; }), "width 0"));
  EXPECT_TRUE(Refused(Check([](CacheConfig* c) { c->width = kCacheWidthMax + 1; }), "width 65537"));
  EXPECT_TRUE(Refused(Check([](CacheConfig* c) { c->model_identity.pop_back(); }), "model_identity"));
  EXPECT_TRUE(Refused(Check([](CacheConfig* c) { c->model_identity[5] = 'G'; }), "model_identity"));
  EXPECT_TRUE(Refused(Check([](CacheConfig* c) { c->entries_max = 0; }), "entries_max"));
  EXPECT_TRUE(Refused(Check([](CacheConfig* c) { c->bytes_max = kCacheBytesMin - 1; }), "bytes_max is below 65536"));
  EXPECT_TRUE(Refused(Check([](CacheConfig* c) { c->ttl_s_default = 0; }), "ttl_s_default"));
  EXPECT_TRUE(Refused(Check([](CacheConfig* c) { c->ttl_s_default = kTtlSecondsMax + 1; }),
                      "ttl_s_default is not within 1..315360000"));
  EXPECT_TRUE(Refused(Check([](CacheConfig* c) { c->directory.clear(); }), "no data directory"));
  for (const uint64_t bytes : {kSegmentBytesMin - kWalBlockBytes, kSegmentBytesMin + 1, kSegmentBytesMax * 2}) {
    EXPECT_TRUE(Refused(Check([&](CacheConfig* c) {
                          c->wal_segment_bytes = bytes;
                          c->wal_bytes_max = 1ull << 40;
                        }),
                        "wal_segment_bytes is not a multiple of 4096 within 65536..1073741824"))
        << bytes;
  }
  EXPECT_TRUE(Refused(Check([](CacheConfig* c) { c->wal_bytes_max = kWalSegmentsMin * c->wal_segment_bytes - 1; }),
                      "wal_bytes_max is below four segments (262144)"));
  EXPECT_TRUE(Refused(Check([](CacheConfig* c) { c->interval_us_max = kIntervalUsMax + 1; }), "interval_us_max"));
  EXPECT_TRUE(
      Refused(Check([](CacheConfig* c) { c->sync_us_max = kSyncUsMax + 1; }), "interval_us_max or sync_us_max"));
}

TEST(CheckConfig, WithoutALogItsBoundsDoNotMatter) {
  EXPECT_TRUE(Check([](CacheConfig* c) {
                c->policy = DurabilityPolicy::kNone;
                c->directory.clear();
                c->wal_segment_bytes = 1;
                c->wal_bytes_max = 0;
                c->sync_us_max = UINT64_MAX;
              }).ok());
  EXPECT_TRUE(Refused(Check([](CacheConfig* c) {
                        c->policy = DurabilityPolicy::kNone;
                        c->width = 0;
                      }),
                      "width"));
}

}  // namespace
}  // namespace sutra
