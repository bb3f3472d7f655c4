// A library to preload: CLOCK_REALTIME of the process jumps by the seconds that the first eight bytes of the file
// $SUTRA_TEST_WALL_OFFSET hold, whenever the test changes them. No other clock is touched, as when an operator or NTP
// sets the time.
// Thread-safe: the offset is one atomic word in a shared mapping.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>

namespace {

std::atomic<int64_t>* Offset() {
  static std::atomic<int64_t>* const offset = [] {
    static std::atomic<int64_t> none{0};
    const char* path = std::getenv("SUTRA_TEST_WALL_OFFSET");
    const int fd = path == nullptr ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return &none;
    void* const mapped = mmap(nullptr, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    return mapped == MAP_FAILED ? &none : static_cast<std::atomic<int64_t>*>(mapped);
  }();
  return offset;
}

using ClockGetTime = int (*)(clockid_t, timespec*);

ClockGetTime TheRealOne() {
  static const auto real = reinterpret_cast<ClockGetTime>(dlsym(RTLD_NEXT, "clock_gettime"));
  return real;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int clock_gettime(clockid_t clock, timespec* now) noexcept {
  if (clock != CLOCK_REALTIME) return TheRealOne()(clock, now);
  const int result = TheRealOne()(clock, now);
  if (result == 0) now->tv_sec += Offset()->load(std::memory_order_relaxed);
  return result;
}
