#include "shm/base/thread_affinity.h"

#include <sched.h>

namespace sutra {
namespace {

constexpr size_t kSets = 8;  // of 1,024 CPUs each: the kernel refuses to fill less than its own set
constexpr size_t kCpus = kSets * CPU_SETSIZE;

}  // namespace

std::vector<uint32_t> AllowedCpus() {
  cpu_set_t set[kSets];
  std::vector<uint32_t> cpus;
  if (sched_getaffinity(0, sizeof(set), set) != 0) return cpus;
  for (uint32_t cpu = 0; cpu < kCpus; ++cpu) {
    if (CPU_ISSET_S(cpu, sizeof(set), set)) cpus.push_back(cpu);
  }
  return cpus;
}

bool StayOnCpus(std::span<const uint32_t> cpus) {
  if (cpus.empty()) return true;
  cpu_set_t set[kSets];
  CPU_ZERO_S(sizeof(set), set);
  for (const uint32_t cpu : cpus) {
    if (cpu < kCpus) CPU_SET_S(cpu, sizeof(set), set);
  }
  return sched_setaffinity(0, sizeof(set), set) == 0;
}

}  // namespace sutra
