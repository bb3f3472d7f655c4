// What happens to a taken request in the loop thread: join, cache, or on to the model. One direction; nothing here
// waits.
//
// Order: a text that is in flight already is joined before the cache is asked (in_flight.h says why); a hit is copied
// directly into the reply slot and answered here, without another thread; a miss is copied and staged in the
// batcher.
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

  // Answers the request, or hands it on. `draining`: new requests are refused. A request for which memory is short is
  // answered `out of memory`.
  void Handle(LaneReader::Taken* request, bool draining);

 private:
  void Answer(LaneReader::Taken* request, bool draining);
  bool Join(const Waiter& waiter, std::string_view text);
  bool AnswerFromCache(const Waiter& waiter, std::string_view text);
  void Compute(const Waiter& first, std::string_view text);
  void Queue(const ComputationPtr& computation, const Waiter& waiter, bool joined);

  ServedModel& model_;
};

}  // namespace sutra
