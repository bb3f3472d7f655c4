// A small engine for tests: a forked process that serves lanes over the real shared-memory pieces and
// answers each text with a deterministic vector. It can stall, stop, die, drain, refuse, and hand out broken lanes.
// A process, not a thread: liveness rests on locks that a process cannot see of itself.
#pragma once

#include <sys/mman.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <string>

#include "shm/base/status.h"
#include "shm/handshake_messages.h"
#include "shm/layout.h"

namespace sutra::test {

enum class Hostile { kNo, kUnsealed, kWrongSize, kNotAPipe, kWrongMagic, kNoDescriptors, kSilent, kOtherWidthInHeader };

struct EchoOptions {
  uint32_t width = 16;
  uint32_t text_bytes_max = kTextBytesMaxDefault;
  uint32_t slots_max = kSlotsMax;  // more are reduced to this
  std::string model = "echo-model";
  std::string identity = std::string(64, 'e');
  uint16_t layout_major = kLayoutMajor;
  size_t welcome_bytes = sizeof(WelcomeMessage);  // of a refusal
  StatusCode refuse = StatusCode::kOk;
  StatusCode answer = StatusCode::kOk;  // of every text
  Hostile hostile = Hostile::kNo;
  bool spin = false;         // never sleeps
  bool reverse = false;      // answers what it took in one round in reverse order
  uint32_t round_max = 64;   // requests taken from a lane per round
  uint32_t hot_slots = 0;    // of its hot table, which gets every text that was answered; 0 = it has none
  uint32_t spoil_every = 0;  // each nth vector has one wrong float (0 = none): for canaries
};

// Shared with the engine's process; all words are hints and counters (relaxed).
struct EchoControl {
  std::atomic<uint32_t> hold;       // 1 = take, but do not answer
  std::atomic<uint32_t> deaf;       // 1 = do not even take
  std::atomic<uint32_t> drain;      // 1 = answer what was taken, close all lanes, exit
  std::atomic<uint32_t> hot_clear;  // 1 = empty the hot table, then 0 again
  std::atomic<uint64_t> kill_at;    // SIGKILL itself after taking this many requests (0 = never)
  std::atomic<uint64_t> taken, answered, cancelled, lanes_opened, lanes_lost, violations;
};

class EchoEngine {
 public:
  EchoEngine(const std::string& path, const EchoOptions& options);
  ~EchoEngine();  // kills and reaps
  EchoEngine(const EchoEngine&) = delete;
  EchoEngine& operator=(const EchoEngine&) = delete;

  EchoControl& control() { return *control_; }
  pid_t pid() const { return pid_; }
  void Kill();  // SIGKILL and reap
  void Stop();  // SIGSTOP, returns when it is stopped
  void Continue();
  int WaitForExit();  // reaps; RETURNS the wait status

 private:
  std::string path_;
  EchoControl* control_;
  pid_t pid_ = -1;
};

// The function the engine computes.
uint64_t EchoHash(const char* text, size_t text_bytes);
void EchoVector(uint64_t hash, float* vector, uint32_t width);
bool IsEchoOf(const std::string& text, const float* vector, uint32_t width);

}  // namespace sutra::test
