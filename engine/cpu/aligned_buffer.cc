// Buffers out of mappings that are reserved generously and cut to what was used.
#include "engine/cpu/aligned_buffer.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "shm/base/numbers.h"

namespace sutra {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = 2U << 20;
constexpr size_t kReserve = 64U << 20;     // addresses only: what is not used is never touched
constexpr size_t kOwnMapping = 64U << 10;  // a buffer from here on is worth a mapping even without an arena

// 4 KiB on x86, 4, 16 or 64 KiB on aarch64: munmap refuses an address inside a page.
size_t PageBytes() {
  static const auto bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

thread_local BufferArena* innermost = nullptr;

std::shared_ptr<void> SmallBuffer(size_t bytes) {
  const size_t rounded = std::max(RoundUp(bytes, kAlignment), kAlignment);
  std::shared_ptr<void> memory(std::aligned_alloc(kAlignment, rounded), std::free);
  if (memory == nullptr) throw std::bad_alloc();
  std::memset(memory.get(), 0, rounded);
  return memory;
}

}  // namespace

// Pages that begin at a huge one, zeroed by the kernel.
class BufferArena::Mapping {
 public:
  explicit Mapping(size_t bytes) : length_(RoundUp(bytes, PageBytes())) {
    const size_t reserved = length_ + kHugePage;
    void* start = mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) throw std::bad_alloc();
    void* aligned = start;
    size_t left = reserved;
    begin_ = static_cast<char*>(std::align(kHugePage, length_, aligned, left));
    const size_t before = reserved - left;
    if (before != 0) munmap(start, before);
    munmap(begin_ + length_, reserved - before - length_);
    madvise(begin_, length_, MADV_HUGEPAGE);  // a wish: without huge pages it is slower, not wrong
  }
  ~Mapping() { munmap(begin_, length_); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  void* Take(size_t bytes) {
    if (bytes > length_ - used_) return nullptr;
    char* const memory = begin_ + used_;
    used_ += RoundUp(bytes, kAlignment);
    return memory;
  }

  void CutToUsed() {
    const size_t kept = std::max(RoundUp(used_, PageBytes()), PageBytes());
    if (kept < length_) munmap(begin_ + kept, length_ - kept);
    length_ = std::min(length_, kept);
  }

 private:
  char* begin_ = nullptr;
  size_t length_;
  size_t used_ = 0;
};

BufferArena::BufferArena() : outer_(innermost) { innermost = this; }

BufferArena::~BufferArena() {
  innermost = outer_;
  if (mapping_ != nullptr) mapping_->CutToUsed();
}

std::shared_ptr<void> BufferArena::Take(size_t bytes) {
  void* memory = mapping_ != nullptr ? mapping_->Take(bytes) : nullptr;
  if (memory == nullptr) {
    if (mapping_ != nullptr) mapping_->CutToUsed();
    mapping_ = std::make_shared<Mapping>(std::max(bytes, kReserve));
    memory = mapping_->Take(bytes);
  }
  return {mapping_, memory};
}

AlignedBuffer::AlignedBuffer(size_t bytes) {
  if (innermost != nullptr) {
    memory_ = innermost->Take(bytes);
  } else if (bytes >= kOwnMapping) {
    const auto mapping = std::make_shared<BufferArena::Mapping>(bytes);
    memory_ = {mapping, mapping->Take(bytes)};
  } else {
    memory_ = SmallBuffer(bytes);
  }
}

}  // namespace sutra
