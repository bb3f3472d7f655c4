// The bounced line, bare slots, the futex ping-pong.
#include "bench/lanes/comparators.h"

#include <atomic>
#include <cstring>
#include <new>
#include <vector>

#include "bench/bench_report.h"
#include "bench/lanes/measure.h"
#include "shm/base/cpu_pause.h"
#include "shm/base/numbers.h"
#include "shm/base/time.h"
#include "shm/sleep_wake.h"

namespace sutra::bench {
namespace {

constexpr size_t kBareSlots = 256;

struct alignas(64) BareSlot {
  std::atomic<uint64_t> request;  // position + 1, stored last
  std::atomic<uint64_t> reply;
  char text[kTextBytes];
  alignas(64) char vector[kVectorBytes];
};

const uint32_t* Address(std::atomic<uint32_t>* word) { return reinterpret_cast<const uint32_t*>(word); }

void SleepUntil(std::atomic<uint32_t>* word, uint32_t expected) {
  for (uint32_t value; (value = word->load(std::memory_order_acquire)) != expected;) {
    FutexWait(Address(word), value, MonotonicNs() + kNsPerSecond);
  }
}

}  // namespace

double BouncedLineNs(int windows, int round_trips) {
  const SharedPages pages(4096);
  auto* word = new (pages.get()) std::atomic<uint64_t>(0);
  const Peer peer([word] {
    for (uint64_t expected = 1;; expected += 2) {
      while (word->load(std::memory_order_acquire) != expected) CpuPause();
      word->store(expected + 1, std::memory_order_release);
    }
  });
  uint64_t next = 1;
  return WindowsNs(windows, round_trips, [&](int count) {
    for (int i = 0; i < count; ++i, next += 2) {
      word->store(next, std::memory_order_release);
      while (word->load(std::memory_order_acquire) != next + 1) CpuPause();
    }
  });
}

double BareSlotsNs(uint64_t window, int windows, int requests) {
  const SharedPages pages(sizeof(BareSlot) * kBareSlots);
  auto* slots = new (pages.get()) BareSlot[kBareSlots]();
  const Peer peer([slots] {
    char constant[kVectorBytes];
    std::memset(constant, 0x3d, sizeof(constant));
    for (uint64_t position = 0;; ++position) {
      BareSlot& slot = slots[position % kBareSlots];
      while (slot.request.load(std::memory_order_acquire) != position + 1) {
      }
      Touch(slot.text, kTextBytes);
      std::memcpy(slot.vector, constant, kVectorBytes);
      slot.reply.store(position + 1, std::memory_order_release);
    }
  });
  char text[kTextBytes];
  std::memset(text, 'x', sizeof(text));
  uint64_t submitted = 0, taken = 0;
  return WindowsNs(windows, requests, [&](int count) {
    const uint64_t end = taken + static_cast<uint64_t>(count);
    while (taken < end) {
      for (; submitted < end && submitted - taken < window; ++submitted) {
        BareSlot& slot = slots[submitted % kBareSlots];
        std::memcpy(slot.text, text, kTextBytes);
        slot.request.store(submitted + 1, std::memory_order_release);
      }
      BareSlot& slot = slots[taken % kBareSlots];
      while (slot.reply.load(std::memory_order_acquire) != taken + 1) {
      }
      Touch(slot.vector, kVectorBytes);
      ++taken;
    }
  });
}

double FutexPingPongNs(int round_trips, uint64_t pause_us) {
  const SharedPages pages(4096);
  auto* words = new (pages.get()) std::atomic<uint32_t>[64]();
  std::atomic<uint32_t>*to = words, *back = words + 32;
  const Peer peer([to, back] {
    for (uint32_t i = 1;; ++i) {
      SleepUntil(to, i);
      back->store(i, std::memory_order_release);
      FutexWakeAll(Address(back));
    }
  });
  std::vector<double> trips;
  for (uint32_t i = 1; i <= static_cast<uint32_t>(round_trips); ++i) {
    SleepUs(pause_us);
    const uint64_t start_ns = MonotonicNs();
    to->store(i, std::memory_order_release);
    FutexWakeAll(Address(to));
    SleepUntil(back, i);
    trips.push_back(static_cast<double>(MonotonicNs() - start_ns));
  }
  return Median(trips);
}

}  // namespace sutra::bench
