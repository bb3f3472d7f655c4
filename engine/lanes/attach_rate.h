// How often a user may attach, and how much memory it may be given by that. Each attach costs the engine some work, and
// reply memory that a client can keep for itself by keeping the descriptor (a reply lane cannot be punched: what was
// delivered stays readable); a user that attaches all the time must not cost the others their service.
//
// A bucket per user: `burst` at once, then `per_second`. Of attaches the burst is what one client of the library may
// have (64 lanes), so that a pool that opens all of them at once is never slowed down. Whoever comes too early is told
// when to come again, and the library does so, within its timeout: an engine that was restarted gets its thousand lanes
// back in 5 s.
//
// Thread rule: the loop thread. Header-only.
#pragma once

#include <sys/types.h>

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <map>

#include "shm/base/numbers.h"
#include "shm/base/time.h"

namespace sutra {

class AttachRate {
 public:
  static constexpr uint64_t kBurst = 64;                      // attaches
  static constexpr uint64_t kReplyBytesPerSecond = 16 << 20;  // 1 GiB a minute is all that can be hoarded, and enough
                                                              // for 40 lanes of 256 slots a second

  // At most 10^9 per second.
  explicit AttachRate(uint64_t per_second, uint64_t burst = kBurst)
      : interval_ns_(kNsPerSecond / std::max<uint64_t>(per_second, 1)), burst_(burst) {}

  // 0: this user may have `amount` (at most the burst), and it counts. Otherwise: the milliseconds until it may.
  uint32_t Take(uid_t uid, uint64_t now_ns, uint64_t amount = 1) {
    assert(amount <= burst_ && interval_ns_ > 0);
    // When the bucket is full again: the earlier, the more is in it. A full one needs no entry.
    std::erase_if(full_at_ns_, [now_ns](const auto& item) { return item.second <= now_ns; });
    uint64_t& full_at_ns = full_at_ns_[uid];
    const uint64_t next_ns = std::max(full_at_ns, now_ns) + amount * interval_ns_;
    const uint64_t most_ns = now_ns + burst_ * interval_ns_;
    if (next_ns <= most_ns) {
      full_at_ns = next_ns;
      return 0;
    }
    return static_cast<uint32_t>(std::max<uint64_t>(DivideRoundUp(next_ns - most_ns, kNsPerMs), 1));
  }

  size_t users() const { return full_at_ns_.size(); }

 private:
  const uint64_t interval_ns_, burst_;
  std::map<uid_t, uint64_t> full_at_ns_;
};

}  // namespace sutra
