// How much may wait for the model: texts and bytes of text in total, and per client by dynamic thresholds (Choudhury
// and Hahne 1998). A text is refused when its client has as many texts waiting as there are places left, or would have
// more bytes waiting than are left. So one client alone holds at most half, k clients that want all they can get leave
// one part in k + 1 free for a newcomer, the client refused first is the one with the longest queue, and nothing that
// was accepted is ever evicted. It also says when a refused client may try again.
//
// Thread rule: Admits and Add belong to the loop thread, Remove and CountServed to the workers; the counts may be read
// by any thread. All accesses are relaxed: only counts; a removal that is seen late refuses a text a moment longer.
// Invariant: what waits never exceeds the bounds, if every Add was admitted.
#pragma once

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstddef>
#include <cstdint>

#include "engine/lanes/client.h"

namespace sutra {

class QueueBounds {
 public:
  static constexpr uint32_t kRetryMsMax = 30'000;
  static constexpr uint32_t kRetryMsUnknown = 100;  // before anything was served

  QueueBounds(uint64_t texts_max, uint64_t bytes_max, uint32_t workers = 1)
      : texts_max_(texts_max), bytes_max_(bytes_max), workers_(workers) {
    assert(texts_max > 0 && bytes_max > 0 && workers > 0);
  }

  uint64_t texts() const { return Get(texts_); }
  uint64_t bytes() const { return Get(bytes_); }
  uint64_t cost() const { return Get(cost_); }

  bool Admits(const Client& client, size_t text_bytes) const {
    const uint64_t texts_free = Left(texts_max_, texts()), bytes_free = Left(bytes_max_, bytes());
    return Get(client.queued_texts) < texts_free && text_bytes <= bytes_free &&
           Get(client.queued_bytes) <= bytes_free - text_bytes;
  }

  void Add(Client* client, size_t text_bytes, uint32_t cost) {
    Raise(&client->queued_texts, 1);
    Raise(&client->queued_bytes, text_bytes);
    Raise(&texts_, 1);
    Raise(&bytes_, text_bytes);
    Raise(&cost_, cost);
  }
  void Remove(Client* client, size_t text_bytes, uint32_t cost) {
    Lower(&client->queued_texts, 1);
    Lower(&client->queued_bytes, text_bytes);
    Lower(&texts_, 1);
    Lower(&bytes_, text_bytes);
    Lower(&cost_, cost);
  }

  // A worker served texts of this cost in this time.
  void CountServed(uint64_t cost, uint64_t ns) {
    const double rate = static_cast<double>(cost) * 1e9 / static_cast<double>(std::max<uint64_t>(ns, 1));
    const double before = cost_per_second_.load(std::memory_order_relaxed);
    const double after = before == 0 ? rate : before + (rate - before) * kRateWeight;
    cost_per_second_.store(after, std::memory_order_relaxed);
  }

  // When a refused client may try again: when half of what waits is served, which is about when a client at its
  // threshold has half its places free. While it waits, all workers are busy. In [1, kRetryMsMax].
  uint32_t RetryAfterMs() const {
    const double rate = cost_per_second_.load(std::memory_order_relaxed) * workers_;
    if (rate <= 0) return kRetryMsUnknown;
    const double ms = static_cast<double>(cost()) / 2 / rate * 1000;
    return static_cast<uint32_t>(std::clamp(ms, 1.0, static_cast<double>(kRetryMsMax)));
  }

 private:
  static constexpr double kRateWeight = 1.0 / 8;  // of the last batch

  static uint64_t Get(const std::atomic<uint64_t>& count) { return count.load(std::memory_order_relaxed); }
  static void Raise(std::atomic<uint64_t>* count, uint64_t by) { count->fetch_add(by, std::memory_order_relaxed); }
  static void Lower(std::atomic<uint64_t>* count, uint64_t by) {
    [[maybe_unused]] const uint64_t before = count->fetch_sub(by, std::memory_order_relaxed);
    assert(before >= by);
  }
  static uint64_t Left(uint64_t max, uint64_t used) { return max > used ? max - used : 0; }

  const uint64_t texts_max_;
  const uint64_t bytes_max_;
  const uint32_t workers_;
  std::atomic<uint64_t> texts_{0};
  std::atomic<uint64_t> bytes_{0};
  std::atomic<uint64_t> cost_{0};
  std::atomic<double> cost_per_second_{0};  // of one worker
};

}  // namespace sutra
