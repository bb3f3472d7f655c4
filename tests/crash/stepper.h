// A process that is stepped through one instruction at a time, and killed between any two (or inside a system call).
//
// Only the process's first thread is traced; its others run on. Single steps see every order in which one thread's
// instructions can be cut off, not stores that have left the CPU's store buffer late: the kernel drains it.
// Thread rule: the test's main thread, which is the tracer.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <string>

#include "tests/kit/child_process.h"

namespace sutra::test {

// Texts that the engine has in its cache before a stepped client asks for them.
inline constexpr const char* kStepperKnown = "a text that the stepped clients know";
inline const std::string kStepperKnownLong = std::string(3000, 'l');  // longer than a slot's head

class Stepper {
 public:
  // Starts the program, which asks to be traced; stands right before its operation if ready().
  explicit Stepper(const SpawnOptions& options);

  bool ready() const { return ready_; }
  // Executes so many instructions. RETURNS false if the process ended or got a signal instead: a failure of the test.
  [[nodiscard]] bool Step(uint64_t instructions);
  // Begins the next instruction, which is a system call, and gives it a moment to arrive in the kernel.
  void EnterSystemCall();

  bool AtSystemCall() const;
  bool AtEnd() const;  // nothing of the operation is left
  ExitStatus Kill() { return process_.Kill(); }
  std::string Log() const { return process_.Log(); }

 private:
  bool WaitTrap();
  uint64_t NextBytes() const;

  ChildProcess process_;
  bool ready_ = false;
};

// Empty if this process may trace its children, otherwise why not (a reason to skip).
std::string WhyNoTracing();

// What Sutra does not have: a lock in memory that processes share, which a killed holder keeps. For the canary.
class CommonLock {
 public:
  explicit CommonLock(const std::string& socket);  // the same one for the same socket
  ~CommonLock();
  CommonLock(const CommonLock&) = delete;
  CommonLock& operator=(const CommonLock&) = delete;
  void Acquire();
  void Release() { word_->store(0, std::memory_order_release); }

 private:
  std::atomic<uint32_t>* word_;
};

}  // namespace sutra::test
