// Readers of a hot table beside a writer at full speed, in threads and in processes, and after a writer that was killed
// between any two of its stores: every vector that a reader gets is one that was written for that key, whole.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "shm/base/checkpoint.h"
#include "shm/base/time.h"
#include "shm/hot_memory.h"
#include "shm/lane_memory.h"
#include "tests/kit/by_build.h"
#include "tests/kit/seed.h"
#include "tests/shm/hot_table_kit.h"

namespace sutra::test {
namespace {

constexpr uint32_t kWidth = 96, kSlots = 24, kKeys = 40, kRounds = 50;

// What a writer does for ever: keys move from slot to slot, get new vectors, and go.
class Churn {
 public:
  Churn(HotWriter writer, uint64_t seed) : writer_(writer), random_(seed) {}
  void Step() {
    const auto key = static_cast<uint32_t>(random_() % kKeys);
    const auto slot = static_cast<uint32_t>(random_() % kSlots);
    const auto choice = random_() % 64;
    if (choice == 0) return writer_.Clear();
    if (choice < 8) return writer_.Remove(slot);
    const auto round = static_cast<uint32_t>(random_() % kRounds);
    HotKey hot = writer_.KeyOf(HotText(key), 0);
    writer_.Write(slot, &hot, HotVector(key, round, kWidth), HotValueOf(key, round));
  }

 private:
  HotWriter writer_;
  std::mt19937_64 random_;
};

struct Count {
  uint64_t hits = 0, wrong = 0;
};

void Look(const HotReader& reader, std::mt19937_64* random, Count* count) {
  const auto key = static_cast<uint32_t>((*random)() % kKeys);
  const HotFound found = FindHot(reader, HotText(key), kWidth);
  if (!found.hit) return;
  ++count->hits;
  if (HotRoundOf(key, kRounds, found.unit, found.value) < 0 || found.slot >= kSlots) ++count->wrong;
}

TEST(HotRace, ThreadsGetWholeVectorsOfTheirKey) {
  const PlainHotTable table(kWidth, kSlots);
  const uint64_t seed = FreshTestSeed();
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    Churn churn(table.writer(), seed);
    while (!stop.load(std::memory_order_relaxed)) churn.Step();
  });
  std::vector<Count> counts(2);
  std::vector<std::thread> readers;
  for (size_t i = 0; i < counts.size(); ++i) {
    readers.emplace_back([&, i] {
      std::mt19937_64 random(seed + 1 + i);
      Count count;
      for (int looks = 0; looks < ByBuild(60'000, 20'000, 6'000) || count.hits < 100; ++looks) {
        Look(table.reader(), &random, &count);
      }
      counts[i] = count;
    });
  }
  for (std::thread& reader : readers) reader.join();
  stop.store(true, std::memory_order_relaxed);
  writer.join();
  for (const Count& count : counts) EXPECT_EQ(count.wrong, 0u) << "of " << count.hits;
}

// One key, whose copy takes as long as can be: a reader that looks at the sequence once gets halves of two vectors.
TEST(HotRace, TheLargestVectorsAreNeverTorn) {
  const PlainHotTable table(kWidthMax, 1);
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    HotWriter hot = table.writer();
    HotKey key = hot.KeyOf(HotText(0), 0);
    std::vector<float> vector(kWidthMax);
    for (uint32_t round = 1; !stop.load(std::memory_order_relaxed); ++round) {
      std::fill(vector.begin(), vector.end(), static_cast<float>(round % 4096));
      hot.Write(0, &key, vector, HotValueOf(0, 0));
      for (int i = 0; i < 300; ++i) CpuPause();  // so that the reader gets some
    }
  });
  // Until the writer was seen at work so often that no torn copy would be luck.
  float last = -1;
  uint64_t changes = 0, torn = 0;
  while (changes < ByBuild(400u, 200u, 100u)) {
    const HotFound found = FindHot(table.reader(), HotText(0), kWidthMax);
    if (!found.hit) continue;
    const float first = found.unit.front();
    if (std::any_of(found.unit.begin(), found.unit.end(), [first](float value) { return value != first; })) ++torn;
    changes += first != last ? 1 : 0;
    last = first;
  }
  stop.store(true, std::memory_order_relaxed);
  writer.join();
  EXPECT_EQ(torn, 0u);
}

// A table in memory files, whose writer is another process.
class SharedTable {
 public:
  SharedTable() {
    memory_ = HotTableMemory::Create({kWidth, kSlots}, 1).value();
    EXPECT_TRUE(memory_.Back(kSlots - 1));
    memory_.view().header().boot_ahead_ns.store(kHotBootAhead, std::memory_order_relaxed);
    page_ = EnginePageMemory::Create(1).value();
    page_.page()->heartbeat_ns.store(kHotNow, std::memory_order_relaxed);
    // The mapping of its maker goes with a fork; the writer keeps this one.
    madvise(memory_.view().base, memory_.view().geometry.bytes(), MADV_DOFORK);
    void* base = mmap(nullptr, memory_.view().geometry.bytes(), PROT_READ, MAP_SHARED, memory_.fd(), 0);
    EXPECT_NE(base, MAP_FAILED);
    readable_ = {static_cast<std::byte*>(base), memory_.view().geometry};
  }
  ~SharedTable() { munmap(readable_.base, readable_.geometry.bytes()); }

