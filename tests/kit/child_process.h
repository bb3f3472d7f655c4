// A child process of a test: started with its output captured, signalled, waited for, and never left behind.
//
// Thread rule: start children from the test's main thread. PR_SET_PDEATHSIG ends a child when the *thread* that started
// it ends, which is what makes a crashed test leave nothing running.
// Invariants: the destructor kills and reaps; every wait is woken by the kernel (pidfd, pipe) and bounded.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace sutra::test {

struct SpawnOptions {
  std::vector<std::string> args;                 // args[0] is the program
  std::vector<std::string> environment;          // "NAME=value", beside the test's own
  std::string log_path;                          // standard error, and standard output unless it is piped
  bool pipe_output = false;                      // standard output is read with ReadLine and ReadOutput
  std::optional<uid_t> uid;                      // run as this user and group; needs root
  std::vector<std::pair<int, uint64_t>> limits;  // RLIMIT_..., for good
  bool close_standard_descriptors = false;       // start it without 0, 1 and 2; its log stays empty
  bool forbid_io_uring = false;                  // a seccomp filter answers EPERM to io_uring_setup
};

struct ExitStatus {
  bool exited = false;  // false: ended by `signal`
  int code = 0;
  int signal = 0;
};
std::string ToText(const ExitStatus& status);

inline constexpr int kExecFailed = 127;

class ChildProcess {
 public:
  explicit ChildProcess(const SpawnOptions& options);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }
  bool Running();
  void Signal(int number);
  // SIGSTOP, and returns when the kernel says that every thread stands still.
  void Stop();
  void Continue();
  // Returns when the process stopped itself (checkpoint action `stop`); false if it ended or `timeout_ms` passed.
  bool WaitStopped(int timeout_ms);
  // The exit status, or nothing when `timeout_ms` passed. The log is printed then.
  std::optional<ExitStatus> Wait(int timeout_ms);
  ExitStatus Kill();  // SIGKILL and reap

  // One line of the piped output without its newline; nullopt at end of file or after the timeout.
  std::optional<std::string> ReadLine(int timeout_ms);
  std::string ReadOutput(int timeout_ms);  // everything up to the end of file
  std::string Log() const;

 private:
  bool PollPid(int timeout_ms);

  std::string name_;
  std::string log_path_;
  pid_t pid_ = -1;
  int pid_fd_ = -1;
  int output_fd_ = -1;
  std::string buffered_;
  std::optional<ExitStatus> status_;
};

// Runs a program to its end, which is a SIGKILL after `timeout_ms`: exit status, standard output, standard error.
struct Finished {
  ExitStatus status;
  std::string output, errors;
};
Finished RunToEnd(SpawnOptions options, int timeout_ms);

std::string ReadFile(const std::string& path);
void WriteFile(const std::string& path, const std::string& content);

// True when this user may start children as other users, mount and so on.
bool IsRoot();

}  // namespace sutra::test
