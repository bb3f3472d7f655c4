// Creating the segment: what observers find, and every start-up error.
#include "shm/stats/stats_segment.h"

#include <sys/stat.h>

#include <barrier>
#include <thread>
#include <vector>

#include "shm/stats/stats_name.h"
#include "shm/stats/stats_reader.h"
#include "tests/shm/stats/stats_fixture.h"

namespace sutra {
namespace {

using StatsSegmentTest = test::StatsFixture;

TEST_F(StatsSegmentTest, ObserverReadsWhatTheEngineWrote) {
  auto segment = Create();
  const StatsWriter writer = segment->writer();
  writer.Add(Counter::kTexts, 318);
  writer.Add(Counter::kTexts);
  writer.Set(Gauge::kWorkers, 2);
  writer.Record(Histogram::kHitTotal, 12'345);
  segment->SetDiskIo("io_uring");
  auto reader = StatsReader::OpenSocket(options_.socket_path);
  ASSERT_TRUE(reader.ok()) << reader.status().message();
  auto snapshot = reader->Snapshot();
  ASSERT_TRUE(snapshot.ok()) << snapshot.status().message();
  EXPECT_EQ(snapshot->counter("texts"), 319u);
  EXPECT_EQ(snapshot->counter("worker_busy_ns"), 0u);
  EXPECT_EQ(snapshot->counters.size(), static_cast<size_t>(Counter::kCount));
  EXPECT_EQ(snapshot->gauges.size(), static_cast<size_t>(Gauge::kCount));
  EXPECT_EQ(snapshot->histograms.size(), static_cast<size_t>(Histogram::kCount));
  EXPECT_EQ(snapshot->gauge("workers"), 2u);
  EXPECT_EQ(snapshot->histogram("hit_total_ns").count, 1u);
  EXPECT_EQ(snapshot->histogram("hit_total_ns").sum, 12'345u);
  EXPECT_EQ(snapshot->model, "tiny");
  EXPECT_EQ(snapshot->disk_io, "io_uring");
  EXPECT_EQ(snapshot->engine_generation, 77u);
  EXPECT_EQ(snapshot->boot_id, HostBootId());
  EXPECT_EQ(snapshot->counter("no such label"), 0u);
}

// More threads than banks: some have one alone, the others share the last one.
TEST_F(StatsSegmentTest, CountsOfManyThreadsAddUp) {
  constexpr uint64_t kThreads = 2 * kStatsBanks, kRounds = 1'000'000;
  auto segment = Create();
  std::barrier start(static_cast<std::ptrdiff_t>(kThreads));
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const StatsWriter writer = segment->writer();
      StatsBankOfThread();  // so that none takes the bank of one that has ended
      start.arrive_and_wait();
      for (uint64_t i = 0; i < kRounds; ++i) {
        writer.Add(Counter::kTexts);
        writer.Record(Histogram::kHitTotal, t);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(segment->writer().Get(Counter::kTexts), kThreads * kRounds);
  const StatsSnapshot snapshot = ParseStats(Bytes(*segment)).value();
  EXPECT_EQ(snapshot.counter(Counter::kTexts), kThreads * kRounds);
  const HistogramSnapshot& histogram = snapshot.histogram(Histogram::kHitTotal);
  EXPECT_EQ(histogram.count, kThreads * kRounds);
  EXPECT_EQ(histogram.max, kThreads - 1);
  for (uint32_t t = 0; t < kThreads; ++t) EXPECT_EQ(histogram.buckets[t], kRounds) << t;
}

TEST_F(StatsSegmentTest, ASpanBetweenTwoClocksIsNeverNegative) {
  auto segment = Create();
  segment->writer().RecordSpan(Histogram::kStageTake, 1'000, 999);
  segment->writer().RecordSpan(Histogram::kStageTake, 1'000, 1'007);
  const StatsSnapshot snapshot = ParseStats(Bytes(*segment)).value();
  EXPECT_EQ(snapshot.histogram(Histogram::kStageTake).count, 2u);
  EXPECT_EQ(snapshot.histogram(Histogram::kStageTake).sum, 7u);
}

TEST_F(StatsSegmentTest, StaysReadableAfterTheEngineEnded) {
  {
    auto segment = Create();
    segment->writer().Add(Counter::kHits, 5);
  }
  auto reader = StatsReader::OpenSocket(options_.socket_path);
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ(reader->Snapshot()->counter("hits"), 5u);
}

TEST_F(StatsSegmentTest, HasTheModeThatWasAskedFor) {
  options_.mode = 0604;
  auto segment = Create();
  struct stat info {};
  ASSERT_EQ(stat(("/dev/shm/" + segment->name()).c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0604u);
}

TEST_F(StatsSegmentTest, ADirectoryInPlaceOfTheSegmentIsAStartUpError) {
  // Stands for a name that cannot be removed, as one of another user cannot.
  const std::string path = "/dev/shm/" + StatsSegmentName(options_.socket_path, geteuid()).value();
  ASSERT_EQ(mkdir(path.c_str(), 0700), 0);
  auto segment = StatsSegment::Create(options_);
  EXPECT_FALSE(segment.ok());
  EXPECT_EQ(segment.code(), StatusCode::kRefused);
  EXPECT_NE(segment.status().message().find(path), std::string::npos) << segment.status().message();
  rmdir(path.c_str());
}

TEST_F(StatsSegmentTest, LongStringsAreCut) {
  options_.model = std::string(500, 'm');
  auto segment = Create();
  EXPECT_EQ(ParseStats(Bytes(*segment))->model, std::string(127, 'm'));
}

}  // namespace
}  // namespace sutra
