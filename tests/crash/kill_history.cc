// Reading a journal, and judging a start by it.
#include "tests/crash/kill_history.h"

#include <algorithm>
#include <set>

#include "shm/base/time.h"

namespace sutra::test {
namespace {

constexpr uint64_t kWrittenWithinNs = 60 * kNsPerMs;  // 50 ms is promised

}  // namespace

void KillHistory::Read(const KillSet& begin, std::span<const KillRecord> records) {
  for (const Call& call : calls_) {
    for (const Change& change : call.changes) {
      if (change.version == -1) removed_[change.key] = !change.evicted;
    }
  }
  calls_.clear();
  written_ = evictions_ = removals_ = 0;
  begin_ = begin;
  for (const KillRecord& record : records) {
    switch (record.event) {
      case KillEvent::kPut:
        calls_.push_back({{{record.key, int64_t{record.version}, false}}, record.ns, false});
        ever_.insert({record.key, int64_t{record.version}});
        break;
      case KillEvent::kErase: calls_.push_back({{{record.key, -1, false}}, record.ns, false}); break;
      case KillEvent::kEraseAlso: calls_.back().changes.push_back({record.key, -1, false}); break;
      case KillEvent::kEvicted:
        if (calls_.empty() || calls_.back().done) calls_.push_back({{}, record.ns, false});  // by the log
        calls_.back().changes.push_back({record.key, -1, true});
        ++evictions_;
        break;
      case KillEvent::kDone:
        if (!calls_.empty()) calls_.back().done = true;
        break;
      case KillEvent::kConfirmed:
        removals_ += !calls_.empty() && !calls_.back().done ? 1 : 0;
        written_ = calls_.size();
        break;
      case KillEvent::kWritten: written_ = calls_.size(); break;
      case KillEvent::kFound:
      case KillEvent::kReady:
      case KillEvent::kWrong: break;
    }
  }
}

bool KillHistory::IsBetween(const KillSet& before, const Call& call, const KillSet& found) {
  KillSet after = before;
  for (const Change& change : call.changes) after[change.key] = change.version;
  // Not all of its evictions are known if the kill came before they were told; they are in the log if the change is.
  const bool untold = !call.done && !call.changes.empty() && found[call.changes.front().key] >= 0 &&
                      found[call.changes.front().key] == call.changes.front().version;
  for (size_t key = 0; key < found.size(); ++key) {
    if (found[key] != before[key] && found[key] != after[key] && !(untold && found[key] == -1)) return false;
  }
  return true;
}

KillVerdict KillHistory::Judge(const KillSet& found, uint64_t died_ns) const {
  KillSet set = begin_;
  size_t fits = calls_.size() + 1;  // the latest call after which the set is what was found
  for (size_t done = 0; done <= calls_.size(); ++done) {
    if (done >= written_) {
      if (set == found || (done < calls_.size() && IsBetween(set, calls_[done], found))) fits = done;
    }
    if (done == calls_.size()) break;
    for (const Change& change : calls_[done].changes) set[change.key] = change.version;
  }
  if (fits > calls_.size()) return Explain(found);
  KillVerdict verdict;
  verdict.late = std::any_of(calls_.begin() + static_cast<std::ptrdiff_t>(fits), calls_.end(),
                             [&](const Call& call) { return call.ns + kWrittenWithinNs < died_ns && call.done; });
  return verdict;
}

// Which entries are not as they were at any time since the last call that was written.
KillVerdict KillHistory::Explain(const KillSet& found) const {
  KillVerdict verdict;
  for (uint16_t key = 0; key < kKillKeys; ++key) {
    std::set<int64_t> allowed;
    int64_t state = begin_[key];
    bool removed = removed_[key];
    for (size_t i = 0; i < calls_.size(); ++i) {
      if (i == written_) allowed.insert(state);
      for (const Change& change : calls_[i].changes) {
        if (change.key != key) continue;
        state = change.version;
        if (i >= written_) {
          allowed.insert(state);
        } else if (state == -1) {
          removed = !change.evicted;
        }
      }
    }
    allowed.insert(state);
    if (allowed.count(found[key]) != 0) continue;
    uint64_t* count = &verdict.missing;
    const char* what = "is missing";
    if (found[key] >= 0 && ever_.count({key, found[key]}) == 0) {
      count = &verdict.wrong, what = "was never there";
    } else if (found[key] >= 0 && *allowed.begin() == -1) {
      count = removed ? &verdict.returned : &verdict.revived, what = removed ? "was removed" : "was evicted";
    }
    ++*count;
    if (verdict.text.empty()) {
      verdict.text = "key " + std::to_string(key) + " is " + std::to_string(found[key]) + " and " + what +
                     "; possible was " + std::to_string(*allowed.begin()) + ".." + std::to_string(*allowed.rbegin());
    }
  }
  if (verdict.text.empty()) {
    verdict.mixed = 1;
    verdict.text = "each entry is as it was at some time, but not all at the same";
  }
  verdict.text += ", " + std::to_string(written_) + " of " + std::to_string(calls_.size()) + " changes written";
  return verdict;
}

}  // namespace sutra::test
