// Facts about this host: which boot it is, how many CPUs this process may use. Stateless and thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

namespace sutra {

using BootId = std::array<uint8_t, 16>;

// Differs between any two boots of any hosts; all zero if the kernel does not expose it.
BootId HostBootId();

// The CPUs that this process may keep busy: its scheduling affinity or its cgroups' CPU quota, whichever is less; at
// least 1.
uint32_t UsableCpus();

// The least CPU quota among the cgroup of this process and its ancestors, in CPUs rounded up; nullopt if none is set.
// Reads cgroup v2 (cpu.max) and v1 (cpu.cfs_quota_us) below `root`, which is "/" outside of tests.
std::optional<uint32_t> CgroupCpuQuota(const std::string& root);

}  // namespace sutra
