// Pinning, windows, peers.
#include "bench/lanes/measure.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <stdexcept>

#include "bench/bench_report.h"
#include "shm/base/numbers.h"
#include "shm/base/time.h"

namespace sutra::bench {
namespace {

int client_cpu = 0, engine_cpu = 0;
volatile uint64_t sink;

}  // namespace

bool ChooseCpus() {
  cpu_set_t allowed;
  sched_getaffinity(0, sizeof(allowed), &allowed);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) cpus.push_back(cpu);
  }
  if (cpus.size() < 2) return false;
  client_cpu = cpus.front();
  engine_cpu = cpus.back();
  return true;
}
int ClientCpu() { return client_cpu; }
int EngineCpu() { return engine_cpu; }

void PinThread(pid_t thread, int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(thread, sizeof(set), &set);
}
void Pin(int cpu) { PinThread(0, cpu); }

void UseBothCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : {client_cpu, engine_cpu}) CPU_SET(static_cast<size_t>(cpu), &set);
  sched_setaffinity(0, sizeof(set), &set);
}

namespace {

const char kSessionNice[] = "/proc/self/autogroup";  // "/autogroup-46 nice 0"; a number is written to it

}  // namespace

RaisedPriority::RaisedPriority() {
  raised_ = setpriority(PRIO_PROCESS, 0, -20) == 0;
  std::ifstream file(kSessionNice);
  for (std::string word; raised_ && file >> word;) session_nice_ = word;
  if (!session_nice_.empty()) std::ofstream(kSessionNice) << "-20";
}
void RaisedPriority::Restore() {
  if (!session_nice_.empty()) std::ofstream(kSessionNice) << session_nice_;
}

void Fail(const std::string& what) { throw std::runtime_error(what); }

void SleepUs(uint64_t us) {
  timespec left = ToTimespec(us * kNsPerUs);
  while (nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
}

double Percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const auto index = static_cast<size_t>(share * static_cast<double>(values.size()));
  return values[std::min(index, values.size() - 1)];
}

double WindowsNs(int windows, int count, const std::function<void(int)>& run) {
  std::vector<double> values;
  run(count);
  for (int i = 0; i < windows; ++i) {
    const uint64_t start_ns = MonotonicNs();
    run(count);
    values.push_back(static_cast<double>(MonotonicNs() - start_ns) / count);
  }
  return Median(values);
}

void Touch(const void* bytes, size_t count) {
  uint64_t sums[4] = {};
  for (size_t at = 0; at + 32 <= count; at += 32) {
    uint64_t words[4];
    std::memcpy(words, static_cast<const char*>(bytes) + at, sizeof(words));
    for (int i = 0; i < 4; ++i) sums[i] += words[i];
  }
  for (size_t at = count / 32 * 32; at < count; ++at) sums[0] += static_cast<const uint8_t*>(bytes)[at];
  sink = sums[0] + sums[1] + sums[2] + sums[3];
}

Peer::Peer(const std::function<void()>& serve) {
  const pid_t parent = getpid();
  Pin(engine_cpu);  // the child starts there, and not behind a parent that spins on its own CPU
  pid_ = fork();
  if (pid_ != 0) {
    Pin(client_cpu);
    return;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  serve();
  _exit(0);
}
Peer::~Peer() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

SharedPages::SharedPages(size_t bytes) : bytes_(bytes) {
  base_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (base_ == MAP_FAILED) Fail("no memory for " + std::to_string(bytes) + " shared bytes");
}
SharedPages::~SharedPages() { munmap(base_, bytes_); }

std::string BenchText(const std::string& family, uint64_t number, size_t bytes) {
  std::string text = std::to_string(number) + " " + family + " ";
  while (text.size() < bytes) text += static_cast<char>('a' + text.size() % 26);
  text.resize(bytes);
  return text;
}

}  // namespace sutra::bench
