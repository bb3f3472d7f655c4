// The oracle of the simulated runs: drives a shard and remembers, outside of it, what may be there after a crash: for
// each key the last change that was durable (or, for a kill, written) and every change attempted after it. One thread.
//
// An eviction is a change too (it is noticed by a lookup after each call that counted one), and counted apart where it
// is undone. Where entries are unread and the disk has failed, a lookup that finds nothing says nothing.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/cache/cache_test_support.h"
#include "tests/sim/manual_clock.h"

namespace sutra::sim {

// What a start found.
struct Judgement {
  uint64_t lost = 0;        // durable entries and changes that are not there
  uint64_t wrong = 0;       // answers that were never put there, and entries that were removed
  uint64_t revived = 0;     // entries that are back although their eviction was durable
  uint64_t given_back = 0;  // durable entries that a full disk has cost
  std::string failure;      // the first one
};

class Oracle {
 public:
  explicit Oracle(ManualClock* clock) : clock_(clock) {}

  // Called after each call of the shard and before its promises count: what a crash in the middle of it may leave.
  void SetMiddle(std::function<void()> middle) { middle_ = std::move(middle); }

  // Whether an operation of the shard's disk has failed since it was opened.
  void SetDiskFails(std::function<bool()> disk_fails) { disk_fails_ = std::move(disk_fails); }

  // A shard was opened: what it answers is durable, because recovery synced what it read.
  void Attach(LoggedShard* shard) {
    shard_ = shard;
    dropped_ = 0;
    left_ = LeftOf(shard->Stats());
  }

  void Put(const std::string& text) {
    const int version = ++version_;
    histories_[text].changes.push_back({version});
    test::Put(shard_, text, static_cast<uint32_t>(version));
    Called();
  }

  void Erase(const std::string& text) {
    histories_[text].changes.push_back({-1});
    const size_t at = histories_[text].changes.size() - 1;
    const bool erased = shard_->Erase(text, 0).ok();
    Called();
    History& history = histories_[text];
    history.changes[at].may_be_lost = !erased;
    if (erased) history.durable = std::max(history.durable, at);
    removals_ += erased ? 1 : 0;
  }

  // Of what a filter finds, or of everything.
  void RemoveMany(const CacheFilter& filter) {
    std::map<std::string, size_t> removed;
    for (auto& [text, history] : histories_) {
      if (!filter.everything && text.find(filter.contains) == std::string::npos) continue;
      const bool perhaps = history.changes.back().perhaps;
      if (!filter.everything && history.changes.back().state == -1 && !perhaps) continue;  // not in memory
      history.changes.push_back({-1});
      if (filter.everything || !perhaps) removed[text] = history.changes.size() - 1;
    }
    const auto go_on = [](uint64_t, uint64_t) { return true; };
    const Result<CacheAdmin::Preview> preview = shard_->PreviewRemoval(filter, go_on);
    const bool confirmed = preview.ok() && shard_->CommitRemoval(preview->token, go_on).ok();
    // What a disk that has failed does not let it read goes, too: nobody knows what it contains.
    for (auto& [text, history] : histories_) {
      const bool may_go = preview.ok() && preview->lost > 0 && removed.count(text) == 0;
      if (may_go && test::VersionOf(shard_, text) == -1) history.changes.push_back({-1, true, false, true});
    }
    Called();
    for (const auto& [text, at] : removed) {
      History& history = histories_[text];
      history.changes[at].may_be_lost = !confirmed;
      if (confirmed) history.durable = std::max(history.durable, at);
    }
    many_removals_ += confirmed ? 1 : 0;
  }

  void Compact() {
    compactions_ += shard_->Compact([](uint64_t, uint64_t) { return true; }).ok() ? 1 : 0;
    Called();
  }

  void Sync() {
    const bool synced = shard_->Sync().ok();
    Called();
    if (synced) MarkAll(&History::durable);
  }

  // Lets time pass; beyond the write bound what was accepted is written, beyond the sync bound it is durable.
  void Advance(uint64_t ms) {
    clock_->Advance(ms * 1'000'000);
    shard_->Turn();
    Called();
    const CacheStats stats = shard_->Stats();
    if (stats.storage_failed || stats.wal_pending_records != 0) return;
    if (ms >= 60) MarkAll(&History::written);
    if (ms >= 1100 && stats.wal_oldest_unsynced_us == 0) MarkAll(&History::durable);
  }

  // "" or what is wrong with the answer of the running shard.
  std::string CheckRunning(const std::string& text) {
    const int state = test::VersionOf(shard_, text);
    const std::vector<History::Change>& changes = histories_[text].changes;
    for (auto change = changes.rbegin();; ++change) {
      if (state == change->state) return "";
      if (!change->perhaps) break;
    }
    const int expected = changes.back().state;
    return state == -1 && MayBeUnread()
               ? ""
               : text + " answers " + std::to_string(state) + ", not " + std::to_string(expected);
  }

  // Looks for every text, in some order.
  void AskAll(LoggedShard* shard) const {
    for (const auto* history : InSomeOrder()) test::VersionOf(shard, history->first);
  }

