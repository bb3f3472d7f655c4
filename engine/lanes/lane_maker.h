// Makes the memory of lanes and gives it back, on a thread of its own: for a lane of full size (4,096 slots of 8,192
// floats) either takes tens of milliseconds, which the loop does not have.
//
// Thread rule: the loop thread orders and takes what was made; any thread hands over what has ended (the last reference
// to a lane may be a worker's). Whoever drops the last reference to the maker waits until everything is given back.
// Invariants:
//  - Every lane that is ordered, made or ended carries its charge, so the bound of lanes bounds the three queues, and
//    handing something over never allocates.
//  - A charge is returned after the memory is gone, and not before.
//  - Memory that cannot be had fails that one order.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "engine/lanes/client_table.h"
#include "engine/lanes/lane.h"
#include "shm/base/mutex.h"
#include "shm/lane_memory.h"

namespace sutra {

class LaneMaker {
 public:
  struct Order {
    uint64_t id = 0;  // comes back with what was made
    LaneGeometry geometry;
    LaneIdentity identity;
    ClientTable::Charge charge;
  };
  struct Made {
    uint64_t id = 0;
    Status status;  // not ok: why there is no memory
    ClientTable::Charge charge;
    LaneMemory memory;
  };

  explicit LaneMaker(uint32_t lanes_max);
  ~LaneMaker();
  LaneMaker(const LaneMaker&) = delete;
  LaneMaker& operator=(const LaneMaker&) = delete;

  // kOk, or why there is no thread. Until then orders wait.
  Status Start();
  // Readable when something was made or given back. The loop clears it with TakeMade.
  int fd() const { return event_.get(); }

  void Make(Order order);
  // What was made, oldest first; nothing when there is no more.
  std::optional<Made> TakeMade();

  // Gives back a lane, or memory that no lane got.
  void GiveBack(std::unique_ptr<Lane> lane, ClientTable::Charge charge);
  void GiveBack(LaneMemory memory, ClientTable::Charge charge);
  // Handed over, but not gone yet: their charges will be returned.
  // SYNC E4 (acquire): the charges of those that are gone were returned; meets SYNC E4 (release) in EndOne.
  uint32_t ending() const { return ending_.load(std::memory_order_acquire); }

  // From now on the files of lanes are closed as they are: the engine leaves, and its clients still have the requests
  // that were not answered.
  void KeepTexts() { keep_texts_.store(true, std::memory_order_relaxed); }  // relaxed: queues order what follows

 private:
  struct Ended {
    ClientTable::Charge charge;  // destroyed last
    LaneMemory memory;
    std::unique_ptr<Lane> lane;
  };

  void Run();
  bool MakeOne();
  bool EndOne();
  void End(Ended ended);
  void Ring() const;

  const uint32_t lanes_max_;
  const UniqueFd event_;  // in-process only: an eventfd never crosses a trust boundary
  std::atomic<bool> keep_texts_{false};
  std::atomic<uint32_t> ending_{0};
  std::thread thread_;

  Mutex mutex_;
  CondVar work_;
  std::vector<Order> orders_ SUTRA_GUARDED_BY(mutex_);
  std::vector<Made> made_ SUTRA_GUARDED_BY(mutex_);
  std::vector<Ended> ended_ SUTRA_GUARDED_BY(mutex_);
  bool stopping_ SUTRA_GUARDED_BY(mutex_) = false;
};

}  // namespace sutra
