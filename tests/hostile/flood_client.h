// What the duties of the flood client share: arguments, what they say on standard output, the process's own memfds.
// Thread rule: functions of their arguments; Say by one thread at a time.
#pragma once

#include <sutra/embed.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

namespace sutra::test {

// Exit codes beside 0.
inline constexpr int kFloodUsage = 2, kFloodCannotAttach = 5, kFloodNotAllowed = 77;

struct FloodArguments {
  std::string duty, socket;
  std::map<std::string, std::string> values;

  std::string Text(const std::string& name, const std::string& otherwise = "") const {
    const auto found = values.find(name);
    return found == values.end() ? otherwise : found->second;
  }
  uint64_t Number(const std::string& name, uint64_t otherwise) const {
    const std::string text = Text(name);
    return text.empty() ? otherwise : std::strtoull(text.c_str(), nullptr, 10);
  }
};

inline void Say(const std::string& line) {
  std::puts(line.c_str());
  std::fflush(stdout);
}

// Lane memory that this process holds, by descriptor: every memfd whose name begins with "sutra-".
struct HeldFile {
  int fd = -1;
  std::string name;
  uint64_t bytes = 0;       // its size
  uint64_t bytes_held = 0;  // its pages
};
std::vector<HeldFile> HeldLaneFiles();

void Pause(uint64_t microseconds);
// Returns when somebody sends SIGUSR1 (blocked in main, so that none is lost).
void AwaitStart();

// flood_texts.cc
int QueueTexts(const FloodArguments& arguments);  // queues texts and tells when each was taken and batched
int FloodTexts(const FloodArguments& arguments);  // keeps every slot full until SIGTERM, tells what it was answered

// flood_memory.cc
int PunchHoles(const FloodArguments& arguments);   // punches its own lane's memory, tells when
int HoardMemory(const FloodArguments& arguments);  // attaches, keeps the descriptors, detaches
int ParkThreads(const FloodArguments& arguments);  // thousands of threads on one futex word

// flood_attaches.cc
int StormAttaches(const FloodArguments& arguments);  // attaches and detaches for ever, tells when
int ConnectSilently(const FloodArguments& arguments);
int BorrowIdentities(const FloodArguments& arguments);  // sockets that other processes connected
int LiveManyLives(const FloodArguments& arguments);

}  // namespace sutra::test
