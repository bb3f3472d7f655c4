// Places of CPUs from sysfs, runs of neighbours, and the threads dealt to them.
#include "engine/cpu/core_groups.h"

#include <algorithm>
#include <cassert>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <optional>
#include <tuple>
#include <utility>

#include "engine/cpu/sysfs.h"
#include "engine/model/compute_options.h"
#include "shm/base/numbers.h"

namespace sutra::cpu {
namespace {

constexpr size_t kGroupCpusMin = 8;

// Node, cache and core are named by a number that all their CPUs have in common.
struct Place {
  uint32_t node = 0;
  uint32_t cache = 0;
  uint32_t core = 0;
  uint32_t cpu = 0;
  auto operator<=>(const Place&) const = default;
};

// Neighbours that are to compute together.
struct Run {
  std::vector<Place> places;
  uint32_t weight = 1;  // its share of the threads
};

// The first CPU of a list, if `cpu` is in the list; nothing if it is not, or if this is no list.
std::optional<uint32_t> FirstOfList(const std::string& list, uint32_t cpu) {
  const auto ranges = ParseCpuList(list);
  if (!ranges.has_value()) return std::nullopt;
  const auto has_cpu = [cpu](const CpuRange& range) { return range.first <= cpu && cpu <= range.last; };
  if (std::none_of(ranges->begin(), ranges->end(), has_cpu)) return std::nullopt;
  return ranges->front().first;
}

// The first CPU of the last cache before memory, as this CPU sees it.
std::optional<uint32_t> LastCache(const std::string& directory, uint32_t cpu) {
  int last_level = 0;
  std::optional<uint32_t> cache;
  for (int index = 0; index < 8; ++index) {
    const std::string files = directory + "/cache/index" + std::to_string(index);
    int level = 0;
    if (!(std::ifstream(files + "/level") >> level)) break;
    if (level <= last_level || FirstWord(files + "/type") == "Instruction") continue;
    last_level = level;
    cache = FirstOfList(FirstWord(files + "/shared_cpu_list"), cpu);
  }
  return cache;
}

// By node. None where the kernel knows no nodes.
std::vector<std::string> NodeLists(const std::string& root) {
  std::vector<std::string> lists;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(root + "/sys/devices/system/node", error), end; !error && entry != end;
       entry.increment(error)) {
    std::string list = FirstWord(entry->path() / "cpulist");
    if (!list.empty()) lists.push_back(std::move(list));
  }
  return lists;
}

// Sorted. Empty if any CPU's place is not known.
std::vector<Place> ReadPlaces(const std::string& root, std::span<const uint32_t> cpus) {
  const std::vector<std::string> nodes = NodeLists(root);
  std::vector<Place> places;
  for (const uint32_t cpu : cpus) {
    const std::string directory = root + "/sys/devices/system/cpu/cpu" + std::to_string(cpu);
    const std::optional<uint32_t> cache = LastCache(directory, cpu);
    if (!cache.has_value()) return {};
    Place place = {.node = 0, .cache = *cache, .core = cpu, .cpu = cpu};
    for (const std::string& node : nodes) {
      if (const auto first = FirstOfList(node, cpu)) place.node = *first;
    }
    if (const auto core = FirstOfList(FirstWord(directory + "/topology/thread_siblings_list"), cpu)) place.core = *core;
    places.push_back(place);
  }
  std::sort(places.begin(), places.end());
  return places;
}

void Join(Run* run, const Run& next) { run->places.insert(run->places.end(), next.places.begin(), next.places.end()); }

std::vector<Run> RunsByCache(const std::vector<Place>& places) {
  const size_t enough = std::max<size_t>(kGroupCpusMin, DivideRoundUp(places.size(), kCoreGroupsMax));
  std::vector<Run> caches, runs;
  for (const Place& place : places) {
    const bool same =
        !caches.empty() && std::tie(caches.back().places.back().node, caches.back().places.back().cache) ==
                               std::tie(place.node, place.cache);
    if (!same) caches.emplace_back();
    caches.back().places.push_back(place);
  }
  for (const Run& cache : caches) {
    if (runs.empty() || runs.back().places.size() >= enough) runs.emplace_back();
    Join(&runs.back(), cache);
  }
  if (runs.size() > 1 && runs.back().places.size() < enough) {
    Join(&runs[runs.size() - 2], runs.back());
    runs.pop_back();
  }
  return runs;
}

std::vector<Run> EqualRuns(const std::vector<Place>& places, size_t count) {
  std::vector<Run> runs(count);
  for (size_t i = 0; i < count; ++i) {
    const auto begin = places.begin() + static_cast<std::ptrdiff_t>(places.size() * i / count);
    const auto end = places.begin() + static_cast<std::ptrdiff_t>(places.size() * (i + 1) / count);
    runs[i].places.assign(begin, end);
  }
  return runs;
}

uint32_t CoresOf(const std::vector<Place>& places) {
  uint32_t cores = 0;
  for (size_t i = 0; i < places.size(); ++i) cores += i == 0 || places[i].core != places[i - 1].core ? 1 : 0;
  return cores;
}

// As few as have room for the threads, the largest first; their weights are what they have room for.
void KeepFewest(std::vector<Run>* runs, const std::vector<Place>& all, uint32_t threads) {
  const bool by_cores = threads <= CoresOf(all);
  for (Run& run : *runs) {
    run.weight = by_cores ? CoresOf(run.places) : static_cast<uint32_t>(run.places.size());
  }
  std::stable_sort(runs->begin(), runs->end(), [](const Run& a, const Run& b) { return a.weight > b.weight; });
  size_t kept = 0;
  for (uint32_t room = 0; kept < runs->size() && room < threads; ++kept) room += (*runs)[kept].weight;
  runs->resize(kept);
}

}  // namespace

