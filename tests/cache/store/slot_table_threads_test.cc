// Lookups beside writers at full speed: every hit is a vector that was stored for that very text, as a whole, and an
// entry that nobody removes is found each time.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cache/store/slot_table.h"
#include "shm/base/checkpoint.h"
#include "tests/kit/seed.h"

namespace sutra {
namespace {

constexpr uint32_t kFloats = 48;
#if defined(SUTRA_SANITIZE)
constexpr uint64_t kStepsPerWriter = 6'000;
#else
constexpr uint64_t kStepsPerWriter = 60'000;
#endif

std::string TextOf(uint64_t number) {
  const std::string text = "text " + std::to_string(number);
  if (number % 97 == 0) return text + std::string(SlotTable::kLongTextBytes, 'l');
  return text + std::string(number % 13 * 7, 'x');
}

// The same number in each float: the text's and the version's.
float StampOf(uint64_t number, uint32_t version) { return static_cast<float>(number * 256 + version % 256); }

class SlotTableThreads : public testing::Test {
 protected:
  void Put(uint64_t number, uint32_t version) {
    const std::vector<float> vector(kFloats, StampOf(number, version));
    const std::string text = TextOf(number);
    const EntryKey key = table_.KeyOf(text, 0);
    LongText::Ptr copy = SlotTable::CopyLongText(key);
    const MutexLock lock(table_.mutex());
    table_.PutLocked(key, std::as_bytes(std::span(vector)), {vector[0], version, version % 2 == 0}, UINT64_MAX, 1,
                     &copy);
  }
  void Erase(uint64_t number) {
    const std::string text = TextOf(number);
    const EntryKey key = table_.KeyOf(text, 0);
    const MutexLock lock(table_.mutex());
    table_.EraseLocked(key);
  }
  // Whether the text was found; what is found must be whole and its own.
  bool Look(uint64_t number) {
    float vector[kFloats];
    CacheValue value;
    const std::string text = TextOf(number);
    if (!table_.Lookup(table_.KeyOf(text, 0), 1, vector, &value)) return false;
    const float stamp = StampOf(number, value.token_count);
    for (const float each : vector) {
      if (each != stamp) wrong_.fetch_add(1);
    }
    if (value.norm != stamp || value.truncated != (value.token_count % 2 == 0)) wrong_.fetch_add(1);
    return true;
  }
  // Runs readers until the writers are done. `number`: what a reader looks up next.
  template <typename Write, typename Number>
  uint64_t Run(int writers, const Write& write, const Number& number) {
    std::atomic<bool> stop{false};
    std::atomic<uint64_t> misses{0}, looks{0};
    std::vector<std::thread> readers, others;
    for (uint64_t reader = 0; reader < 2; ++reader) {
      readers.emplace_back([&, reader] {
        std::mt19937_64 random(100 + reader);
        while (!stop.load(std::memory_order_relaxed)) {
          misses.fetch_add(Look(number(random)) ? 0 : 1, std::memory_order_relaxed);
          looks.fetch_add(1, std::memory_order_relaxed);
        }
      });
    }
    while (looks.load() < 100) std::this_thread::yield();
    for (int writer = 0; writer < writers; ++writer) {
      others.emplace_back([&, writer] {
        std::mt19937_64 random(static_cast<uint64_t>(writer));
        for (uint64_t step = 0; step < kStepsPerWriter; ++step) write(random);
      });
    }
    for (std::thread& thread : others) thread.join();
    stop.store(true);
    for (std::thread& thread : readers) thread.join();
    EXPECT_EQ(wrong_.load(), 0u);
    return misses.load();
  }

  SlotTable table_{SlotTable::Limits{kFloats, 2000, 64 << 20, 0x3ff00000000}};  // runs of cells, and equal tags
  std::atomic<uint64_t> wrong_{0};
};

TEST_F(SlotTableThreads, EveryHitIsWholeAndItsOwnWhateverIsWrittenMeanwhile) {
  std::atomic<uint32_t> version{0};
  Run(
      2,
      [&](std::mt19937_64& random) {
        const uint64_t number = random() % 3000;
        switch (random() % 8) {
          case 0: Erase(number); break;
          case 1: table_.Sweep(1, 1); break;
          default: Put(number, version.fetch_add(1));
        }
      },
      [](std::mt19937_64& random) { return random() % 3000; });
  EXPECT_GT(table_.GetCounts().evictions, 1000u);
}

// Others around it come and go, so its cell moves all the time.
TEST_F(SlotTableThreads, AnEntryThatStaysIsFoundByEveryLookup) {
  for (uint64_t number = 0; number < 500; ++number) Put(number, 1);
  const uint64_t misses = Run(
      1,
      [&](std::mt19937_64& random) {
        const uint64_t number = 1000 + random() % 500;
        Put(number, 2);
        Erase(number);
      },
      [](std::mt19937_64& random) { return random() % 500; });
  EXPECT_EQ(misses, 0u);
}

#if defined(SUTRA_CHECKPOINTS)
std::function<void()> g_meanwhile;

// The bytes of a long text are freed with its entry: a lookup that has read the cell before must not touch them.
TEST_F(SlotTableThreads, AnEntryMayLeaveOrChangeBetweenItsCellAndItsSlot) {
  checkpoint::hook = [](const char* name) {
    if (std::strcmp(name, "lookup.cell_found") != 0) return;
    if (const auto meanwhile = std::exchange(g_meanwhile, {})) meanwhile();
  };
  const auto look = [&](uint64_t number, const std::function<void()>& meanwhile) {
    Put(number, 1);
    g_meanwhile = meanwhile;
    const bool found = Look(number);
    EXPECT_FALSE(g_meanwhile) << "the lookup has passed no cell";
    return found;
  };
  for (const auto& [number, other] : {std::pair{20, 33}, std::pair{194, 291}}) {  // of the same length, short and long
    SCOPED_TRACE(number);
    EXPECT_FALSE(look(number, [&] { Erase(number); }));
    EXPECT_TRUE(look(number, [&] { Put(number, 2); }));
    EXPECT_TRUE(look(number, [&] {
      Erase(number);
      Put(number, 2);  // to the same slot
    }));
    EXPECT_FALSE(look(number, [&] {
      Erase(number);
      Put(other, 2);
    }));
    EXPECT_TRUE(look(number, [&] {
      Erase(other);
      Erase(number);
      Put(other, 2);
      Put(number, 2);
    }));
    Erase(other);
  }
  checkpoint::hook = nullptr;
  EXPECT_EQ(wrong_.load(), 0u);
}
#endif

// The canary: a reader that does not look at the version again takes torn vectors for whole ones.
TEST_F(SlotTableThreads, CanaryAnUnguardedCopyIsTorn) {
  GuardedWord words[kFloats / 2] = {};
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (uint32_t version = 0; !stop.load(std::memory_order_relaxed); ++version) {
      const std::vector<float> vector(kFloats, static_cast<float>(version % 1000));
      StoreWords(words, vector.data(), kFloats * sizeof(float));
    }
  });
  bool torn = false;
  for (int i = 0; i < 100'000'000 && !torn; ++i) {
    float vector[kFloats];
    LoadWords(vector, words, sizeof(vector));
    for (const float each : vector) torn = torn || each != vector[0];
  }
  stop.store(true);
  writer.join();
  EXPECT_TRUE(torn);
}

}  // namespace
}  // namespace sutra