  // What a shard that was opened after a crash at this moment has lost or made up. `disk_full`: it was since the last
  // start; the log may have given segments back whose entries only memory still held (WAL_FORMAT.md, "A full disk").
  Judgement Judge(LoggedShard* shard, bool power_cut, bool disk_full = false) const {
    Judgement judgement;
    for (const auto* one : InSomeOrder()) {
      const auto& [text, history] = *one;
      const int state = test::VersionOf(shard, text);
      if (history.Allows(state, history.FirstOf(power_cut))) continue;
      if (history.Allows(state, history.Evicted(history.FirstOf(power_cut)))) {
        ++judgement.revived;
        Note(&judgement, text, history, state, power_cut);
        continue;
      }
      if (state == -1 && disk_full) {
        ++judgement.given_back;
        continue;
      }
      const bool removed = history.changes[history.Evicted(history.FirstOf(power_cut))].state == -1;
      ++(state != -1 && (removed || !history.Allows(state, 0)) ? judgement.wrong : judgement.lost);
      Note(&judgement, text, history, state, power_cut);
    }
    return judgement;
  }

  // Judges the attached shard; its answers become the new starting point.
  Judgement CheckRecovered(bool power_cut, bool disk_full = false) {
    const Judgement judgement = Judge(shard_, power_cut, disk_full);
    for (auto& [text, history] : histories_) {
      history = History();
      history.changes[0].state = test::VersionOf(shard_, text);
    }
    return judgement;
  }

  uint64_t evictions() const { return evictions_; }          // noticed
  uint64_t removals() const { return removals_; }            // confirmed
  uint64_t many_removals() const { return many_removals_; }  // likewise, of a filter or everything
  uint64_t compactions() const { return compactions_; }      // that succeeded

 private:
  struct History {  // state -1 is "absent"
    struct Change {
      int state = -1;
      bool may_be_lost = false;  // the shard said that it dropped records
      bool evicted = false;
      bool perhaps = false;  // it was not found, but may only be unread
    };
    std::vector<Change> changes{{}};
    size_t durable = 0;  // survives a power cut
    size_t written = 0;  // survives a kill

    size_t FirstOf(bool power_cut) const { return power_cut ? durable : std::max(durable, written); }
    // The change before the evictions at `first`.
    size_t Evicted(size_t first) const {
      while (first > 0 && changes[first].evicted) --first;
      return first;
    }
    bool Allows(int state, size_t first) const {
      return std::any_of(changes.begin() + static_cast<std::ptrdiff_t>(first), changes.end(),
                         [state](const Change& change) { return change.state == state; });
    }
  };

  static void Note(Judgement* judgement, const std::string& text, const History& history, int state, bool power_cut) {
    if (!judgement->failure.empty()) return;
    judgement->failure = text.substr(0, 7) + " is " + std::to_string(state) + " after " +
                         (power_cut ? "a power cut" : "a kill") + "; durable was " +
                         std::to_string(history.changes[history.durable].state) + ", written " +
                         std::to_string(history.changes[history.written].state) + ", last " +
                         std::to_string(history.changes.back().state);
  }

  std::vector<const std::pair<const std::string, History>*> InSomeOrder() const {
    std::vector<const std::pair<const std::string, History>*> order;
    for (const auto& one : histories_) order.push_back(&one);
    std::shuffle(order.begin(), order.end(), std::mt19937_64(static_cast<uint64_t>(version_)));
    return order;
  }

  // A lookup on a disk that has failed may miss it; what the log could not read before it gave a segment back is gone.
  bool MayBeUnread() const {
    const CacheStats stats = shard_->Stats();
    return stats.unread_entries + stats.recovered_dropped > 0 && disk_fails_ && disk_fails_();
  }

  static uint64_t LeftOf(const CacheStats& stats) { return stats.evictions + stats.wal_evictions; }

  void Called() {
    NoticeDrops();
    NoticeEvictions();
    if (middle_) middle_();
  }

  void MarkAll(size_t History::*index) {
    for (auto& [text, history] : histories_) {
      for (size_t i = history.*index; i < history.changes.size(); ++i) {
        if (!history.changes[i].may_be_lost) history.*index = i;
      }
    }
  }

  void NoticeDrops() {
    const uint64_t dropped = shard_->Stats().wal_dropped_inserts;
    if (dropped == dropped_) return;
    dropped_ = dropped;
    for (auto& [text, history] : histories_) {
      for (size_t i = history.durable + 1; i < history.changes.size(); ++i) history.changes[i].may_be_lost = true;
      history.written = history.durable;
    }
  }

  void NoticeEvictions() {
    const uint64_t left = LeftOf(shard_->Stats());
    if (left == left_) return;
    left_ = left;
    for (auto& [text, history] : histories_) {
      if (history.changes.back().state == -1 || test::VersionOf(shard_, text) != -1) continue;
      if (MayBeUnread()) {
        history.changes.push_back({-1, true, false, true});
        continue;
      }
      // Perhaps for an insert that the log did not accept.
      history.changes.push_back({-1, dropped_ != 0, true});
      ++evictions_;
    }
  }

  ManualClock* const clock_;
  LoggedShard* shard_ = nullptr;
  std::function<void()> middle_;
  std::function<bool()> disk_fails_;
  std::map<std::string, History> histories_;
  int version_ = 0;
  uint64_t dropped_ = 0, left_ = 0, evictions_ = 0, removals_ = 0;
  uint64_t many_removals_ = 0, compactions_ = 0;
};

}  // namespace sutra::sim
