#include "shm/stats/labels.h"

#include <gtest/gtest.h>

#include <cctype>
#include <set>
#include <span>
#include <string>

#include "shm/stats/stats_layout.h"
#include "shm/stats/stats_reader.h"
#include "tests/shm/stats/stats_fixture.h"

namespace sutra {
namespace {

using LabelsTest = test::StatsFixture;

// Tools and people select by label: each fits its field with its zero, is a plain word and stands once in its table.
TEST(Labels, AreUniqueWordsThatFitTheirFields) {
  for (const std::span<const char* const> table :
       {std::span<const char* const>(kCounterLabels), std::span<const char* const>(kGaugeLabels),
        std::span<const char* const>(kHistogramLabels)}) {
    std::set<std::string> seen;
    for (const std::string label : table) {
      EXPECT_FALSE(label.empty());
      EXPECT_LT(label.size(), sizeof(StatsLabel::text)) << label;
      EXPECT_TRUE(seen.insert(label).second) << label;
      for (const char c : label) EXPECT_TRUE(std::islower(c) || std::isdigit(c) || c == '_') << label;
    }
  }
}

TEST_F(LabelsTest, EveryEnumeratorFindsItsOwnValue) {
  auto segment = Create();
  const StatsWriter writer = segment->writer();
  for (uint32_t i = 0; i < static_cast<uint32_t>(Counter::kCount); ++i) writer.Add(static_cast<Counter>(i), 1000 + i);
  for (uint32_t i = 0; i < static_cast<uint32_t>(Gauge::kCount); ++i) writer.Set(static_cast<Gauge>(i), 2000 + i);
  for (uint32_t i = 0; i < static_cast<uint32_t>(Histogram::kCount); ++i) {
    writer.Record(static_cast<Histogram>(i), 3000 + i);
  }
  const StatsSnapshot snapshot = ParseStats(Bytes(*segment)).value();
  for (uint32_t i = 0; i < static_cast<uint32_t>(Counter::kCount); ++i) {
    EXPECT_EQ(snapshot.counter(static_cast<Counter>(i)), 1000 + i);
  }
  for (uint32_t i = 0; i < static_cast<uint32_t>(Gauge::kCount); ++i) {
    EXPECT_EQ(snapshot.gauge(static_cast<Gauge>(i)), 2000 + i);
  }
  for (uint32_t i = 0; i < static_cast<uint32_t>(Histogram::kCount); ++i) {
    EXPECT_EQ(snapshot.histogram(static_cast<Histogram>(i)).sum, 3000 + i);
  }
}

}  // namespace
}  // namespace sutra
