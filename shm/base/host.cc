#include "shm/base/host.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string_view>
#include <vector>

#include "shm/base/hex.h"
#include "shm/base/numbers.h"
#include "shm/base/thread_affinity.h"

namespace sutra {
namespace {

bool ListContains(const std::string& list, std::string_view wanted) {
  std::istringstream items(list);
  for (std::string item; std::getline(items, item, ',');) {
    if (item == wanted) return true;
  }
  return false;
}

// A mounted hierarchy of cgroups that may limit CPU time.
struct Hierarchy {
  bool v2 = false;
  std::string mount_point;
  std::string mounted_group;  // the group that is seen at the mount point
};

// Lines "36 25 0:31 /group /mount/point rw,nosuid shared:9 - cgroup source rw,cpu,cpuacct".
std::vector<Hierarchy> CpuHierarchies(const std::string& root) {
  std::vector<Hierarchy> hierarchies;
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t separator = line.find(" - ");
    if (separator == std::string::npos) continue;
    Hierarchy hierarchy;
    std::string skipped, type, options;
    std::istringstream(line.substr(0, separator)) >> skipped >> skipped >> skipped >> hierarchy.mounted_group >>
        hierarchy.mount_point;
    std::istringstream(line.substr(separator + 3)) >> type >> skipped >> options;
    hierarchy.v2 = type == "cgroup2";
    if (hierarchy.v2 || (type == "cgroup" && ListContains(options, "cpu"))) hierarchies.push_back(hierarchy);
  }
  return hierarchies;
}

// Lines "0::/group" (v2) and "4:cpu,cpuacct:/group" (v1). Empty if this process is in no group of that hierarchy.
std::string GroupOfThisProcess(const std::string& root, bool v2) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (v2 ? controllers.empty() : ListContains(controllers, "cpu")) return line.substr(second + 1);
  }
  return "";
}

std::optional<uint32_t> QuotaOfGroup(const std::string& directory, bool v2) {
  int64_t quota_us = 0, period_us = 0;  // stay 0 where there is no number: "max", an absent file
  if (v2) {
    std::ifstream(directory + "/cpu.max") >> quota_us >> period_us;
  } else {
    std::ifstream(directory + "/cpu.cfs_quota_us") >> quota_us;  // -1 = unlimited
    std::ifstream(directory + "/cpu.cfs_period_us") >> period_us;
  }
  if (quota_us <= 0 || period_us <= 0) return std::nullopt;
  const uint64_t cpus = DivideRoundUp(static_cast<uint64_t>(quota_us), static_cast<uint64_t>(period_us));
  return static_cast<uint32_t>(std::min<uint64_t>(cpus, UINT32_MAX));
}

// The group's path below the mount point. A container may see only a part of the hierarchy, or be in a group outside it
// ("/../.."): then the mount point is the nearest group that can be read.
std::string PathBelowMount(const std::string& group, const std::string& mounted_group) {
  const std::string prefix = mounted_group == "/" ? "" : mounted_group;
  const bool below =
      group.compare(0, prefix.size(), prefix) == 0 && (group.size() == prefix.size() || group[prefix.size()] == '/');
  if (!below || group.find("/..") != std::string::npos) return "";
  const std::string path = group.substr(prefix.size());
  return path == "/" ? "" : path;
}

}  // namespace

BootId HostBootId() {
  BootId id{};
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  size_t digits = 0;
  for (char c; digits < 2 * id.size() && file.get(c);) {
    const int value = HexDigitValue(c);
    if (value < 0) continue;
    id[digits / 2] = static_cast<uint8_t>(id[digits / 2] << 4 | value);
    ++digits;
  }
  return id;
}

std::optional<uint32_t> CgroupCpuQuota(const std::string& root) {
  std::optional<uint32_t> least;
  for (const Hierarchy& hierarchy : CpuHierarchies(root)) {
    std::string path = PathBelowMount(GroupOfThisProcess(root, hierarchy.v2), hierarchy.mounted_group);
    for (;;) {
      const auto quota = QuotaOfGroup(root + hierarchy.mount_point + path, hierarchy.v2);
      if (quota && (!least || *quota < *least)) least = quota;
      if (path.empty()) break;
      path.resize(path.rfind('/'));
    }
  }
  return least;
}

uint32_t UsableCpus() {
  const auto allowed = static_cast<uint32_t>(AllowedCpus().size());
  return std::min(std::max(allowed, 1u), CgroupCpuQuota("/").value_or(UINT32_MAX));
}

}  // namespace sutra
