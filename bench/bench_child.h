// Work in a process of its own, so that one run's memory, threads and files are not the next one's: forked from a
// process without threads, ended without any clean-up, as a killed one is. Thread rule: the main thread.
#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

namespace sutra::bench {

// Runs `work` in a child process and returns its figure; negative on failure. With `kill_it` the child goes on after
// its figure until SIGKILL ends it, with whatever its threads are at.
inline double InChild(const std::function<double()>& work, bool kill_it = false) {
  int ends[2];
  if (pipe(ends) != 0) return -1;
  const pid_t child = fork();
  if (child == 0) {
    const double result = work();
    const bool sent = write(ends[1], &result, sizeof(result)) == static_cast<ssize_t>(sizeof(result));
    while (kill_it) pause();
    _exit(sent ? 0 : 1);
  }
  close(ends[1]);
  double result = -1;
  if (child < 0 || read(ends[0], &result, sizeof(result)) != static_cast<ssize_t>(sizeof(result))) result = -1;
  close(ends[0]);
  if (child < 0) return -1;
  if (kill_it) kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  return result;
}

}  // namespace sutra::bench
