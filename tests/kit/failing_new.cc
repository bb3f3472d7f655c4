// The replaced operators new and delete, and the counter that decides which allocation fails.
#include "tests/kit/failing_new.h"

#include <atomic>
#include <cassert>
#include <cstdlib>
#include <new>

namespace sutra::test {
namespace {

// Relaxed throughout: the counter is exact, and nothing else is published by it.
constexpr auto kRelaxed = std::memory_order_relaxed;

std::atomic<bool> exists{false};
std::atomic<bool> all_threads{false};
std::atomic<uint64_t> count{0};
std::atomic<uint64_t> first{0};
std::atomic<uint64_t> last{0};
thread_local bool this_thread = false;
thread_local int excuses = 0;

bool MustFail() {
  if (!this_thread && !all_threads.load(kRelaxed)) return false;
  if (excuses > 0) return false;
  const uint64_t number = count.fetch_add(1, kRelaxed) + 1;
  return number >= first.load(kRelaxed) && number <= last.load(kRelaxed);
}

void* Allocate(std::size_t bytes, std::size_t align) {
  if (MustFail()) return nullptr;
  if (bytes == 0) bytes = 1;
  if (align <= __STDCPP_DEFAULT_NEW_ALIGNMENT__) return std::malloc(bytes);
  return std::aligned_alloc(align, (bytes + align - 1) / align * align);
}

void* AllocateOrThrow(std::size_t bytes, std::size_t align) {
  void* memory = Allocate(bytes, align);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

FailingNew::FailingNew(uint64_t nth, Whose whose, uint64_t times) {
  assert(nth > 0 && times > 0);
  const bool another = exists.exchange(true, kRelaxed);
  assert(!another);
  static_cast<void>(another);
  count.store(0, kRelaxed);
  first.store(nth, kRelaxed);
  last.store(times > UINT64_MAX - nth ? UINT64_MAX : nth + times - 1, kRelaxed);
  this_thread = true;
  all_threads.store(whose == Whose::kAllThreads, kRelaxed);
}

FailingNew::~FailingNew() {
  this_thread = false;
  all_threads.store(false, kRelaxed);
  exists.store(false, kRelaxed);
}

bool FailingNew::failed() const { return counted() >= first.load(kRelaxed); }
uint64_t FailingNew::counted() const { return count.load(kRelaxed); }

FailingNew::Excused::Excused() { ++excuses; }
FailingNew::Excused::~Excused() { --excuses; }

}  // namespace sutra::test

namespace test = sutra::test;

void* operator new(std::size_t bytes) { return test::AllocateOrThrow(bytes, 1); }
void* operator new[](std::size_t bytes) { return test::AllocateOrThrow(bytes, 1); }
void* operator new(std::size_t bytes, std::align_val_t align) {
  return test::AllocateOrThrow(bytes, static_cast<std::size_t>(align));
}
void* operator new[](std::size_t bytes, std::align_val_t align) {
  return test::AllocateOrThrow(bytes, static_cast<std::size_t>(align));
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return test::Allocate(bytes, 1); }
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept { return test::Allocate(bytes, 1); }
void* operator new(std::size_t bytes, std::align_val_t align, const std::nothrow_t&) noexcept {
  return test::Allocate(bytes, static_cast<std::size_t>(align));
}
void* operator new[](std::size_t bytes, std::align_val_t align, const std::nothrow_t&) noexcept {
  return test::Allocate(bytes, static_cast<std::size_t>(align));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t, const std::nothrow_t&) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t, const std::nothrow_t&) noexcept { std::free(memory); }
