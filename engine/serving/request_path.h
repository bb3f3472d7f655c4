// What happens to a taken request in the loop thread: cache, join, or on to the model. One direction; nothing here
// waits, not even for a lock: its holder may lose its CPU for milliseconds, in which the loop has others to serve.
//
// Order: a hit is copied directly into the reply slot and answered here, without another thread; a text that is in
// flight is joined (in_flight.h says why none falls between the two); a miss is copied and staged in the batcher.
//
// Thread rule: the loop thread. The parts of the model that it uses have thread rules of their own.
#pragma once

#include <string_view>

#include "engine/lanes/lane_reader.h"
#include "engine/serving/served_model.h"

namespace sutra {

class RequestPath {
 public:
  explicit RequestPath(ServedModel* model) : model_(*model) {}

  // Answers the request, or hands it on. A request for which memory is short is answered `out of memory`. False, and
  // nothing happened: another thread holds a lock that it needs, and has lost its CPU. Others need not wait for that:
  // try this one again later.
  [[nodiscard]] bool Handle(LaneReader::Taken* request);
  [[nodiscard]] bool HandleAgain(LaneReader::Taken* request);

 private:
  enum class Step : uint8_t {
    kDone,     // answered, or handed on
    kNothing,  // this step has nothing for it: the next one
    kBusy,     // a lock is held: all of it again
  };
  bool Answer(LaneReader::Taken* request);
  Step Refuse(const Waiter& waiter, StatusCode status, uint32_t retry_after_ms = 0);
  Step AnswerFromCache(const Waiter& waiter, std::string_view text);
  Step Join(const Waiter& waiter, std::string_view text);
  Step Compute(const Waiter& first, std::string_view text);
  void Queue(const ComputationPtr& computation, const Waiter& waiter, bool joined);

  ServedModel& model_;
};

}  // namespace sutra
