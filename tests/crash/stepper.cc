// Single steps by ptrace.
#include "tests/crash/stepper.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <stdexcept>

namespace sutra::test {
namespace {

constexpr int kArriveMs = 1;  // in the kernel; a kill that comes earlier is one before the call

constexpr uint64_t kInt3 = 0xcc, kSystemCall = 0x050f;
constexpr uint64_t kPauseAndJumpBack = 0xfceb90f3, kJumpBack = 0xfceb;  // "0: pause; jmp 0b"

}  // namespace

Stepper::Stepper(const SpawnOptions& options) : process_(options) { ready_ = WaitTrap(); }

bool Stepper::WaitTrap() {
  siginfo_t info = {};
  int waited;
  do {  // WNOWAIT: the end of the process is ChildProcess's to reap
    waited = waitid(P_PID, static_cast<id_t>(process_.pid()), &info, WSTOPPED | WEXITED | WNOWAIT | __WALL);
  } while (waited != 0 && errno == EINTR);
  return waited == 0 && info.si_code == CLD_TRAPPED && info.si_status == SIGTRAP;
}

bool Stepper::Step(uint64_t instructions) {
  for (; instructions > 0; --instructions) {
    if (ptrace(PTRACE_SINGLESTEP, process_.pid(), nullptr, nullptr) != 0 || !WaitTrap()) return false;
  }
  return true;
}

void Stepper::EnterSystemCall() {
  ptrace(PTRACE_SINGLESTEP, process_.pid(), nullptr, nullptr);
  poll(nullptr, 0, kArriveMs);
}

uint64_t Stepper::NextBytes() const {
  const long at = ptrace(PTRACE_PEEKUSER, process_.pid(), offsetof(user_regs_struct, rip), nullptr);
  return static_cast<uint64_t>(ptrace(PTRACE_PEEKTEXT, process_.pid(), at, nullptr));
}

bool Stepper::AtSystemCall() const { return (NextBytes() & 0xffff) == kSystemCall; }

bool Stepper::AtEnd() const {
  const uint64_t bytes = NextBytes();
  return (bytes & 0xff) == kInt3 || (bytes & 0xffffffff) == kPauseAndJumpBack || (bytes & 0xffff) == kJumpBack;
}

std::string WhyNoTracing() {
#if !defined(__x86_64__)
  return "knows the instructions of x86-64 only";
#endif
  const pid_t child = fork();
  if (child == 0) {
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(1);
    raise(SIGTRAP);
    _exit(0);
  }
  if (child < 0) return std::string("fork: ") + strerror(errno);
  int status = 0;
  const bool stopped = waitpid(child, &status, 0) == child && WIFSTOPPED(status);
  const bool stepped = stopped && ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr) == 0 &&
                       waitpid(child, &status, 0) == child && WIFSTOPPED(status);
  if (stopped) {
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
  }
  return stepped ? "" : "this process may not trace its children (a seccomp filter, or kernel.yama.ptrace_scope = 3)";
}

CommonLock::CommonLock(const std::string& socket) {
  const int fd = open((socket + ".common").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  void* memory = MAP_FAILED;
  if (fd >= 0 && ftruncate(fd, sizeof(uint32_t)) == 0) {
    memory = mmap(nullptr, sizeof(uint32_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  if (fd >= 0) close(fd);
  if (memory == MAP_FAILED) throw std::runtime_error("no shared memory beside " + socket);
  word_ = static_cast<std::atomic<uint32_t>*>(memory);
}
CommonLock::~CommonLock() { munmap(word_, sizeof(uint32_t)); }

void CommonLock::Acquire() {
  while (word_->exchange(1, std::memory_order_acquire) != 0) sched_yield();
}

}  // namespace sutra::test
