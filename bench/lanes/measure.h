// What every measurement of the lane bench shares: the two CPUs, medians of short windows, a spinning peer process, the
// bytes that both sides touch, and where the values of a run are collected.
// Thread rule: the bench's main thread.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace sutra::bench {

inline constexpr uint32_t kWidth = 384;
inline constexpr size_t kTextBytes = 200;
inline constexpr size_t kVectorBytes = kWidth * sizeof(float);
inline constexpr size_t kWindow = 64;

// How much one run measures; --quick divides it.
struct Extent {
  int windows = 30;        // per figure
  int round_trips = 2000;  // per window, both sides awake
  int asleep_trips = 150;  // per window, both sides asleep
  double flood_s = 1.2;    // per flood
  double idle_s = 5;       // of watching an idle engine
  int mixed_misses = 250;  // alone, and again beside the ingest
  int attaches = 40;
  int takeovers = 3;
};

// Values by key, one per run.
using Values = std::map<std::string, std::vector<double>>;

// The first and the last CPU that this process may use. False when it may use only one.
bool ChooseCpus();
int ClientCpu();
int EngineCpu();
void Pin(int cpu);
void UseBothCpus();  // for what is measured with the kernel's own choice
void PinThread(pid_t thread, int cpu);

// Spinning beside other work measures the scheduler; a higher priority keeps that work out. The kernel's autogroups
// compare nice values only within a session, so the session is raised too, until this object ends. Children inherit
// both.
class RaisedPriority {
 public:
  RaisedPriority();
  ~RaisedPriority() { Restore(); }
  RaisedPriority(const RaisedPriority&) = delete;
  RaisedPriority& operator=(const RaisedPriority&) = delete;
  bool raised() const { return raised_; }
  void Restore();  // of the session

 private:
  bool raised_ = false;
  std::string session_nice_;
};

// Throws: whatever was started ends on the way out.
[[noreturn]] void Fail(const std::string& what);

void SleepUs(uint64_t us);

// The value below which `share` of them lie; 0 for none.
double Percentile(std::vector<double> values, double share);

// Median over `windows` of the nanoseconds that one of `count` operations took. One more window warms up.
double WindowsNs(int windows, int count, const std::function<void(int)>& run);

// Reads every byte in integers, four sums side by side, so that the adds do not wait for each other.
void Touch(const void* bytes, size_t count);

// A forked process on the engine's CPU that runs `serve` until it is killed.
class Peer {
 public:
  explicit Peer(const std::function<void()>& serve);
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

 private:
  pid_t pid_;
};

// Zeroed memory that a Peer shares.
class SharedPages {
 public:
  explicit SharedPages(size_t bytes);
  ~SharedPages();
  SharedPages(const SharedPages&) = delete;
  SharedPages& operator=(const SharedPages&) = delete;
  void* get() const { return base_; }

 private:
  void* base_;
  size_t bytes_;
};

// Text `number` of a family: kTextBytes of ASCII, the number in front.
std::string BenchText(const std::string& family, uint64_t number, size_t bytes = kTextBytes);

}  // namespace sutra::bench
