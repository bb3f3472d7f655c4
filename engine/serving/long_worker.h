// The thread of the long texts: reads each from its tail file, one at a time, and does with it what the loop does with
// a short one (request_path.h), and then what the device worker does with a text before it computes it: checks its
// UTF-8 and tokenises it. So the loop never handles a long text, and a batch never waits for one.
//
// Thread rule: the constructor starts the thread; Stop (or the destructor) ends it after the current text. Texts that
// are still queued then are dropped unanswered: they are the next engine's.
// Invariants: every text is answered, dropped with its lane, or computed, and the charge of those that are not computed
// is given back; memory that is short fails one text; a lane whose text cannot be read is reported to the loop. Only
// this thread starts computations of long texts (in_flight.h).
#pragma once

#include <string>
#include <thread>

#include "engine/serving/request_path.h"
#include "engine/serving/served_model.h"

namespace sutra {

class LongWorker {
 public:
  explicit LongWorker(ServedModel* model);
  ~LongWorker();

  void Stop();

 private:
  static constexpr int kMemoryRetryMs = 10;

  void Run();
  void Serve(const LongRequestPtr& request);
  bool Handle(const LongRequestPtr& request);
  bool EndedAlready(const Waiter& waiter);
  bool Compute(const LongRequestPtr& request);
  StatusCode Tokenise(LongRequest* request);

  ServedModel& model_;
  RequestPath path_;
  std::string text_;  // kept, so that it allocates nothing while texts are found

  std::thread thread_;
};

}  // namespace sutra
