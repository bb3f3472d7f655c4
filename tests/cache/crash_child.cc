// The process that tests/cache/crash_test.cc kills: changes a shard in an endless loop and reports on standard output,
// one line each, what it is about to attempt and what it was promised.
//   p KEY VERSION  about to insert      e KEY  about to remove      E KEY  the removal was confirmed
//   W              everything inserted so far is written            S      ... is synced
// Usage: cache_crash_child DIRECTORY SEED DISK_IO
#include <unistd.h>

#include <cstdio>
#include <random>
#include <string>
#include <thread>

#include "cache/disk/disk_io.h"
#include "shm/base/clock.h"
#include "shm/base/enum_names.h"
#include "tests/cache/cache_test_support.h"

namespace {

void Say(const std::string& line) {
  const std::string text = line + "\n";
  if (write(STDOUT_FILENO, text.data(), text.size()) != static_cast<ssize_t>(text.size())) _exit(3);
}

}  // namespace

int main(int count, char** arguments) {
  using namespace sutra;
  if (count != 4) return 2;
  std::mt19937_64 random(std::stoull(arguments[2]));
  const std::optional<DiskIoKind> disk_io = EnumOf(kDiskIoKindNames, arguments[3]);
  if (!disk_io.has_value()) return 2;
  Result<std::unique_ptr<DiskIo>> io = MakeDiskIo(*disk_io, arguments[1], {});
  if (!io.ok()) return 4;
  CacheConfig config = test::SmallConfig(arguments[1]);
  config.wal_bytes_max = 320 << 10;
  config.interval_us_max = 1000;
  config.sync_us_max = 20'000;
  Result<std::unique_ptr<CacheShard>> opened = CacheShard::Open(config, io->get(), Clock::Real());
  if (!opened.ok()) {
    std::fprintf(stderr, "%s\n", opened.status().message().c_str());
    return 5;
  }
  CacheShard* shard = opened->get();
  Say("ready");
  const auto first_version = static_cast<uint32_t>(std::stoull(arguments[2]) * 100'000);
  for (uint32_t step = 0; step < 20'000; ++step) {
    const uint64_t number = random() % 20;
    const std::string key = "key" + std::to_string(number) + std::string(number * 40, 'x');
    const uint64_t kind = random() % 40;
    if (kind < 30) {
      const uint32_t version = first_version + step;
      Say("p " + key + " " + std::to_string(version));
      test::Put(shard, key, version);
    } else if (kind < 36) {
      Say("e " + key);
      if (shard->Erase(key, 0).ok()) Say("E " + key);
    } else if (kind < 38) {
      while (true) {
        const CacheStats stats = shard->Stats();
        if (stats.wal_pending_records == 0 && stats.wal_oldest_unwritten_us == 0) break;
        std::this_thread::yield();
      }
      Say("W");
    } else {
      if (shard->Sync().ok()) Say("S");
    }
  }
  return 0;
}
