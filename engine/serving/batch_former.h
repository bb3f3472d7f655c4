// Forms the batches of one worker, one text at a time in the batcher's order: a text that nobody waits for any more is
// dropped, the others are checked (UTF-8) and tokenised here, so that the loop never has to. What fits into the token
// budget (the configured one, or what the backend computes at once) goes to the model; the first that does not is the
// first of the next batch. Texts that end here (cancelled, late, invalid, too long for their waiters) are answered
// here.
//
// A newcomer does not wait for two full batches: it arrives while one is computed, and after a long one the next takes
// only an eighth of the budget if a newcomer is the first of it. Never two such in a row, so that bulk keeps at least
// 8/9 of what the model can do.
//
// Thread rule: its worker's thread.
// Invariants: the texts of a batch cost at most the budget together, or are one text; every text taken from the
// batcher is settled or put back; memory that is short fails the text that needed it.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/serving/served_model.h"

namespace sutra {

// Packed rows: text i has ids[offsets[i] .. offsets[i + 1]).
struct Batch {
  std::vector<ComputationPtr> texts;
  std::vector<int32_t> ids;
  std::vector<int32_t> offsets;
  uint64_t cost = 0;
};

class BatchFormer {
 public:
  // `backend`: of the worker; how much it computes at once.
  BatchFormer(ServedModel* model, const ModelBackend* backend) : model_(*model), backend_(*backend) {}

  // Waits for texts and forms a batch of them; the last one is no longer valid. Null after the batcher's Stop.
  const Batch* Next();

  // The last batch was served and took so long; it is no longer valid.
  void Served(uint64_t ns);

 private:
  // A batch that takes longer is worth an interruption: it is what a text notices.
  static constexpr uint64_t kLongNs = 4'000'000;
  static constexpr uint32_t kBriefPart = 8;  // of the token budget

  void Form();
  bool TakeOne(uint64_t budget);
  size_t WaitersLeft(const ComputationPtr& computation);
  bool Tokenise(const ComputationPtr& computation);
  bool TokeniseInMemory(const ComputationPtr& computation);
  void Refuse(const Waiter& waiter, StatusCode code);
  bool EndWith(const ComputationPtr& computation, StatusCode code);
  bool RefuseTruncation(const ComputationPtr& computation);
  void PutBack(TakenText taken, size_t ids_before);

  ServedModel& model_;
  const ModelBackend& backend_;
  Batch batch_;
  std::vector<Waiter> removed_;  // kept, so that it allocates nothing in the steady state
  uint64_t spent_ = 0;           // of the budget: by the texts of the batch, and by those that were tokenised in vain
  uint64_t now_ns_ = 0;
  bool brief_ = false;  // the last batch was, for a newcomer
  bool full_ = false;   // the last batch left texts for want of budget
  bool long_ = false;   // the last batch took long, and was full
  uint64_t arrivals_before_ = 0;
};

}  // namespace sutra
