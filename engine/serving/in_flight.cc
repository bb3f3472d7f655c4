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

size_t InFlight::KeyHash::operator()(const Key& key) const {
  return XXH3_64bits_withSeed(key.text.data(), key.text.size(), seed ^ key.variant);
}

void InFlight::CheckCanaries() const {
  if (canary_before_ == kCanary && canary_after_ == kCanary && computations_.bucket_count() != 0) return;
  std::fprintf(stderr,
               "sutra-engine: the memory of the in-flight table is corrupted (canaries %016llx %016llx, %zu buckets): "
               "something wrote outside its own memory; please report this line with the core dump\n",
               static_cast<unsigned long long>(canary_before_), static_cast<unsigned long long>(canary_after_),
               computations_.bucket_count());
  std::abort();
}

InFlight::JoinResult InFlight::Join(std::string_view text, uint32_t variant, const Waiter& waiter,
                                    ComputationPtr* computation) {
  if (size() == 0) return JoinResult::kNone;
  if (!mutex_.TryLockBriefly()) return JoinResult::kBusy;
  const MutexLock lock(mutex_, MutexLock::Held());
  CheckCanaries();
  const auto found = computations_.find(Key{text, variant});
  if (found == computations_.end()) return JoinResult::kNone;
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
  if (!mutex_.TryLockBriefly()) return false;
  const MutexLock lock(mutex_, MutexLock::Held());
  const bool added = computations_.emplace(Key{computation->text, computation->variant}, computation).second;
  Attach(computation.get(), std::move(first));  // allocates nothing
  assert(added);
  static_cast<void>(added);
  count_.fetch_add(1, std::memory_order_relaxed);  // only the loop thread starts computations, and it is the reader
  return true;
}

void InFlight::EraseLocked(const ComputationPtr& computation) {
  const auto found = computations_.find(Key{computation->text, computation->variant});
  if (found == computations_.end() || found->second != computation) return;
  computations_.erase(found);
  ended_.store(ended_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);  // relaxed: under the lock
  // SYNC E3 (release): the insert into the cache, which precedes the removal; meets SYNC E3 (acquire) in size.
  count_.fetch_sub(1, std::memory_order_release);
  assert(count_.load(std::memory_order_relaxed) == computations_.size());  // relaxed: changed under the lock only
}

size_t InFlight::Prune(const ComputationPtr& computation, const std::function<bool(const Waiter&)>& gone,
                       std::vector<Waiter>* removed) {
  const MutexLock lock(mutex_);
  return PruneLocked(computation, gone, removed);
}

bool InFlight::Truncate(const ComputationPtr& computation, std::vector<Waiter>* removed) {
  const MutexLock lock(mutex_);
  const auto refuses = [](const Waiter& waiter) { return (waiter.options & kOptionReject) != 0; };
  const bool wanted = PruneLocked(computation, refuses, removed) > 0;
  computation->truncated = true;
  return wanted;
}

size_t InFlight::PruneLocked(const ComputationPtr& computation, const std::function<bool(const Waiter&)>& gone,
                             std::vector<Waiter>* removed) {
  std::vector<Waiter>& waiters = computation->waiters;
  // Before anything moves, since it may throw: a partition moves waiters too, through memory that it may do without.
  removed->reserve(removed->size() + waiters.size());
  const auto first_gone =
      std::stable_partition(waiters.begin(), waiters.end(), [&](const Waiter& waiter) { return !gone(waiter); });
  removed->insert(removed->end(), std::make_move_iterator(first_gone), std::make_move_iterator(waiters.end()));
  waiters.erase(first_gone, waiters.end());
  if (waiters.empty()) EraseLocked(computation);
  return waiters.size();
}

std::optional<uint64_t> InFlight::LifetimeToStore(const ComputationPtr& computation) const {
  const MutexLock lock(mutex_);
  return computation->store ? std::optional(computation->ttl_s) : std::nullopt;
}

std::vector<Waiter> InFlight::Finish(const ComputationPtr& computation) {
  const MutexLock lock(mutex_);
  EraseLocked(computation);
  return std::move(computation->waiters);
}

std::optional<std::vector<Waiter>> InFlight::FinishStored(const ComputationPtr& computation,
                                                          std::optional<uint64_t> stored) {
  const MutexLock lock(mutex_);
  if (computation->store && (!stored.has_value() || computation->ttl_s > *stored)) return std::nullopt;
  EraseLocked(computation);
  return std::move(computation->waiters);
}

std::vector<Waiter> InFlight::TakeAll() {
  const MutexLock lock(mutex_);
  std::vector<Waiter> all;
  size_t count = 0;
  for (const auto& [key, computation] : computations_) count += computation->waiters.size();
  all.reserve(count);
  for (auto& [key, computation] : computations_) {
    std::move(computation->waiters.begin(), computation->waiters.end(), std::back_inserter(all));
    computation->waiters.clear();
  }
  computations_.clear();
  count_.store(0, std::memory_order_release);  // SYNC E3 (release): as in EraseLocked
  return all;
}

}  // namespace sutra
