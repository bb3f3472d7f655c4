// What the two modes of sutra-embed share: lines that become items, results that become lines, the counts, the reason
// to stop, and at the end the summary and the exit code.
//
// Thread rule: one thread owns a job. Invariants: every item that was handed out gets exactly one result or error, in
// the order of the input; the exit code is 0 only if each got a result and all of them are written.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "shm/base/status.h"
#include "tools/lib/embed_options.h"
#include "tools/lib/progress.h"
#include "tools/lib/text_input.h"
#include "tools/lib/vector_output.h"

namespace sutra {

class EmbedJob {
 public:
  EmbedJob(const EmbedOptions& options, LineReader reader, std::unique_ptr<ResultWriter> writer);

  const EmbedOptions& options() const { return options_; }
  bool at_end() const { return at_end_; }
  // True until the job must stop: it broke off or a signal came.
  bool running() const;
  const ProgressCounts& counts() const { return counts_; }
  const Status& broken() const { return broken_; }  // kOk while it did not break off
  // Why an item that was read gets no result now that the job has stopped.
  std::string StopReason() const;

  // One line as an item, if there is one within timeout_ms.
  bool Next(InputItem* item, int timeout_ms);
  // Writes what was produced, then waits for the next line; false when there is none yet.
  bool FlushAndNext(InputItem* item);

  void Vector(const InputItem& item, std::span<const float> vector, uint64_t tokens);
  void Ids(const InputItem& item, std::span<const int32_t> ids);
  void Failed(const InputItem& item, const std::string& error);
  // Stops the job. `item_reason`: what the items say that get no result (default: the same).
  void Break(Status status, EmbedExitCode code = kEmbedLost, const std::string& item_reason = "");
  void Say(const std::string& message);  // unless --quiet

  // Completes the output; says the summary, with `details` at its end, and returns the exit code.
  int Finish(const std::string& details);

 private:
  void Took(uint64_t tokens);
  void Wrote(Status status);
  int EndWith();

  const EmbedOptions& options_;
  LineReader reader_;
  std::unique_ptr<ResultWriter> writer_;
  Progress progress_;
  ProgressCounts counts_;
  Status broken_;
  EmbedExitCode broken_code_ = kEmbedLost;
  std::string item_reason_;
  uint64_t handed_out_ = 0;          // items
  std::vector<std::string> errors_;  // the first few
  bool at_end_ = false;
};

// Opens input and output and runs; nothing is opened for writing before it is known that results can be produced
// (`width` floats each, 0 for token ids).
int WithEmbedJob(const EmbedOptions& options, uint32_t width, const std::function<int(EmbedJob&)>& body);

}  // namespace sutra
