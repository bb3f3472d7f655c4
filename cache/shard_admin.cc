// Looking at a shard's entries, one by one or all of them, and having its log written anew.
#include <algorithm>
#include <new>

#include "cache/logged_shard.h"
#include "shm/base/clock.h"
#include "shm/base/time.h"

namespace sutra {
namespace {

CacheEntry EntryOf(EntryCopy* copy, uint64_t now_ns) {
  const uint64_t left_ns = copy->facts.expires_ns - now_ns;
  const uint64_t ttl_ns = copy->facts.ttl_s * kNsPerSecond;
  CacheEntry entry;
  entry.text = std::move(copy->text);
  entry.variant = copy->variant;
  entry.vector = std::move(copy->vector);
  entry.value = copy->value;
  entry.age_s = ttl_ns > left_ns ? (ttl_ns - left_ns) / kNsPerSecond : 0;
  entry.left_s = left_ns / kNsPerSecond;
  entry.hit = copy->facts.hit;
  entry.hot = copy->facts.hot;
  return entry;
}

Status NoMemory() { return Status(StatusCode::kOutOfMemory, "out of memory"); }  // short: needs none itself

}  // namespace

Result<CacheEntry> LoggedShard::Get(std::string_view text, uint32_t variant) {
  try {
    const uint32_t slot = store_.FindSlot(store_.KeyOf(text, variant));
    EntryCopy copy;
    const uint64_t now_ns = clock_->BootNs();
    if (slot != SlotTable::kNoSlot && loader_ != nullptr) loader_->Load(slot);
    if (slot == SlotTable::kNoSlot || !store_.CopyEntry(slot, &copy) || copy.text != text || copy.variant != variant ||
        copy.facts.expires_ns <= now_ns) {
      return Status(StatusCode::kBadOption, "not cached");
    }
    return EntryOf(&copy, now_ns);
  } catch (const std::bad_alloc&) {
    return NoMemory();
  }
}

Result<bool> LoggedShard::Visit(Which which, uint64_t* cursor, const std::function<bool(const CacheEntry&)>& visit) {
  constexpr uint64_t kSlotsAtOnce = 64;
  try {
    std::vector<uint32_t> slots;
    EntryCopy copy;
    for (bool last = false; !last;) {
      uint64_t end = *cursor;
      slots.clear();
      last = store_.VisitFacts(&end, kSlotsAtOnce, [&](const EntryFacts& facts) {
        if (which == Which::kAll || facts.hot) slots.push_back(facts.slot);
      });
      for (const uint32_t slot : slots) {
        if (loader_ != nullptr) loader_->Load(slot);
        const uint64_t now_ns = clock_->BootNs();
        if (!store_.CopyEntry(slot, &copy) || copy.facts.expires_ns <= now_ns) continue;
        *cursor = uint64_t{slot} + 1;
        if (!visit(EntryOf(&copy, now_ns))) return false;
      }
      *cursor = end;
    }
    return true;
  } catch (const std::bad_alloc&) {
    return NoMemory();
  }
}

Result<CacheAdmin::Compaction> LoggedShard::Compact(const GoOn& go_on) {
  constexpr uint64_t kAskEveryNs = 5 * kNsPerMs;
  if (committer_ == nullptr) return Status(StatusCode::kBadOption, "this shard keeps no log");
  if (!log_->has_room())
    return Status(StatusCode::kStorageError, "the disk has no room for another segment of the log");
  std::shared_ptr<WalCommit> commit;
  if (!storage_lost()) commit = committer_->RequestCompaction();
  if (commit == nullptr) return Refused();
  committer_->Wake();
  bool cancelled = false;
  Mutex mutex;
  CondVar nobody;
  for (MutexLock lock(mutex); !commit->finished();) {
    const uint64_t before = shared_.compaction.before.load(kRelaxed), left = shared_.compaction.left.load(kRelaxed);
    if (!cancelled && !go_on(before - std::min(before, left), before)) {
      cancelled = true;
      committer_->CancelCompaction();
      committer_->Wake();
    }
    Turn();
    if (options_.threaded && !commit->finished())
      clock_->WaitUntil(&nobody, &mutex, clock_->MonotonicNs() + kAskEveryNs);
  }
  if (!commit->Wait()) return cancelled ? Status(StatusCode::kCancelled, "cancelled") : Refused();
  return Compaction{shared_.compaction.before.load(kRelaxed), shared_.compaction.after.load(kRelaxed)};
}

}  // namespace sutra
