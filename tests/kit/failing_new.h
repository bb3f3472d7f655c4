// Memory that runs out at a chosen allocation: a program that links this file has its operator new replaced. As long
// as no FailingNew exists it is the ordinary one. An allocation sweep lets the first allocation of an operation fail,
// then the second, and so on, until the operation needs no more:
//
//   for (uint64_t nth = 1;; ++nth) {
//     ... prepare ...
//     bool failed;
//     {
//       FailingNew memory(nth, FailingNew::Whose::kThisThread);
//       ... the operation ...
//       failed = memory.failed();
//     }
//     ... check what is left behind ...
//     if (!failed) break;  // it was not called that often
//   }
//
// malloc and its like are not affected. Thread-safe, but at most one FailingNew exists at a time (asserted). A check
// of GoogleTest allocates too: make it after the FailingNew is gone, or beside an Excused.
#pragma once

#include <cstdint>

namespace sutra::test {

class FailingNew {
 public:
  enum class Whose { kThisThread, kAllThreads };

  // From now on `times` allocations fail, beginning with number `nth` (1: the next); with kThisThread only those of
  // the calling thread are counted.
  FailingNew(uint64_t nth, Whose whose, uint64_t times = 1);
  ~FailingNew();
  FailingNew(const FailingNew&) = delete;
  FailingNew& operator=(const FailingNew&) = delete;

  // Whether an allocation has failed.
  bool failed() const;
  // How many allocations were counted so far.
  uint64_t counted() const;

  // While one exists, no allocation of its thread is counted or fails.
  class Excused {
   public:
    Excused();
    ~Excused();
    Excused(const Excused&) = delete;
    Excused& operator=(const Excused&) = delete;
  };
};

}  // namespace sutra::test
