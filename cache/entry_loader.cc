// Segments from the newest to the oldest, since what was used last is asked for first; then, one by one, what they did
// not give.
#include "cache/entry_loader.h"

#include <pthread.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <new>

#include "cache/disk/disk_io.h"
#include "shm/base/clock.h"
#include "shm/base/time.h"

namespace sutra {
namespace {

constexpr size_t kAskedMax = 64;
constexpr uint64_t kPatienceNs = 2 * kNsPerSecond;
constexpr uint64_t kFailureNs = kNsPerSecond;

bool HasBody(RecordState state) { return state == RecordState::kBadInsertBody || state == RecordState::kBadWatermark; }

}  // namespace

// For as long as a segment may be open; begun before it is opened.
class EntryLoader::Reading {
 public:
  Reading(EntryLoader* loader, uint64_t segment) : loader_(loader) {
    const MutexLock lock(loader->mutex_);
    place_ = loader->reading_.insert(segment);
  }
  ~Reading() {
    const MutexLock lock(loader_->mutex_);
    loader_->reading_.erase(place_);
    loader_->closed_.NotifyAll();
  }
  Reading(const Reading&) = delete;
  Reading& operator=(const Reading&) = delete;

 private:
  EntryLoader* const loader_;
  std::multiset<uint64_t>::iterator place_;
};

void EntryLoader::LetGo(uint64_t through) {
  const MutexLock lock(mutex_);
  gone_through_.store(through, std::memory_order_relaxed);
  while (!reading_.empty() && *reading_.begin() <= through) closed_.Wait(mutex_);
}

EntryLoader::EntryLoader(SlotTable* store, DiskIo* io, Clock* clock, const RecoveryRequest& request,
                         const std::vector<RecoveredSegment>& chain, LogLine log_line)
    : store_(store), io_(io), clock_(clock), request_(request), log_line_(std::move(log_line)) {
  asked_.reserve(kAskedMax);  // Ask needs no memory
  for (const RecoveredSegment& segment : chain) segments_.emplace(segment.number, segment.id);
}

void EntryLoader::Start(std::function<void()> first) {
  if (store_->GetCounts().unread == 0) {
    if (first) first();
    SayLost();
    return;
  }
  running_.store(true, std::memory_order_relaxed);
  thread_ = std::thread([this, first = std::move(first)] { Run(first); });
}

void EntryLoader::Stop() {
  {
    const MutexLock lock(mutex_);
    stopping_.store(true, std::memory_order_relaxed);
    wake_.NotifyAll();
  }
  if (thread_.joinable()) thread_.join();
}

void EntryLoader::Run(const std::function<void()>& first) {
  pthread_setname_np(pthread_self(), "sutra-load");
  try {
    if (first) first();
    LoadAll();
    while (!stopping_.load(std::memory_order_relaxed) && store_->GetCounts().unread > 0) {
      ReadAsked();
      SayLost();
      MutexLock lock(mutex_);
      if (asked_.empty() && !stopping_.load(std::memory_order_relaxed)) wake_.Wait(mutex_);
    }
  } catch (const std::bad_alloc&) {
    // For a line of the log. What is unread stays so, and is computed when it is asked for.
  }
  running_.store(false, std::memory_order_relaxed);
}

bool EntryLoader::Ask(uint32_t slot) {
  const uint64_t now = clock_->MonotonicNs(), failed_at = failed_at_ns_.load(std::memory_order_relaxed);
  if (!running_.load(std::memory_order_relaxed) || (failed_at != 0 && now - failed_at < kFailureNs)) return false;
  if (!mutex_.TryLockBriefly()) return true;  // asked again in the next turn
  const MutexLock lock(mutex_, MutexLock::Held());
  if (asked_since_ns_ == 0) asked_since_ns_ = now;
  if (now - asked_since_ns_ > kPatienceNs) return false;
  if (asked_.size() < asked_.capacity() && std::find(asked_.begin(), asked_.end(), slot) == asked_.end()) {
    asked_.push_back(slot);
    any_asked_.store(true, std::memory_order_relaxed);
    wake_.NotifyOne();
  }
  return true;
}

void EntryLoader::ReadAsked() {
  std::array<uint32_t, kAskedMax> slots;
  size_t count = 0;
  {
    const MutexLock lock(mutex_);
    count = asked_.size();
    std::copy(asked_.begin(), asked_.end(), slots.begin());
    asked_.clear();
    any_asked_.store(false, std::memory_order_relaxed);
  }
  for (size_t i = 0; i < count; ++i) {
    Load(slots[i]);
    if (PlaceOf(slots[i]).has_value()) failed_at_ns_.store(clock_->MonotonicNs(), std::memory_order_relaxed);
  }
  const MutexLock lock(mutex_);
  asked_since_ns_ = asked_.empty() ? 0 : clock_->MonotonicNs();
}

void EntryLoader::LoadAll() {
  const uint64_t started_ns = clock_->MonotonicNs(), unread = store_->GetCounts().unread;
  for (auto segment = segments_.rbegin(); segment != segments_.rend() && store_->GetCounts().unread > 0; ++segment) {
    TryReadSegment(segment->first, true);
  }
  uint64_t cursor = 0;
  for (uint32_t slot; (slot = store_->NextUnread(&cursor)) != SlotTable::kNoSlot; ++cursor) {
    if (stopping_.load(std::memory_order_relaxed)) return;
    if (any_asked_.load(std::memory_order_relaxed)) ReadAsked();
    Load(slot);
  }
  SayRead(started_ns, unread);
  SayLost();
}

void EntryLoader::SayRead(uint64_t started_ns, uint64_t unread) const {
  if (!log_line_ || unread == 0) return;
  const uint64_t left = store_->GetCounts().unread;
  log_line_(LogLevel::kInfo, "cache: the texts and vectors of " + std::to_string(unread - left) +
                                 " entries were read in " +
                                 std::to_string((clock_->MonotonicNs() - started_ns) / kNsPerMs) + " ms");
  if (left > 0) {
    log_line_(LogLevel::kError, "cache: the records of " + std::to_string(left) + " entries in " + request_.directory +
                                    " cannot be read now; each is tried again when it is asked for; check the disk "
                                    "(kernel messages, SMART)");
  }
}

// Once when everything was read, and for what is found damaged later when it is found.
void EntryLoader::SayLost() {
  const uint64_t lost = this->lost();
  if (!log_line_ || said_lost_.exchange(lost, std::memory_order_relaxed) == lost) return;
  log_line_(LogLevel::kError, "cache: the records of " + std::to_string(lost) + " entries in " + request_.directory +
                                  " are damaged; these entries are to be computed again; check the disk (kernel "
                                  "messages, SMART)");
}

Result<std::unique_ptr<WalReader>> EntryLoader::Open(uint64_t segment) const {
  const auto found = segments_.find(segment);
  if (found == segments_.end() || HasGone(segment))
    return Status(StatusCode::kStorageError, "no segment of this start", ENOENT);
  return WalReader::Open(io_, PathOf(segment), {segment, request_.model, request_.width, found->second});
}

std::optional<SlotTable::LogPlace> EntryLoader::PlaceOf(uint32_t slot) const {
  const MutexLock lock(store_->mutex());
  return store_->UnreadPlaceLocked(slot);
}

void EntryLoader::LoadSegment(uint64_t number) { TryReadSegment(number, false); }

void EntryLoader::TryReadSegment(uint64_t number, bool until_stopped) {
  try {
    const Status status = ReadSegment(number, until_stopped);
    static_cast<void>(status);  // what is unread still is tried one by one
  } catch (const std::bad_alloc&) {
    return;  // likewise
  }
}

Status EntryLoader::ReadSegment(uint64_t number, bool until_stopped) {
  const Reading reading(this, number);
  Result<std::unique_ptr<WalReader>> opened = Open(number);
  if (!opened.ok()) return opened.status();
  WalReader& reader = **opened;
  if (reader.header_state() != HeaderState::kGood) return {};
  SegmentIndex index;
  if (const Result<IndexState> state = reader.ReadIndex(&index); !state.ok()) return state.status();
  for (uint64_t expected = reader.header().previous_valid_through + 1;;) {
    if (HasGone(number) || (until_stopped && stopping_.load(std::memory_order_relaxed))) return {};
    if (until_stopped && any_asked_.load(std::memory_order_relaxed)) ReadAsked();
    WalRecord record;
    const Result<RecordState> state = reader.Classify(expected, &record);
    if (!state.ok()) return state.status();
    switch (state.value()) {
      case RecordState::kGood:
        if (record.type() == RecordType::kInsert) Fill(record, number);
        break;
      case RecordState::kEndOfSegment:
      case RecordState::kUnwritten: return {};
      default: break;
    }
    if (state.value() == RecordState::kGood || HasBody(state.value())) {
      reader.Skip(record);
      ++expected;
      continue;
    }
    const Result<uint64_t> resumed = reader.Resync(expected);
    if (!resumed.ok()) return resumed.status();
    if (resumed.value() == 0) return {};
    expected = resumed.value();
  }
}

void EntryLoader::Fill(const WalRecord& record, uint64_t segment) {
  const uint32_t slot = record.header.slot;
  const SlotTable::LogPlace place{segment, static_cast<uint32_t>(record.offset / kRecordAlign)};
  if (PlaceOf(slot) != place) return;
  const EntryKey key = store_->KeyOf(record.text, record.insert.variant);
  LongText::Ptr text = SlotTable::CopyLongText(key);
  const MutexLock lock(store_->mutex());
  if (store_->UnreadPlaceLocked(slot) != place) return;
  if (store_->FillLocked(slot, key, record.vector, record.insert.norm, &text)) return;
  store_->ClearLocked(slot);  // the index of its segment says something else of it
  lost_.fetch_add(1, std::memory_order_relaxed);
}

void EntryLoader::Load(uint32_t slot) {
  const std::optional<SlotTable::LogPlace> place = PlaceOf(slot);
  if (!place.has_value()) return;
  try {
    const Result<bool> right = ReadRecord(slot, *place);
    if (right.ok() && !right.value()) Drop(slot, *place);
  } catch (const std::bad_alloc&) {
    return;
  }
}

Result<bool> EntryLoader::ReadRecord(uint32_t slot, const SlotTable::LogPlace& place) {
  const Reading reading(this, place.segment);
  Result<std::unique_ptr<WalReader>> opened = Open(place.segment);
  if (!opened.ok()) return opened.status();
  const HeaderState header = (*opened)->header_state();
  if (header == HeaderState::kMisplaced || header == HeaderState::kUnreadable) {
    return Status(StatusCode::kStorageError, PathOf(place.segment) + " is not there, or cannot be read");
  }
  if (header != HeaderState::kGood) return false;
  WalRecord record;
  const Result<RecordState> state = (*opened)->ReadAt(uint64_t{place.offset} * kRecordAlign, &record);
  if (!state.ok()) return state.status();
  if ((*opened)->unreadable_blocks() > 0) {
    return Status(StatusCode::kStorageError, "a block of " + PathOf(place.segment) + " cannot be read");
  }
  if (state.value() != RecordState::kGood || record.type() != RecordType::kInsert || record.header.slot != slot) {
    return false;
  }
  Fill(record, place.segment);
  return true;
}

void EntryLoader::Drop(uint32_t slot, const SlotTable::LogPlace& place) {
  const MutexLock lock(store_->mutex());
  if (store_->UnreadPlaceLocked(slot) != place) return;  // it was read, or has gone, meanwhile
  store_->ClearLocked(slot);
  lost_.fetch_add(1, std::memory_order_relaxed);
}

void EntryLoader::LoadOrDrop(uint32_t slot) {
  const std::optional<SlotTable::LogPlace> place = PlaceOf(slot);
  if (!place.has_value()) return;
  LoadSegment(place->segment);
  Load(slot);
  Drop(slot, *place);
}

}  // namespace sutra
