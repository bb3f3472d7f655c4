// Which CPUs compute together. The members of a team exchange activations at every step, so a team stays within one
// last-level cache and one NUMA node; the texts are shared out between teams as whole batches, which exchange nothing.
//
// Thread rule: any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace sutra::cpu {

struct CoreGroup {
  uint32_t threads = 1;
  std::vector<uint32_t> cpus = {};  // where its threads stay, ascending; none: wherever the scheduler puts them
};
using CoreGroups = std::vector<CoreGroup>;  // never empty, as their threads

// Deals `threads` to groups of `cpus` (what this process may use, ascending). By default (`wanted` 0) a group is the
// CPUs of one last-level cache and node, read below `root`, which is "/" outside of tests. Where files are missing or
// make no sense, all CPUs are one group.
// - A cache of fewer than 8 CPUs is joined with its neighbours: some virtual machines show a cache for each CPU, and a
//   single text is computed by one group. There are at most kCoreGroupsMax.
// - Hyper-threads share every cache, so they are in one group. As long as there are no more threads than cores, a group
//   counts by its cores: a second thread on a core adds little to products, and a quota counts it in full.
// - Fewer threads than that (a quota, --threads) go into as few groups as have room for them.
// - Groups stay on their CPUs only where together they have all of `cpus`. Otherwise nobody said which part of the host
//   is ours: several engines with a quota would all sit on the first groups, and leave the rest idle.
// With `wanted`, the CPUs are cut into that many groups, equally large, neighbours together (fewer, if there are fewer
// threads).
// REQUIRES threads >= 1.
CoreGroups DealCores(const std::string& root, std::span<const uint32_t> cpus, uint32_t threads, uint32_t wanted);

// "8 threads on CPUs 0-7; 8 threads on CPUs 8-15".
std::string Describe(const CoreGroups& groups);

}  // namespace sutra::cpu
