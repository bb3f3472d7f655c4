// What happens to a taken request in the loop thread: cache, join, or on to the model. One direction; nothing here
// waits, not even for a lock: its holder may lose its CPU for milliseconds, in which the loop has others to serve.
//
// Order: a hit is copied directly into the reply slot and answered here, without another thread, and is put into the
// hot table for a client that has it; a text that is in
// flight is joined (in_flight.h says why none falls between the two); a miss is copied and staged in the batcher.
//
// A long text goes to a thread of its own (long_worker.h), which uses a path of its own: Find and Queue.
//
// Thread rule: its producer's thread: the loop, or that of the long texts. The parts of the model that it uses have
// thread rules of their own.
#pragma once

#include <string_view>

#include "engine/lanes/lane_reader.h"
#include "engine/serving/served_model.h"

namespace sutra {

class RequestPath {
 public:
  enum class Step : uint8_t {
    kDone,     // answered, or handed on
    kNothing,  // this step has nothing for it: the next one
    kBusy,     // a lock is held: all of it again
  };

  explicit RequestPath(ServedModel* model, RequestBatcher::Producer producer = RequestBatcher::kLoop)
      : model_(*model), producer_(producer) {}

  // Answers the request, or hands it on. A request for which memory is short is answered `out of memory`. False, and
  // nothing happened: another thread holds a lock that it needs, and has lost its CPU. Others need not wait for that:
  // try this one again later.
  [[nodiscard]] bool Handle(LaneReader::Taken* request);
  [[nodiscard]] bool HandleAgain(LaneReader::Taken* request);

  // Answers the request from the cache, or lets it join the computation of its text. `removals`: of the cache, read
  // before, and to be those that a computation has seen which begins where nothing is found. Throws std::bad_alloc and
  // has changed nothing.
  Step Find(const Waiter& waiter, std::string_view text, uint64_t removals);
  // Stages the computation where `waiter` wants it. `again`: it counts as waiting already (RequestBatcher::Add).
  // REQUIRES: the batcher's ReserveOne.
  void Queue(const ComputationPtr& computation, const Waiter& waiter, bool again);

 private:
  bool Answer(LaneReader::Taken* request);
  Step Refuse(const Waiter& waiter, StatusCode status, uint32_t retry_after_ms = 0);
  Step AnswerFromCache(const Waiter& waiter, std::string_view text, uint64_t removals);
  Step Join(const Waiter& waiter, std::string_view text, uint64_t removals);
  Step Compute(const Waiter& first, std::string_view text, uint64_t removals);
  Step HandOver(const Waiter& first, const TailText& long_text);
  template <typename Request>
  std::shared_ptr<Request> MakeComputation(const Waiter& first, size_t text_bytes) const;

  ServedModel& model_;
  const RequestBatcher::Producer producer_;
};

}  // namespace sutra
