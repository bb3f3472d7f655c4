// The queue between the loop thread and the workers: moodycamel's ConcurrentQueue, or a mutex queue in TSan builds,
// where that header causes false race reports. Hidden behind one seam, so that no other code knows the difference.
// Thread-safe for any number of producers and consumers; order is kept per producer.
#pragma once

#include <cstddef>
#include <iterator>
#include <vector>

#if defined(__SANITIZE_THREAD__)
#include <deque>

#include "shm/base/mutex.h"
#else
#include <concurrentqueue/concurrentqueue.h>
#endif

namespace sutra {

template <typename T>
class WorkQueue {
 public:
  // Moves all of `items` into the queue.
  void PushAll(std::vector<T>* items) {
#if defined(__SANITIZE_THREAD__)
    const MutexLock lock(mutex_);
    for (T& item : *items) queue_.push_back(std::move(item));
#else
    queue_.enqueue_bulk(std::make_move_iterator(items->begin()), items->size());
#endif
    items->clear();
  }

  // Appends up to `count` items to `items`; returns how many.
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
