// How the steps of one chunk are run: as a whole by the calling thread, or in parts that all members of a team draw.
// Thread rule: each member has its own; what they share is SharedSteps.
#pragma once

#include <cstddef>

#include "engine/cpu/work_team.h"

namespace sutra::cpu {

class Steps {
 public:
  // The calling thread alone.
  explicit Steps(void* scratch) : scratch_(scratch) {}
  // One member of several; every member runs the same steps in the same order.
  Steps(SharedSteps* shared, size_t parts, bool leads, void* scratch)
      : shared_(shared), parts_(parts), leads_(leads), scratch_(scratch) {}

  // work(begin, end) over [0, count), whole or in parts. What an earlier step wrote is seen by a later one.
  template <typename Work>
  void Step(size_t count, const Work& work) {
    if (shared_ == nullptr) {
      work(0, count);
    } else {
      shared_->Step(next_++, count, parts_, work);
    }
  }

  bool shared() const { return shared_ != nullptr; }
  bool leads() const { return leads_; }  // exactly one member does
  void* scratch() const { return scratch_; }

 private:
  SharedSteps* shared_ = nullptr;
  size_t parts_ = 1;
  bool leads_ = true;
  void* scratch_;
  size_t next_ = 0;
};

}  // namespace sutra::cpu
