// Random schedules of changes, removals, evictions, disk faults, kills and power cuts of a shard on the simulated disk,
// each checked against an oracle: after a start every entry is one of {the last that was durable, any attempted after
// it} (P1, P2, P3, P5). In some schedules the store is full, in some the log goes round often.
//
// Beside the crashes that a schedule has itself, copies of the disk are taken before its operations (writes, syncs,
// names), starts included: each copy gets a power cut or a kill of its own, half of them a second one in the middle of
// the start that follows, and is judged too. `every` 1 does so at every operation.
//
// In half of the schedules a start reads no entry before somebody asks for it, so that changes, removals, evictions,
// faults and cuts meet entries which only the log holds still. What the start found is judged on a copy of the disk.
//
// Counted:
//   lost     a durable, acknowledged entry or change that is not there
//   wrong    an answer that was never put there, or an entry that was removed
//   revived  an entry that was evicted and is back, although what it made room for is durable
//   refused  a start that was refused, or that reported damage; a running shard that answers otherwise than it should
//            (an entry that is still to be read may be missed, after a fault of the disk)
//
// Thread rule: a schedule is one thread's and a function of its seed.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "tests/sim/sim_disk.h"

namespace sutra::sim {

using MakeSimDisk = std::function<std::unique_ptr<SimDisk>(uint64_t seed)>;

struct PowerCutOptions {
  uint64_t schedules = 2000;
  uint64_t seed = 1;           // of the first schedule; the next ones follow
  uint64_t every = 8;          // operations between two copies; schedule after schedule another one is the first
  uint64_t full_percent = 33;  // of the schedules have more texts than entries
  uint64_t jobs = 1;           // threads
  uint64_t progress_s = 0;     // seconds between lines of progress on standard error; 0: none
  bool end_at_first = false;
  bool verbose = false;  // the shard's log on standard output
  MakeSimDisk make_disk = [](uint64_t disk_seed) { return std::make_unique<SimDisk>(disk_seed); };
};

struct PowerCutTotals {
  uint64_t schedules = 0, cuts = 0, second_cuts = 0, kills = 0, lost = 0, wrong = 0, refused = 0;
  uint64_t revived = 0;  // evicted entries that a start found
  uint64_t removals = 0, evictions = 0;
  uint64_t many_removals = 0, compactions = 0;  // removals of a filter or of everything
  uint64_t indexed = 0;                         // segments that starts have read by their index
  uint64_t unread = 0;                          // entries that starts have left to be read when they are asked for
  uint64_t dropped = 0;       // entries whose records were not what the index says; each is one refused start, too
  uint64_t written_over = 0;  // segments in files of older ones, at each crash
  uint64_t given_back = 0;    // durable entries in segments that a full disk made the log give back: no failure here
  uint64_t ms = 0;
  std::string failure;  // of the smallest seed that failed
  uint64_t failed_seed = 0;

  bool good() const { return lost + wrong + refused + revived == 0; }
  void Add(const PowerCutTotals& other);
};

// One schedule; `failure` of the result is empty if all is well.
PowerCutTotals RunPowerCutSchedule(uint64_t seed, const PowerCutOptions& options);

// `stop`: ends the run early and in good order.
PowerCutTotals RunPowerCuts(const PowerCutOptions& options, const std::atomic<bool>* stop = nullptr);

}  // namespace sutra::sim
