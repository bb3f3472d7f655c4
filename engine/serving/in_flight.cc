// One map from text and variant to computation. Each key points into its computation.
#include "engine/serving/in_flight.h"

#include <xxhash.h>

#include <algorithm>
#include <cassert>
#include <cstdio>
#include <cstdlib>
#include <iterator>

#include "shm/base/vector_room.h"

namespace sutra {
namespace {

void Attach(Computation* computation, Waiter waiter) {
  std::vector<Waiter>& waiters = computation->waiters;
  MakeRoomForOne(&waiters, 1);  // may throw
  if ((waiter.options & kOptionCacheSkipStore) == 0) {
    computation->store = true;
    computation->ttl_s = std::max<uint64_t>(computation->ttl_s, waiter.ttl_s);
  }
  waiters.push_back(std::move(waiter));
}

}  // namespace

uint64_t InFlight::HashOf(std::string_view text, uint32_t variant) const {
  return XXH3_64bits_withSeed(text.data(), text.size(), seed_ ^ variant);
}

void InFlight::CheckCanaries(const Table& table) const {
  if (short_.intact() && long_.intact() && table.computations.bucket_count() != 0) return;
  std::fprintf(stderr,
               "sutra-engine: the memory of the in-flight table is corrupted (canaries %016llx %016llx, %016llx "
               "%016llx, %zu buckets): something wrote outside its own memory; please report this line with the core "
               "dump\n",
               static_cast<unsigned long long>(short_.canary_before),
               static_cast<unsigned long long>(short_.canary_after),
               static_cast<unsigned long long>(long_.canary_before),
               static_cast<unsigned long long>(long_.canary_after), table.computations.bucket_count());
  std::abort();
}

InFlight::JoinResult InFlight::Join(std::string_view text, uint32_t variant, uint64_t removals, const Waiter& waiter,
                                    ComputationPtr* computation) {
  Table& table = IsLong(text) ? long_ : short_;
  // SYNC E3 (acquire): as in size. What is not counted has ended, and is seen so (ended).
  if (table.count.load(std::memory_order_acquire) == 0) return JoinResult::kNone;
  const Key key{text, variant, removals, HashOf(text, variant)};
  if (!table.mutex.TryLockBriefly()) return JoinResult::kBusy;
  const MutexLock lock(table.mutex, MutexLock::Held());
  CheckCanaries(table);
  const auto found = table.computations.find(key);
  if (found == table.computations.end()) return JoinResult::kNone;
  Computation& under_way = *found->second;
  if (under_way.truncated && (waiter.options & kOptionReject) != 0) return JoinResult::kTooLong;
  if (under_way.waiters.size() >= kWaitersMax) return JoinResult::kFull;
  Attach(&under_way, waiter);
  under_way.waiters.back().joined = true;
  *computation = found->second;
  return JoinResult::kJoined;
}

bool InFlight::Start(const ComputationPtr& computation, Waiter first) {
  assert(computation->waiters.empty());
  computation->waiters.reserve(1);
  computation->is_long = IsLong(computation->text);
  computation->hash = HashOf(computation->text, computation->variant);
  Table& table = TableOf(computation);
  if (!table.mutex.TryLockBriefly()) return false;
  const MutexLock lock(table.mutex, MutexLock::Held());
  const bool added = table.computations.emplace(KeyOf(*computation), computation).second;
  Attach(computation.get(), std::move(first));  // allocates nothing
  assert(added);
  static_cast<void>(added);
  // relaxed: only this thread starts computations of this table; LongTexts::Done publishes it to the loop
  table.count.fetch_add(1, std::memory_order_relaxed);
  return true;
}

void InFlight::EraseLocked(Table* table, const ComputationPtr& computation) {
  const auto found = table->computations.find(KeyOf(*computation));
  if (found == table->computations.end() || found->second != computation) return;
  table->computations.erase(found);
  table->ended.store(table->ended.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);  // under the lock
  // SYNC E3 (release): the insert into the cache, which precedes the removal; meets SYNC E3 (acquire) in size.
  table->count.fetch_sub(1, std::memory_order_release);
  // relaxed: changed under the lock only
  assert(table->count.load(std::memory_order_relaxed) == table->computations.size());
}

size_t InFlight::Prune(const ComputationPtr& computation, const std::function<bool(const Waiter&)>& gone,
                       std::vector<Waiter>* removed) {
  Table& table = TableOf(computation);
  const MutexLock lock(table.mutex);
  return PruneLocked(&table, computation, gone, removed);
}

bool InFlight::Truncate(const ComputationPtr& computation, std::vector<Waiter>* removed) {
  Table& table = TableOf(computation);
  const MutexLock lock(table.mutex);
  const auto refuses = [](const Waiter& waiter) { return (waiter.options & kOptionReject) != 0; };
  const bool wanted = PruneLocked(&table, computation, refuses, removed) > 0;
  computation->truncated = true;
  return wanted;
}

size_t InFlight::PruneLocked(Table* table, const ComputationPtr& computation,
                             const std::function<bool(const Waiter&)>& gone, std::vector<Waiter>* removed) {
  std::vector<Waiter>& waiters = computation->waiters;
  // Before anything moves, since it may throw: a partition moves waiters too, through memory that it may do without.
  removed->reserve(removed->size() + waiters.size());
  const auto first_gone =
      std::stable_partition(waiters.begin(), waiters.end(), [&](const Waiter& waiter) { return !gone(waiter); });
  removed->insert(removed->end(), std::make_move_iterator(first_gone), std::make_move_iterator(waiters.end()));
  waiters.erase(first_gone, waiters.end());
  if (waiters.empty()) EraseLocked(table, computation);
  return waiters.size();
}

std::optional<uint64_t> InFlight::LifetimeToStore(const ComputationPtr& computation) const {
  const MutexLock lock(TableOf(computation).mutex);
  return computation->store ? std::optional(computation->ttl_s) : std::nullopt;
}

std::vector<Waiter> InFlight::Finish(const ComputationPtr& computation) {
  Table& table = TableOf(computation);
  const MutexLock lock(table.mutex);
  EraseLocked(&table, computation);
  return std::move(computation->waiters);
}

std::optional<std::vector<Waiter>> InFlight::FinishStored(const ComputationPtr& computation,
                                                          std::optional<uint64_t> stored) {
  Table& table = TableOf(computation);
  const MutexLock lock(table.mutex);
  if (computation->store && (!stored.has_value() || computation->ttl_s > *stored)) return std::nullopt;
  EraseLocked(&table, computation);
  return std::move(computation->waiters);
}

size_t InFlight::WaitersLocked(const Table& table) {
  size_t count = 0;
  for (const auto& [key, computation] : table.computations) count += computation->waiters.size();
  return count;
}

void InFlight::TakeAllLocked(Table* table, std::vector<Waiter>* all) {
  for (auto& [key, computation] : table->computations) {
    std::move(computation->waiters.begin(), computation->waiters.end(), std::back_inserter(*all));
    computation->waiters.clear();
  }
  table->computations.clear();
  table->count.store(0, std::memory_order_release);  // SYNC E3 (release): as in EraseLocked
}

std::vector<Waiter> InFlight::TakeAll() {
  const MutexLock lock_short(short_.mutex);  // the only place that takes both
  const MutexLock lock_long(long_.mutex);
  std::vector<Waiter> all;
  all.reserve(WaitersLocked(short_) + WaitersLocked(long_));
  TakeAllLocked(&short_, &all);
  TakeAllLocked(&long_, &all);
  return all;
}

}  // namespace sutra
