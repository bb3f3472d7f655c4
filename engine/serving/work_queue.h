// The queue between the loop thread and the workers: moodycamel's ConcurrentQueue, or a mutex queue in TSan builds,
// where that header causes false race reports. Hidden behind one seam, so that no other code knows the difference.
// Thread-safe for any number of producers and consumers; order is kept per producer.
#pragma once

#include <cstddef>
#include <iterator>
#include <vector>

#if defined(__SANITIZE_THREAD__)
#include <algorithm>
#include <deque>
#include <new>

#include "shm/base/mutex.h"
#else
#include <concurrentqueue/concurrentqueue.h>
#endif

namespace sutra {

template <typename T>
class WorkQueue {
 public:
  // Moves all of `items` into the queue. False, and nothing moved, when memory is short.
  [[nodiscard]] bool PushAll(std::vector<T>* items) {
#if defined(__SANITIZE_THREAD__)
    const MutexLock lock(mutex_);
    try {
      queue_.resize(queue_.size() + items->size());
    } catch (const std::bad_alloc&) {
      return false;
    }
    std::move(items->begin(), items->end(), queue_.end() - static_cast<std::ptrdiff_t>(items->size()));
#else
    if (!queue_.enqueue_bulk(std::make_move_iterator(items->begin()), items->size())) return false;
#endif
    items->clear();
    return true;
  }

  // Appends up to `count` items to `items`; returns how many. REQUIRES: `items` has room for them, since an item that
  // cannot be appended would be lost.
  size_t PopSome(std::vector<T>* items, size_t count) {
#if defined(__SANITIZE_THREAD__)
    const MutexLock lock(mutex_);
    size_t taken = 0;
    for (; taken < count && !queue_.empty(); ++taken) {
      items->push_back(std::move(queue_.front()));
      queue_.pop_front();
    }
    return taken;
#else
    return queue_.try_dequeue_bulk(std::back_inserter(*items), count);
#endif
  }

 private:
#if defined(__SANITIZE_THREAD__)
  Mutex mutex_;
  std::deque<T> queue_ SUTRA_GUARDED_BY(mutex_);
#else
  moodycamel::ConcurrentQueue<T> queue_;
#endif
};

}  // namespace sutra
