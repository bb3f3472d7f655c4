// Orders come first: somebody waits for those.
#include "engine/lanes/lane_maker.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <new>
#include <utility>

#include "shm/base/thread_start.h"

namespace sutra {
namespace {

// The queues are short (few attach at the same time), so the oldest is simply taken from the front.
template <typename T>
bool TakeOldest(std::vector<T>* queue, T* oldest) {
  if (queue->empty()) return false;
  *oldest = std::move(queue->front());
  queue->erase(queue->begin());
  return true;
}

}  // namespace

LaneMaker::LaneMaker(uint32_t lanes_max) : lanes_max_(lanes_max), event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  const MutexLock lock(mutex_);
  orders_.reserve(lanes_max);
  made_.reserve(lanes_max);
  ended_.reserve(lanes_max);
}

LaneMaker::~LaneMaker() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    work_.NotifyAll();
  }
  if (thread_.joinable()) thread_.join();
  while (EndOne()) {
  }
}

Status LaneMaker::Start() {
  if (!event_) return Status::FromErrno(StatusCode::kOutOfMemory, "creating the event of the lanes' thread", errno);
  return StartThread("the lanes' memory", [this] { thread_ = std::thread([this] { Run(); }); });
}

void LaneMaker::Make(Order order) {
  const MutexLock lock(mutex_);
  assert(orders_.size() < lanes_max_);
  orders_.push_back(std::move(order));
  work_.NotifyOne();
}

std::optional<LaneMaker::Made> LaneMaker::TakeMade() {
  uint64_t count;
  static_cast<void>(!read(event_.get(), &count, sizeof(count)));  // before the look: what comes later rings again
  const MutexLock lock(mutex_);
  Made made;
  if (!TakeOldest(&made_, &made)) return std::nullopt;
  return made;
}

void LaneMaker::GiveBack(std::unique_ptr<Lane> lane, ClientTable::Charge charge) {
  End({.charge = std::move(charge), .memory = LaneMemory(), .lane = std::move(lane)});
}

void LaneMaker::GiveBack(LaneMemory memory, ClientTable::Charge charge) {
  End({.charge = std::move(charge), .memory = std::move(memory), .lane = nullptr});
}

void LaneMaker::End(Ended ended) {
  const MutexLock lock(mutex_);
  assert(ended_.size() < lanes_max_);
  ending_.fetch_add(1, std::memory_order_relaxed);  // relaxed: the mutex orders it before its end
  ended_.push_back(std::move(ended));
  work_.NotifyOne();
}

void LaneMaker::Run() {
  pthread_setname_np(pthread_self(), "sutra-lanes");
  for (;;) {
    while (MakeOne() || EndOne()) {
    }
    const MutexLock lock(mutex_);
    if (!orders_.empty() || !ended_.empty()) continue;
    if (stopping_) return;
    work_.Wait(mutex_);
  }
}

bool LaneMaker::MakeOne() {
  Order order;
  {
    const MutexLock lock(mutex_);
    if (!TakeOldest(&orders_, &order)) return false;
  }
  Made made = {.id = order.id, .status = {}, .charge = std::move(order.charge), .memory = LaneMemory()};
  try {
    Result<LaneMemory> memory = LaneMemory::Create(order.geometry, order.identity);
    if (memory.ok()) {
      made.memory = std::move(memory).value();
    } else {
      made.status = memory.status();
    }
  } catch (const std::bad_alloc&) {
    made.status = Status(StatusCode::kOutOfMemory, "");
  }
  const MutexLock lock(mutex_);
  assert(made_.size() < lanes_max_);
  made_.push_back(std::move(made));
  Ring();
  return true;
}

bool LaneMaker::EndOne() {
  {
    Ended ended;
    {
      const MutexLock lock(mutex_);
      if (!TakeOldest(&ended_, &ended)) return false;
    }
    const LaneMemory& memory = ended.lane != nullptr ? ended.lane->memory() : ended.memory;
    if (!keep_texts_.load(std::memory_order_relaxed)) memory.PunchClientFiles();  // relaxed: see KeepTexts
  }
  // SYNC E4 (release): its charge was returned before; meets SYNC E4 (acquire) in ending.
  ending_.fetch_sub(1, std::memory_order_release);
  Ring();
  return true;
}

void LaneMaker::Ring() const {
  const uint64_t one = 1;
  static_cast<void>(!write(event_.get(), &one, sizeof(one)));
}

}  // namespace sutra
