// Lets the wall clock of an engine process jump; every other clock goes on (wall_clock_shim.cc).
// Thread rule: one thread jumps; the engine's threads read the offset atomically.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

namespace sutra::test {

class WallClockJumps {
 public:
  // `path`: of a file that is made here.
  explicit WallClockJumps(const std::string& path) : path_(path) {
    const int fd = open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    const bool sized = ftruncate(fd, sizeof(int64_t)) == 0;
    void* const mapped = sized ? mmap(nullptr, sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    close(fd);
    if (mapped == MAP_FAILED) std::abort();
    offset_s_ = static_cast<std::atomic<int64_t>*>(mapped);
  }
  ~WallClockJumps() { munmap(static_cast<void*>(offset_s_), sizeof(int64_t)); }
  WallClockJumps(const WallClockJumps&) = delete;
  WallClockJumps& operator=(const WallClockJumps&) = delete;

  // From now on the engine's wall clock is this far from the true time.
  void SetSeconds(int64_t offset_s) { offset_s_->store(offset_s, std::memory_order_relaxed); }
  // For EngineOptions::environment. A sanitizer's runtime need not be the first library here.
  std::vector<std::string> Environment() const {
    return {std::string("LD_PRELOAD=") + SUTRA_WALL_CLOCK_SHIM, "SUTRA_TEST_WALL_OFFSET=" + path_,
            "ASAN_OPTIONS=verify_asan_link_order=0"};
  }

 private:
  const std::string path_;
  std::atomic<int64_t>* offset_s_;
};

}  // namespace sutra::test
