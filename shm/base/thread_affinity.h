// On which CPUs a thread may run. Stateless and thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace sutra {

// The CPUs of the calling thread's affinity, ascending; empty if the kernel does not tell.
std::vector<uint32_t> AllowedCpus();

// Keeps the calling thread, and the threads that it starts from now on, on these CPUs; none changes nothing. False if
// the kernel refused (none of them is allowed any more): the thread runs where it did.
bool StayOnCpus(std::span<const uint32_t> cpus);

}  // namespace sutra
