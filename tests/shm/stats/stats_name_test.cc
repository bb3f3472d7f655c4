#include "shm/stats/stats_name.h"

#include <unistd.h>

#include "tests/shm/stats/stats_fixture.h"

namespace sutra {
namespace {

using StatsNameTest = test::StatsFixture;

TEST_F(StatsNameTest, NameDependsOnTheRealPathOnly) {
  const std::string link = directory_ / "link";
  ASSERT_EQ(symlink(directory_.path().c_str(), link.c_str()), 0);
  EXPECT_EQ(StatsSegmentName(link + "/engine.sock", 7).value(), StatsSegmentName(options_.socket_path, 7).value());
  EXPECT_NE(StatsSegmentName(link + "/other.sock", 7).value(), StatsSegmentName(options_.socket_path, 7).value());
  EXPECT_EQ(StatsSegmentName(options_.socket_path, 7)->rfind("sutra-stat.7.", 0), 0u);
}

}  // namespace
}  // namespace sutra
