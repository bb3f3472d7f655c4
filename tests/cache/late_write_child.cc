// The process that tests/cache/late_write_test.cc kills: holds the lock on its directory and inserts as fast as it can,
// so that writes of the log are in flight whenever the kill comes.
// Usage: cache_late_write_child DIRECTORY ROUND. Says "ready" when its shard is open.
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "cache/disk/disk_io.h"
#include "shm/base/clock.h"
#include "tests/cache/late_write.h"

int main(int count, char** arguments) {
  using namespace sutra;
  if (count != 3) return 2;
  const std::string directory = arguments[1];
  const int lock = test::LockFile(directory);
  if (lock < 0 || !test::WaitForLock(lock)) return 3;
  Result<std::unique_ptr<DiskIo>> io = MakeDiskIo(DiskIoKind::kAuto, directory, {});
  if (!io.ok()) return 4;
  Result<std::unique_ptr<CacheShard>> shard =
      CacheShard::Open(test::LateWriteConfig(directory), io->get(), Clock::Real());
  if (!shard.ok()) {
    std::fprintf(stderr, "%s\n", shard.status().message().c_str());
    return 5;
  }
  if (write(STDOUT_FILENO, "ready\n", 6) != 6) return 6;
  for (uint32_t i = 0; i < test::kInsertsPerRound; ++i) {
    test::Put(shard->get(), test::LateWriteKey(arguments[2], i), i, 0, test::kLateWriteWidth);
  }
  pause();
  return 0;
}
