// Starting a child with its output captured, and waiting for it by descriptors that the kernel wakes.
#include "tests/kit/child_process.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "shm/base/numbers.h"
#include "shm/base/time.h"
#include "tests/kit/temp_dir.h"

extern char** environ;

namespace sutra::test {
namespace {

uint64_t DeadlineNs(int timeout_ms) { return MonotonicNs() + static_cast<uint64_t>(timeout_ms) * kNsPerMs; }

int MsLeft(uint64_t deadline_ns) {
  const uint64_t now = MonotonicNs();
  return now >= deadline_ns ? 0 : static_cast<int>(DivideRoundUp(deadline_ns - now, kNsPerMs));
}

// The kernel as it is where io_uring was switched off.
bool ForbidIoUring() {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog program = {static_cast<unsigned short>(sizeof(filter) / sizeof(filter[0])), filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

// Only calls that are safe between fork and exec of a program with threads.
[[noreturn]] void BecomeChild(const SpawnOptions& options, int program_fd, int log_fd, int output_fd, pid_t parent,
                              char* const* args, char* const* environment) {
  dup2(output_fd >= 0 ? output_fd : log_fd, STDOUT_FILENO);
  dup2(log_fd, STDERR_FILENO);
  for (const auto& [resource, value] : options.limits) {
    const rlimit limit = {.rlim_cur = value, .rlim_max = value};
    if (setrlimit(static_cast<__rlimit_resource_t>(resource), &limit) != 0) _exit(kExecFailed);
  }
  if (options.uid.has_value()) {
    const uid_t uid = *options.uid;
    if (syscall(SYS_setgroups, 0, nullptr) != 0 || syscall(SYS_setresgid, uid, uid, uid) != 0 ||
        syscall(SYS_setresuid, uid, uid, uid) != 0) {
      _exit(kExecFailed);
    }
  }
  // After the change of user, which clears it.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(kExecFailed);
  if (options.forbid_io_uring && !ForbidIoUring()) _exit(kExecFailed);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  if (options.close_standard_descriptors) {
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) close(fd);
  }
  // Another user gets the program by descriptor: perhaps only its builder can search its directory.
  if (options.uid.has_value()) syscall(SYS_execveat, program_fd, "", args, environment, AT_EMPTY_PATH);
  execve(args[0], args, environment);
  _exit(kExecFailed);
}

std::vector<char*> Pointers(const std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (const std::string& text : texts) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

std::string ToText(const ExitStatus& status) {
  return status.exited ? "exit code " + std::to_string(status.code) : std::string("signal ") + strsignal(status.signal);
}

ChildProcess::ChildProcess(const SpawnOptions& options) : name_(options.args.at(0)), log_path_(options.log_path) {
  const int program_fd = open(options.args[0].c_str(), O_RDONLY | O_CLOEXEC);
  if (program_fd < 0) throw std::runtime_error("cannot open the program " + options.args[0]);
  const int log_fd = open(log_path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log_fd < 0) throw std::runtime_error("cannot open the log " + log_path_);
  int pipe_fds[2] = {-1, -1};
  if (options.pipe_output && pipe2(pipe_fds, O_CLOEXEC) != 0) throw std::runtime_error("pipe2 failed");

  std::vector<std::string> environment = options.environment;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
  const std::vector<char*> args = Pointers(options.args);
  const std::vector<char*> environment_pointers = Pointers(environment);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) {
    BecomeChild(options, program_fd, log_fd, pipe_fds[1], parent, args.data(), environment_pointers.data());
  }
  close(program_fd);
  close(log_fd);
  if (pipe_fds[1] >= 0) close(pipe_fds[1]);
  output_fd_ = pipe_fds[0];
  if (pid_ < 0) throw std::runtime_error("fork failed");
  pid_fd_ = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));
  if (pid_fd_ < 0) throw std::runtime_error("pidfd_open failed");
}

ChildProcess::~ChildProcess() {
  if (!status_.has_value()) Kill();
  close(pid_fd_);
  if (output_fd_ >= 0) close(output_fd_);
}

bool ChildProcess::PollPid(int timeout_ms) {
  pollfd entry = {pid_fd_, POLLIN, 0};
  int ready = 0;
  const uint64_t deadline = DeadlineNs(timeout_ms);
  do {
    ready = poll(&entry, 1, MsLeft(deadline));
  } while (ready < 0 && errno == EINTR);
  return ready == 1;
}

bool ChildProcess::Running() { return !status_.has_value() && !PollPid(0); }

void ChildProcess::Signal(int number) { syscall(SYS_pidfd_send_signal, pid_fd_, number, nullptr, 0); }

void ChildProcess::Stop() {
  Signal(SIGSTOP);
  siginfo_t info = {};
  waitid(P_PIDFD, static_cast<id_t>(pid_fd_), &info, WSTOPPED | WEXITED | WNOWAIT);
}

void ChildProcess::Continue() { Signal(SIGCONT); }

bool ChildProcess::WaitStopped(int timeout_ms) {
  // A stop has no descriptor to wait on: looks every 2 ms, or when the process ends.
  for (const uint64_t deadline = DeadlineNs(timeout_ms); MsLeft(deadline) > 0;) {
    siginfo_t info = {};
    waitid(P_PIDFD, static_cast<id_t>(pid_fd_), &info, WSTOPPED | WNOHANG | WNOWAIT);
    if (info.si_pid == pid_ && info.si_code == CLD_STOPPED) return true;
    if (PollPid(2)) return false;
  }
  return false;
}

std::optional<ExitStatus> ChildProcess::Wait(int timeout_ms) {
  if (status_.has_value()) return status_;
  if (!PollPid(timeout_ms)) {
    std::fprintf(stderr, "%s (pid %d) did not end within %d ms; its log:\n%s\n", name_.c_str(), pid_, timeout_ms,
                 Log().c_str());
    return std::nullopt;
  }
  int raw = 0;
  while (waitpid(pid_, &raw, 0) < 0 && errno == EINTR) {
  }
  ExitStatus status;
  status.exited = WIFEXITED(raw);
  if (status.exited) status.code = WEXITSTATUS(raw);
  if (WIFSIGNALED(raw)) status.signal = WTERMSIG(raw);
  status_ = status;
  return status_;
}

ExitStatus ChildProcess::Kill() {
  if (!status_.has_value()) Signal(SIGKILL);
  // SIGKILL cannot be refused, and a stopped process obeys it too.
  const std::optional<ExitStatus> status = Wait(60'000);
  return status.value_or(ExitStatus{});
}

std::optional<std::string> ChildProcess::ReadLine(int timeout_ms) {
  const uint64_t deadline = DeadlineNs(timeout_ms);
  while (true) {
    const size_t end = buffered_.find('\n');
    if (end != std::string::npos) {
      std::string line = buffered_.substr(0, end);
      buffered_.erase(0, end + 1);
      return line;
    }
    pollfd entry = {output_fd_, POLLIN, 0};
    const int ready = poll(&entry, 1, MsLeft(deadline));
    if (ready < 0 && errno == EINTR) continue;
    char chunk[4096];
    const ssize_t bytes = ready == 1 ? read(output_fd_, chunk, sizeof(chunk)) : 0;
    if (bytes <= 0) return std::nullopt;
    buffered_.append(chunk, static_cast<size_t>(bytes));
  }
}

std::string ChildProcess::ReadOutput(int timeout_ms) {
  std::string all;
  for (const uint64_t deadline = DeadlineNs(timeout_ms);;) {
    const std::optional<std::string> line = ReadLine(MsLeft(deadline));
    if (!line.has_value()) break;
    all += *line + "\n";
  }
  return all + std::exchange(buffered_, std::string());
}

std::string ChildProcess::Log() const { return ReadFile(log_path_); }

Finished RunToEnd(SpawnOptions options, int timeout_ms) {
  const TempDir directory;
  options.pipe_output = true;
  options.log_path = directory / "errors";
  const uint64_t deadline = DeadlineNs(timeout_ms);
  ChildProcess process(options);
  Finished finished;
  finished.output = process.ReadOutput(timeout_ms);
  const std::optional<ExitStatus> status = process.Wait(MsLeft(deadline));
  finished.status = status.has_value() ? *status : process.Kill();
  finished.errors = process.Log();
  return finished;
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  content << file.rdbuf();
  return content.str();
}

void WriteFile(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
}

bool IsRoot() { return geteuid() == 0; }

}  // namespace sutra::test
