// The files of one cache: level ("3"), type ("Unified"), size ("32768K"), shared_cpu_list ("0-3,8-11").
#include "engine/cpu/cache_sizes.h"

#include <algorithm>
#include <sstream>

#include "engine/cpu/sysfs.h"

namespace sutra::cpu {
namespace {

// 0 for what is not a size.
size_t ParseSize(const std::string& text) {
  std::istringstream in(text);
  size_t kib = 0;
  char unit = 0;
  if (!(in >> kib >> unit) || unit != 'K') return 0;
  return kib << 10;
}

// 0 for what is not a list.
size_t CountCpus(const std::string& list) {
  size_t count = 0;
  for (const CpuRange& range : ParseCpuList(list).value_or(std::vector<CpuRange>())) {
    count += size_t{range.last} - range.first + 1;
  }
  return count;
}

}  // namespace

CacheSizes ReadCacheSizes(const std::string& root) {
  CacheSizes sizes;
  for (int index = 0; index < 8; ++index) {
    const std::string cache = root + "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index);
    const std::string level = FirstWord(cache + "/level");
    const size_t bytes = ParseSize(FirstWord(cache + "/size"));
    if (level.empty()) break;
    if (bytes == 0 || FirstWord(cache + "/type") == "Instruction") continue;
    const size_t sharing = std::max<size_t>(CountCpus(FirstWord(cache + "/shared_cpu_list")), 1);
    if (level == "2") sizes.l2_bytes = bytes / sharing;
    if (level == "3") sizes.l3_share_bytes = bytes / sharing;
  }
  return sizes;
}

}  // namespace sutra::cpu
