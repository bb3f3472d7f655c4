#include "engine/serving/in_flight.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <optional>
#include <set>
#include <thread>
#include <vector>

#include "shm/layout.h"

namespace sutra {
namespace {

Waiter WaiterOf(uint64_t sequence, PriorityClass priority = kClassNormal, uint32_t options = 0, uint32_t ttl_s = 10) {
  Waiter waiter;
  waiter.sequence = sequence;
  waiter.priority = priority;
  waiter.options = options;
  waiter.ttl_s = ttl_s;
  return waiter;
}

ComputationPtr ComputationOf(const std::string& text) {
  auto computation = std::make_shared<Computation>();
  computation->text = text;
  return computation;
}

ComputationPtr StartAfter(InFlight* in_flight, const std::string& text, uint64_t removals, const Waiter& first) {
  const ComputationPtr computation = ComputationOf(text);
  computation->removals_seen = removals;
  while (!in_flight->Start(computation, first)) std::this_thread::yield();  // another thread has the lock
  return computation;
}

ComputationPtr Start(InFlight* in_flight, const std::string& text, const Waiter& first) {
  return StartAfter(in_flight, text, 0, first);
}

TEST(InFlight, EqualTextsJoinTheOneUnderWay) {
  InFlight in_flight;
  ComputationPtr joined;
  EXPECT_EQ(in_flight.Join("a", 0, 0, WaiterOf(2), &joined), InFlight::JoinResult::kNone);
  const ComputationPtr computation = Start(&in_flight, "a", WaiterOf(1));
  EXPECT_EQ(in_flight.Join("a", 0, 0, WaiterOf(2), &joined), InFlight::JoinResult::kJoined);
  EXPECT_EQ(joined, computation);
  const std::vector<Waiter> waiters = in_flight.Finish(computation);
  ASSERT_EQ(waiters.size(), 2u);
  EXPECT_FALSE(waiters[0].joined);
  EXPECT_TRUE(waiters[1].joined);
  EXPECT_EQ(in_flight.size(), 0u);
  EXPECT_EQ(in_flight.Join("a", 0, 0, WaiterOf(3), &joined), InFlight::JoinResult::kNone);
}

TEST(InFlight, AComputationEndsOnlyOnceItIsStoredAsLongAsItsWaitersWant) {
  InFlight in_flight;
  ComputationPtr joined;
  const ComputationPtr computation = Start(&in_flight, "a", WaiterOf(1, kClassNormal, kOptionCacheSkipStore));
  const std::optional<uint64_t> none = in_flight.LifetimeToStore(computation);
  EXPECT_FALSE(none.has_value());
  in_flight.Join("a", 0, 0, WaiterOf(2, kClassNormal, 0, 10), &joined);
  EXPECT_FALSE(in_flight.FinishStored(computation, none).has_value());
  in_flight.Join("a", 0, 0, WaiterOf(3, kClassNormal, 0, 20), &joined);
  EXPECT_FALSE(in_flight.FinishStored(computation, 10).has_value());
  in_flight.Join("a", 0, 0, WaiterOf(4, kClassNormal, 0, 15), &joined);  // asks for no more
  const std::optional<std::vector<Waiter>> waiters = in_flight.FinishStored(computation, 20);
  ASSERT_TRUE(waiters.has_value());
  EXPECT_EQ(waiters->size(), 4u);
  EXPECT_EQ(in_flight.size(), 0u);
}

// A stray write into the table, as a fault elsewhere would make it: every word that guards it, one at a time.
TEST(InFlightDeathTest, AJoinNoticesAStrayWriteBesideTheMap) {
  constexpr uint64_t kCanary = 0x5355545241434152;
  int canaries = 0;
  for (size_t at = 0; at + sizeof(uint64_t) <= sizeof(InFlight); at += sizeof(uint64_t)) {
    InFlight in_flight;
    Start(&in_flight, "a", WaiterOf(1));
    uint64_t word = 0;
    std::memcpy(&word, reinterpret_cast<const char*>(&in_flight) + at, sizeof(word));
    if (word != kCanary) continue;
    ++canaries;
    ComputationPtr joined;
    const auto stray = [&] {
      std::memset(reinterpret_cast<char*>(&in_flight) + at, 0, 1);
      in_flight.Join("a", 0, 0, WaiterOf(2), &joined);
    };
    EXPECT_DEATH(stray(), "memory of the in-flight table is corrupted");
  }
  EXPECT_EQ(canaries, 4);
}

TEST(InFlight, ATextHasABoundedNumberOfWaiters) {
  InFlight in_flight;
  const ComputationPtr computation = Start(&in_flight, "a", WaiterOf(1));
  ComputationPtr joined;
  for (uint64_t sequence = 2; sequence <= InFlight::kWaitersMax; ++sequence) {
    ASSERT_EQ(in_flight.Join("a", 0, 0, WaiterOf(sequence), &joined), InFlight::JoinResult::kJoined);
  }
  EXPECT_EQ(in_flight.Join("a", 0, 0, WaiterOf(9999), &joined), InFlight::JoinResult::kFull);
  EXPECT_EQ(in_flight.Finish(computation).size(), InFlight::kWaitersMax);
}

TEST(InFlight, AnotherTextOrVariantDoesNotJoin) {
  InFlight in_flight;
  ComputationPtr joined;
  Start(&in_flight, "a", WaiterOf(1));
  EXPECT_EQ(in_flight.Join("b", 0, 0, WaiterOf(2), &joined), InFlight::JoinResult::kNone);
  EXPECT_EQ(in_flight.Join(std::string_view("a\0", 2), 0, 0, WaiterOf(2), &joined), InFlight::JoinResult::kNone);
  EXPECT_EQ(in_flight.Join("a", 1, 0, WaiterOf(2), &joined), InFlight::JoinResult::kNone);
}

// Two computations of one text, of before and after a removal: each keeps its own waiters to its own end.
TEST(InFlight, AfterARemovalATextIsStartedAnewAndTheOldComputationEndsOnItsOwn) {
  for (const bool old_ends_first : {true, false}) {
    for (const std::string& text : {std::string("a"), std::string(kLongTextBytes + 1, 'a')}) {
      InFlight in_flight;
      ComputationPtr joined;
      const ComputationPtr before = StartAfter(&in_flight, text, 7, WaiterOf(1));
      EXPECT_EQ(in_flight.Join(text, 0, 7, WaiterOf(2), &joined), InFlight::JoinResult::kJoined);
      EXPECT_EQ(in_flight.Join(text, 0, 8, WaiterOf(3), &joined), InFlight::JoinResult::kNone);
      const ComputationPtr after = StartAfter(&in_flight, text, 8, WaiterOf(3));
      EXPECT_EQ(in_flight.Join(text, 0, 8, WaiterOf(4), &joined), InFlight::JoinResult::kJoined);
      EXPECT_EQ(joined, after);
      EXPECT_EQ(in_flight.size(), 2u) << "a drain waits for both";
      std::vector<Waiter> removed;
      EXPECT_TRUE(in_flight.Truncate(before, &removed));
      EXPECT_FALSE(after->truncated);
      for (const ComputationPtr& computation : {old_ends_first ? before : after, old_ends_first ? after : before}) {
        const std::optional<std::vector<Waiter>> waiters = in_flight.FinishStored(computation, 10);
        ASSERT_TRUE(waiters.has_value());
        ASSERT_EQ(waiters->size(), 2u);
        EXPECT_EQ(waiters->front().sequence, computation == before ? 1u : 3u);
      }
      EXPECT_EQ(in_flight.size(), 0u);
    }
  }
}

// The end of a drain that timed out.
TEST(InFlight, TakeAllHandsOverWhoWaitsForAComputationOfBeforeARemoval) {
  InFlight in_flight;
  StartAfter(&in_flight, "a", 7, WaiterOf(1));
  StartAfter(&in_flight, "a", 8, WaiterOf(2));
  EXPECT_EQ(in_flight.TakeAll().size(), 2u);
  EXPECT_EQ(in_flight.size(), 0u);
}

// One thread removes; one joins or starts, as the loop does; one ends computations, as the worker does. Nobody who came
// after a removal is handed to a computation that began before it.
TEST(InFlight, BesideRemovalsNobodyGetsAnAnswerThatBeganBeforeTheLastOneThatIsConfirmed) {
  constexpr uint64_t kRequests = 20'000;
  InFlight in_flight;
  std::vector<ComputationPtr> ready;
  Mutex ready_mutex;
  std::atomic<uint64_t> removals{0};
  std::atomic<bool> done{false};
  uint64_t served = 0, stale = 0;
  std::thread remover([&] {
    while (!done.load(std::memory_order_acquire)) {
      removals.fetch_add(1, std::memory_order_release);
      std::this_thread::yield();
    }
  });
  std::thread worker([&] {
    for (;;) {
      std::vector<ComputationPtr> batch;
      const bool last = done.load(std::memory_order_acquire);
      {
        const MutexLock lock(ready_mutex);
        batch.swap(ready);
      }
      for (const ComputationPtr& computation : batch) {
        for (const Waiter& waiter : in_flight.Finish(computation)) {
          ++served;
          if (waiter.tag > computation->removals_seen) ++stale;
        }
      }
      if (batch.empty() && last) return;
    }
  });
  for (uint64_t sequence = 1; sequence <= kRequests; ++sequence) {
    // Five texts have room for all of them, should the worker not run meanwhile.
    const std::string text(1, static_cast<char>('a' + sequence % 5));
    Waiter waiter = WaiterOf(sequence);
    waiter.tag = removals.load(std::memory_order_acquire);  // confirmed before it came
    const uint64_t seen = removals.load(std::memory_order_acquire);
    ComputationPtr joined;
    InFlight::JoinResult result = InFlight::JoinResult::kBusy;
    while (result == InFlight::JoinResult::kBusy) result = in_flight.Join(text, 0, seen, waiter, &joined);
    if (result != InFlight::JoinResult::kNone) continue;
    const ComputationPtr computation = StartAfter(&in_flight, text, seen, waiter);
    const MutexLock lock(ready_mutex);
    ready.push_back(computation);
  }
  done.store(true, std::memory_order_release);
  remover.join();
  worker.join();
  EXPECT_EQ(served, kRequests);
  EXPECT_EQ(stale, 0u);
}

TEST(InFlight, TheLongestLifetimeIsStoredAndOneWishIsEnough) {
  InFlight in_flight;
  ComputationPtr joined;
  const ComputationPtr computation = Start(&in_flight, "a", WaiterOf(1, kClassNormal, kOptionCacheSkipStore, 99));
  EXPECT_EQ(in_flight.LifetimeToStore(computation), std::nullopt);
  EXPECT_EQ(in_flight.Join("a", 0, 0, WaiterOf(2, kClassNormal, 0, 10), &joined), InFlight::JoinResult::kJoined);
  EXPECT_EQ(in_flight.Join("a", 0, 0, WaiterOf(3, kClassNormal, 0, 20), &joined), InFlight::JoinResult::kJoined);
  EXPECT_EQ(in_flight.LifetimeToStore(computation), 20u);
}

TEST(InFlight, ATextFoundTruncatedIsNeitherWaitedForNorJoinedByWhoRefusesTruncation) {
  InFlight in_flight;
  ComputationPtr joined;
  const ComputationPtr computation = Start(&in_flight, "a", WaiterOf(1));
  EXPECT_EQ(in_flight.Join("a", 0, 0, WaiterOf(2, kClassNormal, kOptionReject), &joined),
            InFlight::JoinResult::kJoined);
  std::vector<Waiter> removed;
  EXPECT_TRUE(in_flight.Truncate(computation, &removed));
  ASSERT_EQ(removed.size(), 1u);
  EXPECT_EQ(removed[0].sequence, 2u);
  EXPECT_EQ(in_flight.Join("a", 0, 0, WaiterOf(3, kClassNormal, kOptionReject), &joined),
            InFlight::JoinResult::kTooLong);
  EXPECT_EQ(in_flight.Join("a", 0, 0, WaiterOf(4), &joined), InFlight::JoinResult::kJoined);
  EXPECT_EQ(in_flight.Finish(computation).size(), 2u);
}

TEST(InFlight, ATruncatedTextThatNobodyElseWantsEnds) {
  InFlight in_flight;
  const ComputationPtr computation = Start(&in_flight, "a", WaiterOf(1, kClassNormal, kOptionReject));
  std::vector<Waiter> removed;
  EXPECT_FALSE(in_flight.Truncate(computation, &removed));
  EXPECT_EQ(removed.size(), 1u);
  EXPECT_EQ(in_flight.size(), 0u);
}

TEST(InFlight, PruningTheLastWaiterEndsTheComputation) {
  InFlight in_flight;
  ComputationPtr joined;
  const ComputationPtr computation = Start(&in_flight, "a", WaiterOf(1));
  EXPECT_EQ(in_flight.Join("a", 0, 0, WaiterOf(2), &joined), InFlight::JoinResult::kJoined);
  std::vector<Waiter> removed;
  EXPECT_TRUE(in_flight.Prune(
      computation, [](const Waiter& waiter) { return waiter.sequence == 1; }, &removed));
  EXPECT_FALSE(in_flight.Prune(
      computation, [](const Waiter&) { return true; }, &removed));
  EXPECT_EQ(removed.size(), 2u);
  EXPECT_EQ(in_flight.size(), 0u);
  // The next request of this text starts a new computation, which the old one's end does not remove.
  const ComputationPtr next = Start(&in_flight, "a", WaiterOf(3));
  EXPECT_TRUE(in_flight.Finish(computation).empty());
  EXPECT_EQ(in_flight.size(), 1u);
}

TEST(InFlight, TakeAllHandsEverybodyOverOnce) {
  InFlight in_flight;
  const ComputationPtr a = Start(&in_flight, "a", WaiterOf(1));
  Start(&in_flight, "b", WaiterOf(2));
  EXPECT_EQ(in_flight.TakeAll().size(), 2u);
  EXPECT_TRUE(in_flight.Finish(a).empty());
  EXPECT_EQ(in_flight.size(), 0u);
}

// One thread joins or starts as the loop does, another ends computations as the worker does: no waiter is lost or
// served twice.
TEST(InFlight, EveryWaiterIsHandedOverExactlyOnce) {
  constexpr uint64_t kRequests = 20'000;
  InFlight in_flight;
  std::vector<ComputationPtr> ready;
  Mutex ready_mutex;
  std::atomic<bool> done{false};
  std::multiset<uint64_t> served;
  std::thread worker([&] {
    for (;;) {
      std::vector<ComputationPtr> batch;
      const bool last = done.load(std::memory_order_acquire);
      {
        const MutexLock lock(ready_mutex);
        batch.swap(ready);
      }
      for (const ComputationPtr& computation : batch) {
        for (const Waiter& waiter : in_flight.Finish(computation)) served.insert(waiter.sequence);
      }
      if (batch.empty() && last) return;
    }
  });
  for (uint64_t sequence = 1; sequence <= kRequests; ++sequence) {
    const std::string text(1, static_cast<char>('a' + sequence % 5));
    ComputationPtr joined;
    InFlight::JoinResult result = InFlight::JoinResult::kBusy;
    while (result == InFlight::JoinResult::kBusy) result = in_flight.Join(text, 0, 0, WaiterOf(sequence), &joined);
    if (result != InFlight::JoinResult::kNone) continue;
    const ComputationPtr computation = Start(&in_flight, text, WaiterOf(sequence));
    const MutexLock lock(ready_mutex);
    ready.push_back(computation);
  }
  done.store(true, std::memory_order_release);
  worker.join();
  EXPECT_EQ(served.size(), kRequests);
  EXPECT_EQ(std::set<uint64_t>(served.begin(), served.end()).size(), kRequests);
}

}  // namespace
}  // namespace sutra
