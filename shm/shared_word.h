// The only atomic type that appears in memory shared between processes. Lock-free by requirement, every order explicit,
// no operators. Header-only and free of the C++ runtime: the client library includes it.
#pragma once

#include <atomic>
#include <cstdint>
#include <type_traits>

namespace sutra {

template <typename T>
class SharedWord {
  static_assert(std::is_integral_v<T> && std::atomic<T>::is_always_lock_free);

 public:
  T load(std::memory_order order) const { return word_.load(order); }
  void store(T value, std::memory_order order) { word_.store(value, order); }
  T fetch_add(T value, std::memory_order order) { return word_.fetch_add(value, order); }
  T fetch_sub(T value, std::memory_order order) { return word_.fetch_sub(value, order); }
  // The address for the futex system call.
  const uint32_t* futex_address() const {
    static_assert(sizeof(T) == 4);
    return reinterpret_cast<const uint32_t*>(&word_);
  }

 private:
  std::atomic<T> word_;
};
static_assert(sizeof(SharedWord<uint64_t>) == 8 && alignof(SharedWord<uint64_t>) == 8);
static_assert(sizeof(SharedWord<uint32_t>) == 4 && alignof(SharedWord<uint32_t>) == 4);
static_assert(std::is_standard_layout_v<SharedWord<uint64_t>>);

}  // namespace sutra
