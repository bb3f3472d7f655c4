// Removals of many entries: a preview finds them and remembers each in eight bytes; the commit takes them out, in steps
// that keep writers waiting for microseconds, and waits for the disk once, at its end.
//
// The fence for all keys is raised twice. Before anything goes, so that no computation that began before stores what
// was taken out already; and when all is gone, so that whoever has copied an entry to elsewhere before it went learns
// by the number of removals that his copy is of before. A removal of everything is one record, handed to the log at the
// first fence: from there on what was there is doomed, which a bit of each slot says, and nothing of it is appended
// again.
#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <set>

#include "cache/logged_shard.h"
#include "shm/base/clock.h"
#include "shm/base/random.h"
#include "shm/base/time.h"

namespace sutra {
namespace {

constexpr uint64_t kSlotsAtOnce = 64;   // looked at under one lock
constexpr size_t kRemovalsAtOnce = 32;  // taken out under one lock
constexpr uint64_t kTurnSlots = 8192;   // looked at between two questions whether to go on
constexpr size_t kTurnRemovals = 4096;  // taken out between two of them

Status CheckFilter(const CacheFilter& filter) {
  const bool conditions = !filter.contains.empty() || filter.older_than_s > 0 || filter.never_hit;
  if (!filter.any()) return Status(StatusCode::kBadOption, "a removal needs a condition, or to say everything");
  if (filter.everything && conditions) {
    return Status(StatusCode::kBadOption, "everything and a condition contradict each other");
  }
  if (filter.contains.size() > kFilterContainsBytesMax) {
    return Status(StatusCode::kBadOption,
                  "contains is longer than " + std::to_string(kFilterContainsBytesMax) + " bytes");
  }
  return {};
}

bool Contains(std::string_view text, const std::string& what) {
  return what.empty() || memmem(text.data(), text.size(), what.data(), what.size()) != nullptr;
}

// All but the text.
bool Matches(const CacheFilter& filter, const EntryFacts& facts, uint64_t now_ns) {
  if (facts.expires_ns <= now_ns) return false;
  if (filter.never_hit && facts.hit) return false;
  const uint64_t left_ns = facts.expires_ns - now_ns, ttl_ns = facts.ttl_s * kNsPerSecond;
  return filter.older_than_s == 0 || (ttl_ns >= left_ns && (ttl_ns - left_ns) / kNsPerSecond >= filter.older_than_s);
}

Status Cancelled() { return Status(StatusCode::kCancelled, "cancelled"); }
Status NoMemory() { return Status(StatusCode::kOutOfMemory, "out of memory"); }  // short: needs none itself

}  // namespace

Result<CacheAdmin::Preview> LoggedShard::PreviewRemoval(const CacheFilter& filter, const GoOn& go_on) {
  planned_.reset();
  if (Status status = CheckFilter(filter); !status.ok()) return status;
  PlannedRemoval plan;
  Preview preview;
  if (filter.everything) {
    const SlotTable::Counts counts = store_.GetCounts();
    preview.entries = preview.examined = counts.entries;
    preview.bytes = counts.bytes;
  } else {
    try {
      plan.filter = filter;
      if (Status status = FindDoomed(filter, go_on, &plan, &preview); !status.ok()) return status;
    } catch (const std::bad_alloc&) {
      return NoMemory();
    }
  }
  plan.filter.everything = filter.everything;
  preview.token = plan.token = RandomSeed();
  plan.until_ns = clock_->MonotonicNs() + kPreviewSecondsMax * kNsPerSecond;
  planned_ = std::move(plan);
  return preview;
}

// Segment after segment, and one by one what damage or the disk hides from that. What cannot be read stays unread.
Status LoggedShard::ReadUnread(const GoOn& go_on) {
  if (loader_ == nullptr) return {};
  const uint64_t total = store_.GetCounts().unread;
  std::set<uint64_t> segments;
  uint64_t cursor = 0;
  for (uint32_t slot; (slot = store_.NextUnread(&cursor)) != SlotTable::kNoSlot; ++cursor) {
    std::optional<SlotTable::LogPlace> place;
    {
      const MutexLock lock(store_.mutex());
      place = store_.UnreadPlaceLocked(slot);
    }
    const uint64_t left = store_.GetCounts().unread;
    if (!go_on(total - std::min(total, left), total)) return Cancelled();
    if (place.has_value() && segments.insert(place->segment).second) loader_->LoadSegment(place->segment);
    loader_->Load(slot);
  }
  return {};
}

Status LoggedShard::FindDoomed(const CacheFilter& filter, const GoOn& go_on, PlannedRemoval* plan, Preview* preview) {
  if (!filter.contains.empty()) {
    if (Status status = ReadUnread(go_on); !status.ok()) return status;
  }
  const uint64_t now_ns = clock_->BootNs();
  const auto doom = [&](const EntryFacts& facts) {
    plan->doomed.push_back(plan->by_text() ? facts.hash : uint64_t{facts.slot} << 32 | facts.birth);
    ++(facts.unread && !filter.contains.empty() ? preview->lost : preview->entries);
    preview->bytes += facts.bytes;
  };
  std::vector<EntryFacts> long_ones;  // read without the lock
  uint64_t cursor = 0, asked = 0;
  for (bool last = false; !last;) {
    last = store_.VisitFacts(&cursor, kSlotsAtOnce, [&](const EntryFacts& facts) {
      ++preview->examined;
      if (!Matches(filter, facts, now_ns)) return;
      if (filter.contains.empty() || facts.unread) {
        doom(facts);
      } else if (facts.is_long) {
        long_ones.push_back(facts);
      } else if (Contains(facts.text, filter.contains)) {
        doom(facts);
      }
    });
    for (const EntryFacts& facts : long_ones) {
      const LongText::Ptr text = store_.LongTextOf(facts.slot, facts.hash);
      if (text != nullptr && Contains(text->view(), filter.contains)) doom(facts);
    }
    long_ones.clear();
    if (cursor < asked + kTurnSlots) continue;
    asked = cursor;
    if (!go_on(cursor, store_.slots_used())) return Cancelled();
  }
  return {};
}

Result<CacheAdmin::Removal> LoggedShard::CommitRemoval(uint64_t token, const GoOn& go_on) {
  const std::optional<PlannedRemoval> plan = std::exchange(planned_, std::nullopt);
  if (!plan.has_value() || token != plan->token || clock_->MonotonicNs() > plan->until_ns) {
    return Status(StatusCode::kBadOption, "there is no such preview, or it is too old: make another one");
  }
  Removal removed;
  RemovalRecords records;
  bool finished = go_on(0, plan->filter.everything ? store_.GetCounts().entries : plan->doomed.size());
  if (!finished) return Cancelled();
  {
    const MutexLock lock(store_.mutex());
    fences_.RaiseAll();
    if (plan->filter.everything) {
      store_.DoomAllLocked();
      PushRemovalsLocked(std::array{UnplacedRecord::DropAll()}, &records);
    }
  }
  if (plan->filter.everything) {
    uint64_t cursor = 0;
    while (!store_.ClearDoomed(&cursor, kRemovalsAtOnce, &removed.entries, &removed.bytes)) continue;
  } else {
    finished = RemoveDoomed(*plan, go_on, &removed, &records);
  }
  uint64_t removals = 0;
  {
    const MutexLock lock(store_.mutex());
    removals = fences_.RaiseAll();
  }
  if (config_.observer != nullptr) config_.observer->OnManyErased(removals);
  AwaitRemovals(0, &records);
  if (records.refused) {
    owes_removals_.store(true, kRelaxed);
    return Refused();
  }
  if (plan->filter.everything) {
    owes_removals_.store(false, kRelaxed);
  } else if (owes_removals_.load(kRelaxed) || (committer_ != nullptr && shared_.failed.load(kRelaxed))) {
    // Also where nothing was found: the log may hold what has gone from memory alone.
    return Status(StatusCode::kStorageError,
                  "the log has failed, or has refused an earlier removal: a start would bring back entries that no "
                  "filter sees now. What was found is removed; to be sure, start the engine again and repeat this, or "
                  "remove everything");
  }
  if (!finished) return Cancelled();
  return removed;
}

// The slot where the entry is now; kNoSlot if it has gone. A long text's bytes are the caller's to look at.
uint32_t LoggedShard::DoomedSlotLocked(const PlannedRemoval& plan, uint64_t doomed) const {
  if (!plan.by_text()) {
    const auto slot = static_cast<uint32_t>(doomed >> 32);
    return store_.IsSameLocked(slot, static_cast<uint32_t>(doomed)) ? slot : SlotTable::kNoSlot;
  }
  return store_.SlotWhereLocked(doomed, [&](const EntryFacts& facts) {
    return facts.unread || facts.is_long || Contains(facts.text, plan.filter.contains);
  });
}

UnplacedRecord LoggedShard::RemoveLocked(uint32_t slot, const KeyDigest& digest, Removal* removed) {
  const UnplacedRecord record = UnplacedRecord::Erase({digest.low, digest.high, store_.VariantLocked(slot)});
  ++removed->entries;
  removed->bytes += store_.FactsLocked(slot).bytes;
  store_.ClearLocked(slot);
  return record;
}

// False when it was cancelled.
bool LoggedShard::RemoveDoomed(const PlannedRemoval& plan, const GoOn& go_on, Removal* removed,
                               RemovalRecords* records) {
  std::array<UnplacedRecord, kRemovalsAtOnce> removals;
  std::array<uint64_t, kRemovalsAtOnce> long_ones;
  const std::vector<uint64_t>& doomed = plan.doomed;
  for (size_t begin = 0; begin < doomed.size(); begin += kRemovalsAtOnce) {
    size_t count = 0, long_count = 0;
    {
      const MutexLock lock(store_.mutex());
      for (size_t i = begin; i < std::min(doomed.size(), begin + kRemovalsAtOnce); ++i) {
        const uint32_t slot = DoomedSlotLocked(plan, doomed[i]);
        if (slot == SlotTable::kNoSlot) continue;
        const EntryFacts facts = store_.FactsLocked(slot);
        if (facts.is_long && !facts.unread) {
          long_ones[long_count++] = doomed[i];
        } else {
          removals[count++] = RemoveLocked(slot, store_.DigestLocked(slot), removed);
        }
      }
      PushRemovalsLocked(std::span(removals).first(count), records);
    }
    for (size_t i = 0; i < long_count; ++i) RemoveLong(plan, long_ones[i], removed, records);
    AwaitRemovals(WalCommitter::kRemovalGroupsMax, records);
    if (begin % kTurnRemovals != 0 || begin == 0) continue;
    Turn();
    if (!go_on(begin, doomed.size())) return false;
  }
  return true;
}

// A look at its text, and its digest, take too long for the lock.
void LoggedShard::RemoveLong(const PlannedRemoval& plan, uint64_t doomed, Removal* removed, RemovalRecords* records) {
  for (bool again = true; again;) {
    EntryFacts facts;
    uint32_t variant = 0;
    {
      const MutexLock lock(store_.mutex());
      const uint32_t slot = DoomedSlotLocked(plan, doomed);
      if (slot == SlotTable::kNoSlot) return;
      facts = store_.FactsLocked(slot);
      variant = store_.VariantLocked(slot);
    }
    const LongText::Ptr text = store_.LongTextOf(facts.slot, facts.hash);
    if (text == nullptr) continue;  // it has just gone
    if (!Contains(text->view(), plan.filter.contains)) return;
    const KeyDigest digest = DigestOf(text->view(), variant, store_.seed());
    const MutexLock lock(store_.mutex());
    again = DoomedSlotLocked(plan, doomed) != facts.slot || !store_.HasTextLocked(facts.slot, text.get());
    if (!again) PushRemovalsLocked(std::array{RemoveLocked(facts.slot, digest, removed)}, records);
  }
}

void LoggedShard::PushRemovalsLocked(std::span<const UnplacedRecord> removals, RemovalRecords* records) {
  if (committer_ == nullptr || removals.empty()) return;
  if (storage_lost() || !committer_->PushRemovals(removals, &records->commits)) records->refused = true;
}

void LoggedShard::AwaitRemovals(size_t left, RemovalRecords* records) {
  if (records->commits.size() - records->awaited <= left) return;
  // Their groups need not be the last ones: all that is pending is asked for, and each of them must have been durable.
  bool refused = false;
  static_cast<void>(committer_->RequestSync(&refused));
  Turn();
  for (; records->commits.size() - records->awaited > left; ++records->awaited) {
    if (!committer_->Await(records->commits[records->awaited].get())) records->refused = true;
  }
}

}  // namespace sutra