CoreGroups DealCores(const std::string& root, std::span<const uint32_t> cpus, uint32_t threads, uint32_t wanted) {
  assert(threads >= 1);
  std::vector<Place> places = ReadPlaces(root, cpus);
  if (places.empty() && wanted == 0) return {{.threads = threads}};
  if (places.empty()) {
    for (const uint32_t cpu : cpus) places.push_back({.core = cpu, .cpu = cpu});
  }
  std::vector<Run> runs = wanted == 0 ? RunsByCache(places) : EqualRuns(places, std::min(wanted, threads));
  if (wanted == 0) KeepFewest(&runs, places, threads);

  const auto cpus_kept = std::accumulate(runs.begin(), runs.end(), size_t{0},
                                         [](size_t sum, const Run& run) { return sum + run.places.size(); });
  const bool stay = runs.size() > 1 && cpus_kept == places.size() && places.size() >= runs.size();
  const auto total = std::accumulate(runs.begin(), runs.end(), uint64_t{0},
                                     [](uint64_t sum, const Run& run) { return sum + run.weight; });
  CoreGroups groups;
  uint64_t weight = 0, dealt = 0;
  for (const Run& run : runs) {
    weight += run.weight;
    const uint64_t until = threads * weight / total;
    CoreGroup& group = groups.emplace_back(CoreGroup{.threads = static_cast<uint32_t>(until - dealt)});
    assert(group.threads >= 1);
    dealt = until;
    for (size_t i = 0; stay && i < run.places.size(); ++i) group.cpus.push_back(run.places[i].cpu);
    std::sort(group.cpus.begin(), group.cpus.end());
  }
  return groups;
}

std::string Describe(const CoreGroups& groups) {
  std::string text;
  for (const CoreGroup& group : groups) {
    if (!text.empty()) text += "; ";
    text += std::to_string(group.threads) + (group.threads == 1 ? " thread" : " threads");
    for (size_t i = 0; i < group.cpus.size(); ++i) {
      text += i == 0 ? " on CPUs " : ",";
      const size_t first = i;
      while (i + 1 < group.cpus.size() && group.cpus[i + 1] == group.cpus[i] + 1) ++i;
      text += std::to_string(group.cpus[first]);
      if (i > first) text += "-" + std::to_string(group.cpus[i]);
    }
  }
  return text;
}

}  // namespace sutra::cpu
