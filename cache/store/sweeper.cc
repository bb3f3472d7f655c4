// The clock and the thread of the sweep.
#include "cache/store/sweeper.h"

#include <pthread.h>

#include <utility>

#include "shm/base/clock.h"
#include "shm/base/numbers.h"
#include "shm/base/time.h"

namespace sutra {
namespace {

constexpr uint64_t kPeriodNs = 60 * kNsPerSecond;

}  // namespace

Sweeper::Sweeper(SlotTable* table, Clock* clock, bool threaded, std::function<void()> each_minute)
    : table_(table), clock_(clock), each_minute_(std::move(each_minute)), due_ns_(clock->MonotonicNs() + kPeriodNs) {
  if (threaded) thread_ = std::thread(&Sweeper::Run, this);
}

void Sweeper::Close() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    wake_.NotifyAll();
  }
  if (thread_.joinable()) thread_.join();
}

void Sweeper::RunDue() {
  const uint64_t now = clock_->MonotonicNs();
  if (now < due_ns_) return;
  // A machine that was suspended owes more than one share, but no more than all.
  const uint64_t periods = 1 + (now - due_ns_) / kPeriodNs;
  due_ns_ += periods * kPeriodNs;
  const uint64_t slots = table_->slots_used();
  table_->Sweep(periods >= kRounds ? slots : periods * DivideRoundUp(slots, kRounds), clock_->BootNs());
  if (each_minute_) each_minute_();
}

void Sweeper::Run() {
  pthread_setname_np(pthread_self(), "sutra-sweep");
  MutexLock lock(mutex_);
  while (!stopping_) {
    lock.Unlock();
    RunDue();
    lock.Lock();
    if (!stopping_) clock_->WaitUntil(&wake_, &mutex_, due_ns_);
  }
}

}  // namespace sutra
