// Starting attackers and hearing what became of them.
#include "bench/lanes/attackers.h"

#include <signal.h>

#include <algorithm>
#include <optional>

#include "bench/lanes/measure.h"

namespace sutra::bench {
namespace {

constexpr int kReadyMs = 30'000;

}  // namespace

Attackers::Attackers(const Flood& flood, const std::string& socket) {
  std::vector<std::string> answers;
  for (int number = 0; number < flood.processes; ++number) {
    test::SpawnOptions spawn;
    spawn.args = {"/proc/self/exe", "--attack", flood.name, socket, std::to_string(number)};
    spawn.log_path = directory_ / "attacker.log";
    spawn.pipe_output = true;
    processes_.push_back(std::make_unique<test::ChildProcess>(spawn));
  }
  for (const auto& process : processes_) {
    const std::string line = process->ReadLine(kReadyMs).value_or("refused: it died or hung");
    if (line.rfind("ready", 0) == 0) ++ready_;
    if (std::find(answers.begin(), answers.end(), line) == answers.end()) answers.push_back(line);
  }
  for (const std::string& answer : answers) said_ += (said_.empty() ? "" : "; ") + answer;
}

Attackers::~Attackers() {
  for (const auto& process : processes_) process->Signal(SIGKILL);
}

}  // namespace sutra::bench
