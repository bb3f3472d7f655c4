// What the files of /sys/devices/system say: one word, or a list of CPUs such as "0-3,8-11".
// Thread rule: any thread.
#pragma once

#include <cstdint>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

namespace sutra::cpu {

// "" where there is no such file.
inline std::string FirstWord(const std::string& path) {
  std::string word;
  std::ifstream(path) >> word;
  return word;
}

struct CpuRange {
  uint32_t first = 0;
  uint32_t last = 0;  // first <= last
};

// The ranges as they stand; nothing for what is no list. An empty text is an empty list.
inline std::optional<std::vector<CpuRange>> ParseCpuList(const std::string& list) {
  std::vector<CpuRange> cpus;
  std::istringstream ranges(list);
  for (std::string range; std::getline(ranges, range, ',');) {
    std::istringstream in(range);
    CpuRange each;
    if (!(in >> each.first)) return std::nullopt;
    each.last = each.first;
    char dash = 0;
    if (in >> dash && (dash != '-' || !(in >> each.last) || each.last < each.first)) return std::nullopt;
    cpus.push_back(each);
  }
  return cpus;
}

}  // namespace sutra::cpu
