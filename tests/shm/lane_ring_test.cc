// The four ring ends: byte-exact first, then every violation, then two threads over one mapping.
#include "shm/lane_ring.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "shm/sleep_wake.h"
#include "tests/kit/seed.h"
#include "tests/kit/wake_calls.h"
#include "tests/shm/lane_memory.h"

namespace sutra::test {
namespace {

using Take = SubmissionReader::Take;
using Read = CompletionReader::Read;

uint32_t Seed() { return static_cast<uint32_t>(TestSeed(20'240'601)); }

TEST(LaneRing, EntriesAreByteExact) {
  PlainLane lane(4);
  SubmissionWriter writer(lane.request);
  writer.Publish(3);
  writer.Publish(0);
  const std::byte* ring = lane.request.base + lane.geometry.submission_ring();
  const uint8_t expected[24] = {3, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0};  // slot, then position + 1
  EXPECT_EQ(std::memcmp(ring, expected, sizeof(expected)), 0);
}

TEST(LaneRing, PublishedResultIsByteExact) {
  PlainLane lane(4);
  CompletionWriter writer(lane.reply);
  writer.Publish(2, 0x0102, StatusCode::kCancelled);
  const uint8_t word[8] = {9, 2, 1};
  const uint8_t entry[8] = {2, 0, 1};
  EXPECT_EQ(std::memcmp(&lane.reply.result(2), word, 8), 0);
  EXPECT_EQ(std::memcmp(lane.reply.base + lane.geometry.completion_ring(), entry, 8), 0);
}

TEST(LaneRing, SubmissionsArriveInOrderAcrossManyLaps) {
  PlainLane lane(4);
  SubmissionWriter writer(lane.request);
  SubmissionReader reader(lane.request);
  uint32_t slot = 99;
  EXPECT_EQ(reader.Next(&slot), Take::kNone);
  for (uint32_t lap = 0; lap < 100; ++lap) {
    for (uint32_t i = 0; i < 4; ++i) writer.Publish((i + lap) % 4);
    for (uint32_t i = 0; i < 4; ++i) {
      ASSERT_EQ(reader.Next(&slot), Take::kTaken);
      ASSERT_EQ(slot, (i + lap) % 4);
    }
    ASSERT_EQ(reader.Next(&slot), Take::kNone);
  }
}

TEST(LaneRing, HoleReadsAsNothing) {
  PlainLane lane(4);
  SubmissionWriter writer(lane.request);
  SubmissionReader reader(lane.request);
  uint32_t slot;
  for (uint32_t i = 0; i < 6; ++i) {
    writer.Publish(1);
    ASSERT_EQ(reader.Next(&slot), Take::kTaken);
  }
  for (uint64_t i = 0; i < 4; ++i) lane.request.submission(i).store(0, std::memory_order_relaxed);
  EXPECT_EQ(reader.Next(&slot), Take::kNone);
}

TEST(LaneRing, EveryForeignEntryIsAViolation) {
  constexpr uint64_t kSlots = 4;
  for (const uint64_t position : {uint64_t{0}, uint64_t{1}, uint64_t{5}, uint64_t{1000}}) {
    std::vector<uint64_t> foreign = {
        RingEntry(position, kSlots),  // slot out of range
        RingEntry(position, 0xffff),
        RingEntry(position + 1, 0),       // ahead
        RingEntry(position + kSlots, 0),  // a lap ahead
        RingEntry(1ull << 47, 0),
        ~uint64_t{0},
        1,  // position "-1"
    };
    if (position > 0) foreign.push_back(RingEntry(position - 1, 0));                     // moved back
    if (position >= 2 * kSlots) foreign.push_back(RingEntry(position - 2 * kSlots, 0));  // two laps old
    if (position < kSlots) foreign.push_back(RingEntry(position - kSlots, 0));           // a lap before the first
    for (const uint64_t entry : foreign) {
      PlainLane lane(kSlots);
      SubmissionWriter writer(lane.request);
      SubmissionReader reader(lane.request);
      uint32_t slot = 99;
      for (uint64_t i = 0; i < position; ++i) {
        writer.Publish(0);
        ASSERT_EQ(reader.Next(&slot), Take::kTaken);
      }
      slot = 99;
      lane.request.submission(position).store(entry, std::memory_order_relaxed);
      EXPECT_EQ(reader.Next(&slot), Take::kViolation) << "entry " << std::hex << entry << " at " << position;
      EXPECT_EQ(slot, 99u);
    }
  }
}

TEST(LaneRing, CompletionsArriveInOrderAcrossManyLaps) {
  PlainLane lane(8);
  CompletionWriter writer(lane.reply);
  CompletionReader reader(lane.reply);
  uint32_t slot;
  for (uint64_t sequence = 1; sequence < 200; ++sequence) {
    const auto expected = static_cast<uint32_t>(sequence * 5 % 8);
    ASSERT_EQ(reader.Next(&slot), Read::kNone);
    writer.Publish(expected, sequence, StatusCode::kOk);
    ASSERT_EQ(reader.Next(&slot), Read::kSlot);
    ASSERT_EQ(slot, expected);
    ASSERT_EQ(LoadResultWord(lane.reply, slot), ResultWord(sequence, 0));
  }
}

// The result word is published before the entry that tells of it.
TEST(LaneRing, AReaderThatSeesTheEntrySeesTheResult) {
  PlainLane lane(8);
  CompletionReader reader(lane.reply);
  std::atomic<uint64_t> read_through = 0;
  constexpr uint64_t kRounds = 2000;
  std::thread engine([&] {
    CompletionWriter writer(lane.reply);
    for (uint64_t sequence = 1; sequence <= kRounds; ++sequence) {
      writer.Publish(static_cast<uint32_t>(sequence % 8), sequence, StatusCode::kOk);
      while (read_through.load(std::memory_order_acquire) != sequence) std::this_thread::yield();
    }
  });
  uint64_t early = 0;
  for (uint64_t sequence = 1; sequence <= kRounds; ++sequence) {
    uint32_t slot = 0;
    while (reader.Next(&slot) == Read::kNone) {
    }
    early += LoadResultWord(lane.reply, slot) != ResultWord(sequence, 0);
    read_through.store(sequence, std::memory_order_release);
  }
  engine.join();
  EXPECT_EQ(early, 0u);
}

TEST(LaneRing, LappedReaderSeesAGapOnceAndGoesOn) {
  PlainLane lane(4);
  CompletionWriter writer(lane.reply);
  CompletionReader reader(lane.reply);
  uint32_t slot;
  for (uint64_t sequence = 1; sequence <= 11; ++sequence) {
    writer.Publish(static_cast<uint32_t>(sequence % 4), sequence, StatusCode::kOk);
  }
  EXPECT_EQ(reader.Next(&slot), Read::kGap);
  for (uint32_t s = 0; s < 4; ++s)
    EXPECT_GE(ResultWordSequence(LoadResultWord(lane.reply, s)), 8u);  // the scan sees all
  // Positions 9 and 10 follow the entry that showed the gap (8); then nothing.
  EXPECT_EQ(reader.Next(&slot), Read::kSlot);
  EXPECT_EQ(slot, 10u % 4);
  EXPECT_EQ(reader.Next(&slot), Read::kSlot);
  EXPECT_EQ(slot, 11u % 4);
  EXPECT_EQ(reader.Next(&slot), Read::kNone);
  writer.Publish(2, 12, StatusCode::kOk);
  EXPECT_EQ(reader.Next(&slot), Read::kSlot);
  EXPECT_EQ(slot, 2u);
}

TEST(LaneRing, UnknownStatusNumberIsAModelError) {
  EXPECT_EQ(ResultWordStatus(ResultWord(7, 200)), StatusCode::kModelError);
  EXPECT_EQ(ResultWordStatus(ResultWord(7, 2)), StatusCode::kFull);
  EXPECT_EQ(ResultWordSequence(ResultWord(uint64_t{1} << 55, 2)), uint64_t{1} << 55);
}

// On a busy machine every hand-over may wait for other programs: work is bounded by requests or by time, whichever
// comes first.
constexpr uint64_t kTortureNs = 500 * kNsPerMs;

// One thread is the client, one the engine, over one mapping. The engine answers in random order with a function of the
// text; the client checks every answer. `broken` is the canary: an engine that publishes before it writes.
uint64_t TortureWrongAnswers(uint32_t slots, uint32_t requests, uint32_t seed, bool broken) {
  const uint64_t end_ns = MonotonicNs() + kTortureNs;
  PlainLane lane(slots);
  std::atomic<bool> stop{false};
  std::thread engine([&] {
    SubmissionReader submissions(lane.request);
    CompletionWriter completions(lane.reply);
    std::mt19937 random(seed);
    std::vector<uint32_t> held;
    uint32_t slot;
    while (!stop.load(std::memory_order_relaxed) || !held.empty()) {
      while (submissions.Next(&slot) == Take::kTaken) held.push_back(slot);
      if (held.empty()) {
        std::this_thread::yield();
        continue;
      }
      std::swap(held[random() % held.size()], held.back());
      slot = held.back();
      held.pop_back();
      const RequestDescriptor& request = lane.request.request(slot);
      const uint64_t sequence = request.sequence.load(std::memory_order_relaxed);
      const uint64_t word = lane.request.text_words(slot)[0].load(std::memory_order_relaxed);
      ResultDescriptor& result = lane.reply.result(slot);
      if (!broken) result.tag = word * 3;
      completions.Publish(slot, sequence, StatusCode::kOk);
      if (broken) {
        std::this_thread::yield();
        result.tag = word * 3;
      }
    }
  });
  SubmissionWriter submissions(lane.request);
  CompletionReader completions(lane.reply);
  std::vector<uint64_t> expected(slots, 0);
  std::vector<uint32_t> free_slots;
  for (uint32_t i = 0; i < slots; ++i) free_slots.push_back(i);
  std::mt19937_64 random(seed + 1);
  uint64_t wrong = 0;
  uint32_t submitted = 0, done = 0;
  while (done < requests) {
    if (MonotonicNs() >= end_ns && !(broken && wrong == 0)) requests = submitted;  // takes what is under way, then ends
    while (submitted < requests && !free_slots.empty()) {
      const uint32_t slot = free_slots.back();
      free_slots.pop_back();
      const uint64_t text = random();
      std::memcpy(lane.request.text_head(slot), &text, sizeof(text));
      lane.request.request(slot).sequence.store(++submitted, std::memory_order_relaxed);
      expected[slot] = text * 3;
      submissions.Publish(slot);
    }
    uint32_t slot;
    const Read read = completions.Next(&slot);
    if (read == Read::kNone) {
      std::this_thread::yield();
      continue;
    }
    if (read == Read::kGap) {  // cannot happen: every completion is read before its slot is used again
      ++wrong;
      continue;
    }
    if (lane.reply.result(slot).tag != expected[slot]) ++wrong;
    free_slots.push_back(slot);
    ++done;
  }
  stop.store(true, std::memory_order_relaxed);
  engine.join();
  return wrong;
}

TEST(LaneRing, TwoThreadsExchangeManyRequestsWithoutALossOrAMixUp) {
  const uint32_t seed = Seed();
  for (const uint32_t slots : {2u, 8u, 256u}) EXPECT_EQ(TortureWrongAnswers(slots, 20'000, seed, false), 0u) << slots;
}

#if !defined(__SANITIZE_THREAD__)
TEST(LaneRing, CanaryTortureNoticesAnEngineThatPublishesTooEarly) {
  EXPECT_GT(TortureWrongAnswers(8, 20'000, Seed(), true), 0u);
}
#endif

// Both sides sleep whenever they can: a lost wake-up shows as a hang, which the test's timeout turns into a failure.
// The waits have no time limit short enough to hide one.
TEST(LaneRing, NoWakeUpIsLostWhenTheClientSleepsOnEveryRequest) {
  PlainLane lane(2);
  constexpr uint64_t kRequests = 3000;
  const uint64_t end_ns = MonotonicNs() + kTortureNs;
  std::atomic<bool> stop{false};
  std::thread engine([&] {
    SubmissionReader submissions(lane.request);
    CompletionWriter completions(lane.reply);
    for (uint64_t done = 0; !stop.load(std::memory_order_relaxed);) {
      uint32_t slot;
      if (submissions.Next(&slot) != Take::kTaken) {
        std::this_thread::yield();
        continue;
      }
      completions.Publish(slot, ++done, StatusCode::kOk);
      if (LookForSleepers(lane.request).sleepers) WakeSleepers(lane.reply);
    }
  });
  SubmissionWriter submissions(lane.request);
  SharedWord<uint32_t>& sleepers = lane.request.client().sleepers;
  SharedWord<uint32_t>& word = lane.reply.engine().futex_word;
  for (uint64_t sequence = 1; sequence <= kRequests && MonotonicNs() < end_ns; ++sequence) {
    submissions.Publish(0);
    while (ResultWordSequence(LoadResultWord(lane.reply, 0)) != sequence) {
      sleepers.fetch_add(1, std::memory_order_relaxed);
      FullFence();
      const uint32_t seen = word.load(std::memory_order_acquire);
      if (ResultWordSequence(LoadResultWord(lane.reply, 0)) != sequence) {
        FutexWait(word.futex_address(), seen, end_ns + 1000 * kNsPerSecond);
      }
      sleepers.fetch_sub(1, std::memory_order_relaxed);
    }
  }
  stop.store(true, std::memory_order_relaxed);
  engine.join();
}

TEST(WaitWord, WaitReturnsWhenTheWordMovedOrTimePassed) {
  SharedWord<uint32_t> word;
  word.store(5, std::memory_order_relaxed);
  FutexWait(word.futex_address(), 4, MonotonicNs() + 1000 * kNsPerSecond);  // already moved: returns at once
  const uint64_t before_ns = MonotonicNs();
  EXPECT_FALSE(FutexWait(word.futex_address(), 5, before_ns + 5 * kNsPerMs));
  EXPECT_GE(MonotonicNs() - before_ns, 5 * kNsPerMs);
}

}  // namespace
}  // namespace sutra::test
