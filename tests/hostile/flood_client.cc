// A client that takes more than its share, as a process of its own.
//   sutra-flood-client DUTY SOCKET [NAME=VALUE]...
// processes=N runs the duty in N processes of a new PID namespace (needs root; exit code 77 where that is not allowed).
// What each duty says on standard output stands at its function.
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "tests/hostile/flood_client.h"

namespace sutra::test {

std::vector<HeldFile> HeldLaneFiles() {
  std::vector<HeldFile> files;
  DIR* const directory = opendir("/proc/self/fd");
  while (const dirent* const entry = directory != nullptr ? readdir(directory) : nullptr) {
    const std::string path = std::string("/proc/self/fd/") + entry->d_name;
    char target[256] = {};
    if (readlink(path.c_str(), target, sizeof(target) - 1) <= 0) continue;
    if (std::strncmp(target, "/memfd:sutra-", 13) != 0) continue;
    HeldFile file = {.fd = std::atoi(entry->d_name), .name = target + 7};
    struct stat status = {};
    if (fstat(file.fd, &status) != 0) continue;
    file.bytes = static_cast<uint64_t>(status.st_size);
    file.bytes_held = static_cast<uint64_t>(status.st_blocks) * 512;
    files.push_back(file);
  }
  if (directory != nullptr) closedir(directory);
  return files;
}

void Pause(uint64_t microseconds) {
  const timespec time = {static_cast<time_t>(microseconds / 1'000'000),
                         static_cast<long>(microseconds % 1'000'000 * 1000)};
  ppoll(nullptr, 0, &time, nullptr);
}

void AwaitStart() {
  sigset_t start;
  sigemptyset(&start);
  sigaddset(&start, SIGUSR1);
  int number = 0;
  sigwait(&start, &number);
}

namespace {

int RunDuty(const FloodArguments& arguments) {
  if (arguments.duty == "queue-texts") return QueueTexts(arguments);
  if (arguments.duty == "flood-texts") return FloodTexts(arguments);
  if (arguments.duty == "punch-holes") return PunchHoles(arguments);
  if (arguments.duty == "hoard-memory") return HoardMemory(arguments);
  if (arguments.duty == "park-threads") return ParkThreads(arguments);
  if (arguments.duty == "storm-attaches") return StormAttaches(arguments);
  if (arguments.duty == "connect-silently") return ConnectSilently(arguments);
  if (arguments.duty == "borrow-identities") return BorrowIdentities(arguments);
  if (arguments.duty == "live-many-lives") return LiveManyLives(arguments);
  return kFloodUsage;
}

// Every process of the namespace dies with this one: the first of them is its init.
int RunInNamespace(const FloodArguments& arguments, uint64_t processes) {
  if (unshare(CLONE_NEWPID) != 0) {
    Say("not allowed");
    return kFloodNotAllowed;
  }
  const pid_t init = fork();
  if (init == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (uint64_t i = 0; i < processes; ++i) {
      if (fork() == 0) _exit(RunDuty(arguments));
    }
    int status = 0;
    while (wait(&status) > 0) {
    }
    _exit(0);
  }
  int status = 0;
  waitpid(init, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

void OpenEveryDescriptorAllowed() {
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int Main(int argc, char** argv) {
  if (argc < 3) return kFloodUsage;
  FloodArguments arguments = {.duty = argv[1], .socket = argv[2], .values = {}};
  for (int i = 3; i < argc; ++i) {
    const std::string item = argv[i];
    const size_t equals = item.find('=');
    if (equals == std::string::npos) return kFloodUsage;
    arguments.values[item.substr(0, equals)] = item.substr(equals + 1);
  }
  sigset_t start;
  sigemptyset(&start);
  sigaddset(&start, SIGUSR1);
  sigprocmask(SIG_BLOCK, &start, nullptr);
  OpenEveryDescriptorAllowed();
  // The attacks are on the engine, not on the scheduler of a machine with two cores.
  setpriority(PRIO_PROCESS, 0, 19);
  alarm(100 + static_cast<unsigned>(arguments.Number("seconds", 0)));
  const uint64_t processes = arguments.Number("processes", 0);
  return processes == 0 ? RunDuty(arguments) : RunInNamespace(arguments, processes);
}

}  // namespace
}  // namespace sutra::test

int main(int argc, char** argv) { return sutra::test::Main(argc, argv); }