  HotWriter writer() const { return HotWriter(memory_.view()); }
  HotReader reader() const { return HotReader(readable_, page_.page()); }

  template <typename Run>
  pid_t Fork(const Run& run) const {
    const pid_t child = fork();
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      run();
      _exit(0);
    }
    return child;
  }

 private:
  HotTableMemory memory_;
  EnginePageMemory page_;
  HotTableView readable_;
};

TEST(HotRace, ProcessesGetWholeVectorsOfTheirKey) {
  const SharedTable table;
  const uint64_t seed = FreshTestSeed();
  const HotWriter writer = table.writer();
  HotText(0);  // made before the fork
  const pid_t child = table.Fork([&] {
    Churn churn(writer, seed);
    for (;;) churn.Step();
  });
  ASSERT_GT(child, 0);
  std::mt19937_64 random(seed + 1);
  Count count;
  for (int looks = 0; looks < ByBuild(100'000, 20'000, 6'000) || count.hits < 100; ++looks) {
    Look(table.reader(), &random, &count);
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_EQ(count.wrong, 0u) << "of " << count.hits;
  // And whatever the killed one left behind.
  Count after;
  for (uint32_t i = 0; i < 10 * kKeys; ++i) Look(table.reader(), &random, &after);
  EXPECT_EQ(after.wrong, 0u);
}

#if defined(SUTRA_CHECKPOINTS)
// Killed by name at each step of a write and of a removal; `nth` reaches steps of the first and of later writes.
std::atomic<long> g_left = 0;
const char* g_name = nullptr;
void KillAt(const char* name) {
  if (std::string(name) == g_name && g_left.fetch_sub(1, std::memory_order_relaxed) == 1) raise(SIGKILL);
}

TEST(HotRace, AWriterThatIsKilledAtAnyStepLeavesTheRightVectorsOrNone) {
  const uint64_t seed = FreshTestSeed();
  HotText(0);
  for (const char* name : {"hot.unnamed", "hot.begun", "hot.described", "hot.half", "hot.copied", "hot.ended",
                           "hot.named", "hot.forgotten", "hot.emptied"}) {
    for (const long nth : {1, 2, 7, 40}) {
      const SharedTable table;
      const HotWriter writer = table.writer();
      const pid_t child = table.Fork([&] {
        g_name = name;
        g_left = nth;
        checkpoint::hook.store(&KillAt, std::memory_order_release);
        Churn churn(writer, seed + static_cast<uint64_t>(nth));
        for (;;) churn.Step();
      });
      ASSERT_GT(child, 0);
      int status = 0;
      ASSERT_EQ(waitpid(child, &status, 0), child);
      ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << name;
      for (uint32_t key = 0; key < kKeys; ++key) {
        const HotFound found = FindHot(table.reader(), HotText(key), kWidth);
        if (found.hit) {
          EXPECT_GE(HotRoundOf(key, kRounds, found.unit, found.value), 0) << name << " " << nth << ", key " << key;
        }
      }
    }
  }
}
#endif

TEST(HotRace, ATableOfRandomBytesCostsAMiss) {
  std::mt19937_64 random(FreshTestSeed());
  const PlainHotTable table(kWidth, kSlots);
  for (int round = 0; round < 200; ++round) {
    auto* const words = table.view().cells();
    const uint64_t count = (table.view().geometry.bytes() - table.view().geometry.buckets_at()) / 8;
    for (uint64_t i = 0; i < count; ++i) words[i].store(random(), std::memory_order_relaxed);
    table.view().header().closed.store(0, std::memory_order_relaxed);
    for (uint32_t key = 0; key < kKeys; ++key) {
      // With its tag in a cell, and any slot: what the bytes there say is not its digest.
      HotKey hot = table.reader().KeyOf(HotText(key), 0);
      auto* const bucket = table.view().bucket(hot.bucket(table.view().geometry.buckets()));
      for (uint32_t i = 0; i < kHotCellsPerBucket; ++i) {
        bucket[i].store(uint64_t{hot.tag()} << 32 | (random() % 2 == 0 ? random() % (kSlots + 2) : random() >> 32),
                        std::memory_order_relaxed);
      }
      EXPECT_FALSE(FindHot(table.reader(), HotText(key), kWidth).hit);
    }
  }
}

}  // namespace
}  // namespace sutra::test
