// A shard whose files are no longer where the next start looks for them: nothing is called durable meanwhile.
#include <gtest/gtest.h>

#include "tests/cache/wal/log_fixture.h"

namespace sutra {
namespace {

using test::Inline;
using test::Put;
using test::SmallConfig;
using test::VersionOf;

TEST(LostStorage, WhileItLastsNothingIsLoggedAndLookupsGoOn) {
  sim::SimDisk disk;
  sim::ManualClock clock;
  const CacheConfig config = SmallConfig("/data");
  {
    Result<std::unique_ptr<LoggedShard>> opened = LoggedShard::Open(config, &disk, &clock, Inline());
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    LoggedShard* shard = opened->get();
    Put(shard, "before", 1);
    ASSERT_TRUE(shard->Sync().ok());

    shard->SetStorageLost(true);
    const CacheStats stats = shard->Stats();
    EXPECT_TRUE(stats.storage_failed);
    Put(shard, "meanwhile", 2);
    EXPECT_EQ(VersionOf(shard, "before"), 1);
    EXPECT_EQ(VersionOf(shard, "meanwhile"), 2);
    EXPECT_EQ(shard->Stats().wal_dropped_inserts, stats.wal_dropped_inserts + 1);
    EXPECT_EQ(shard->Sync().code(), StatusCode::kStorageError);
    EXPECT_EQ(shard->Erase("before", 0).code(), StatusCode::kStorageError);

    shard->SetStorageLost(false);
    EXPECT_FALSE(shard->Stats().storage_failed);
    Put(shard, "after", 3);
    EXPECT_TRUE(shard->Sync().ok());
  }
  Result<std::unique_ptr<LoggedShard>> again = LoggedShard::Open(config, &disk, &clock, Inline());
  ASSERT_TRUE(again.ok()) << again.status().message();
  EXPECT_EQ(VersionOf(again->get(), "after"), 3);
  EXPECT_NE(VersionOf(again->get(), "meanwhile"), 2);  // the canary: it was not logged
}

}  // namespace
}  // namespace sutra
