// How many lanes each user may have, and how much shared memory all lanes together may claim. A lane is charged at its
// full size from attach until its mapping is gone, which can be later than the end of its client.
// Thread-safe: a worker may drop the last reference to a lane.
#pragma once

#include <sys/types.h>

#include <cassert>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "shm/base/mutex.h"
#include "shm/base/status.h"

namespace sutra {

class LaneQuota : public std::enable_shared_from_this<LaneQuota> {
 public:
  struct Limits {
    uint32_t lanes_max = 0;
    uint32_t lanes_per_uid_max = 0;
    uint64_t bytes_max = 0;                       // of all lanes
    const char* lanes_raised_by = "--lanes-max";  // what an operator must raise for more lanes
  };

  // Returns what was charged when it is destroyed.
  class Charge {
   public:
    Charge() = default;
    Charge(Charge&& other) noexcept : quota_(std::move(other.quota_)), uid_(other.uid_), bytes_(other.bytes_) {}
    Charge& operator=(Charge&& other) noexcept {
      std::swap(quota_, other.quota_);
      std::swap(uid_, other.uid_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Charge() {
      if (quota_ != nullptr) quota_->Return(uid_, bytes_);
    }

   private:
    friend class LaneQuota;
    std::shared_ptr<LaneQuota> quota_;
    uid_t uid_ = 0;
    uint64_t bytes_ = 0;
  };

  explicit LaneQuota(const Limits& limits) : limits_(limits) {}

  // kRefused names the bound that is reached and the option that raises it.
  Result<Charge> Take(uid_t uid, uint64_t bytes) {
    const MutexLock lock(mutex_);
    if (lanes_ >= limits_.lanes_max) return Over("lanes", limits_.lanes_max, limits_.lanes_raised_by);
    const auto by_uid = lanes_by_uid_.find(uid);
    if ((by_uid == lanes_by_uid_.end() ? 0 : by_uid->second) >= limits_.lanes_per_uid_max) {
      return Over("lanes of uid " + std::to_string(uid), limits_.lanes_per_uid_max, "--lanes-per-uid-max");
    }
    if (bytes > limits_.bytes_max - bytes_) {
      return Over("bytes of all lanes with the " + std::to_string(bytes) + " asked for", limits_.bytes_max,
                  "--lane-bytes-max");
    }
    ++lanes_;
    ++lanes_by_uid_[uid];
    bytes_ += bytes;
    Charge charge;
    charge.quota_ = shared_from_this();
    charge.uid_ = uid;
    charge.bytes_ = bytes;
    return charge;
  }

  uint32_t lanes() const {
    const MutexLock lock(mutex_);
    return lanes_;
  }

 private:
  static Status Over(const std::string& what, uint64_t limit, const char* option) {
    return Status(StatusCode::kRefused, "the engine's limit of " + std::to_string(limit) + " " + what +
                                            " is reached: detach others, attach with fewer slots or shorter texts, or "
                                            "start the engine with a larger " +
                                            option);
  }
  void Return(uid_t uid, uint64_t bytes) {
    const MutexLock lock(mutex_);
    const auto by_uid = lanes_by_uid_.find(uid);
    assert(lanes_ > 0 && bytes_ >= bytes && by_uid != lanes_by_uid_.end());
    --lanes_;
    if (--by_uid->second == 0) lanes_by_uid_.erase(by_uid);
    bytes_ -= bytes;
  }

  const Limits limits_;
  mutable Mutex mutex_;
  uint32_t lanes_ SUTRA_GUARDED_BY(mutex_) = 0;
  uint64_t bytes_ SUTRA_GUARDED_BY(mutex_) = 0;
  std::map<uid_t, uint32_t> lanes_by_uid_ SUTRA_GUARDED_BY(mutex_);  // no entry for a user without lanes
};

}  // namespace sutra
