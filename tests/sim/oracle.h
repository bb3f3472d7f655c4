// The oracle of the simulated runs: drives a shard and remembers, outside of it, what may be there after a crash: for
// each key the last change that was durable (or, for a kill, written) and every change attempted after it. One thread.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "tests/cache/cache_test_support.h"
#include "tests/sim/manual_clock.h"

namespace sutra::sim {

class Oracle {
 public:
  explicit Oracle(ManualClock* clock) : clock_(clock) {}

  // A shard was opened: what it answers is durable, because recovery synced what it read.
  void Attach(LoggedShard* shard) {
    shard_ = shard;
    dropped_ = 0;
  }

  void Put(const std::string& text) {
    const int version = ++version_;
    histories_[text].changes.push_back({version, false});
    test::Put(shard_, text, static_cast<uint32_t>(version));
    NoticeDrops();
  }

  void Erase(const std::string& text) {
    History& history = histories_[text];
    history.changes.push_back({-1, false});
    const bool erased = shard_->Erase(text, 0).ok();
    NoticeDrops();
    history.changes.back().may_be_lost = !erased;
    if (erased) history.durable = history.changes.size() - 1;
  }

  void Sync() {
    const bool synced = shard_->Sync().ok();
    NoticeDrops();
    if (synced) MarkAll(&History::durable);
  }

  // Lets time pass; beyond the write bound what was accepted is written, beyond the sync bound it is durable.
  void Advance(uint64_t ms) {
    clock_->Advance(ms * 1'000'000);
    shard_->Turn();
    NoticeDrops();
    const CacheStats stats = shard_->Stats();
    if (stats.storage_failed || stats.wal_pending_records != 0) return;
    if (ms >= 60) MarkAll(&History::written);
    if (ms >= 1100 && stats.wal_oldest_unsynced_us == 0) MarkAll(&History::durable);
  }

  // "" or what is wrong with the answer of the running shard.
  std::string CheckRunning(const std::string& text) {
    const int state = test::VersionOf(shard_, text);
    const int expected = histories_[text].changes.back().state;
    return state == expected ? "" : text + " answers " + std::to_string(state) + ", not " + std::to_string(expected);
  }

  // "" or what is wrong with a newly opened shard; its answers become the new starting point.
  std::string CheckRecovered(bool power_cut) {
    std::string failure;
    for (auto& [text, history] : histories_) {
      const int state = test::VersionOf(shard_, text);
      if (!history.Allows(state, power_cut) && failure.empty()) {
        failure = text + " is " + std::to_string(state) + " after " + (power_cut ? "a power cut" : "a kill") +
                  "; durable was " + std::to_string(history.changes[history.durable].state) + ", written " +
                  std::to_string(history.changes[history.written].state) + ", last " +
                  std::to_string(history.changes.back().state);
      }
      history = History();
      history.changes[0].state = state;
    }
    return failure;
  }

 private:
  struct History {  // state -1 is "absent"
    struct Change {
      int state = -1;
      bool may_be_lost = false;  // the shard said that it dropped records
    };
    std::vector<Change> changes{{-1, false}};
    size_t durable = 0;  // survives a power cut
    size_t written = 0;  // survives a kill

    bool Allows(int state, bool power_cut) const {
      for (size_t i = power_cut ? durable : std::max(durable, written); i < changes.size(); ++i) {
        if (changes[i].state == state) return true;
      }
      return false;
    }
  };

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

  ManualClock* const clock_;
  LoggedShard* shard_ = nullptr;
  std::map<std::string, History> histories_;
  int version_ = 0;
  uint64_t dropped_ = 0;
};

}  // namespace sutra::sim
