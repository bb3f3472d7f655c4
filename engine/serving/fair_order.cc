// The waiting clients in a tree by tag. Tree nodes move in and out without allocation.
#include "engine/serving/fair_order.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace sutra {

bool FairOrder::Earlier::operator()(const Flow* a, const Flow* b) const {
  return a->tag != b->tag ? a->tag < b->tag : a->turn < b->turn;
}

void FairOrder::Add(const QueuePlace& place, ComputationPtr* computation) {
  if ((*computation)->taken) return computation->reset();  // was joined, and has been served meanwhile
  if (flows_.size() > forget_at_) Forget();
  Flow& flow = flows_[place.client];
  flow.client = place.client;
  if (!flow.waits && flow.node.empty()) {
    Waiting one;
    flow.node = one.extract(one.insert(&flow).first);
  }
  flow.queue.Add(place.priority, place.deadline_ns, arrival_next_, computation);
  if (!flow.waits) Wait(&flow, arrival_next_);
  ++arrival_next_;
}

void FairOrder::Wait(Flow* flow, uint64_t arrival) {
  flow->tag = std::max(virtual_time_, flow->finish);
  flow->turn = turn_next_++;
  flow->waits_since = arrival;
  flow->waits = true;
  waiting_.insert(std::move(flow->node));
}

void FairOrder::EndWait(Flow* flow) {
  flow->node = waiting_.extract(flow);
  flow->waits = false;
  // Nobody waits: whoever comes next competes with nobody over what was served before.
  if (waiting_.empty()) virtual_time_ = std::max(virtual_time_, finish_max_);
}

FairOrder::Flow* FairOrder::Head() {
  while (!waiting_.empty()) {
    Flow* first = *waiting_.begin();
    if (first->queue.DropTaken()) return first;
    EndWait(first);  // others took all that it had joined: for free
  }
  return nullptr;
}

bool FairOrder::Take(uint64_t now_ns, TakenText* taken) {
  Flow* flow = Head();
  if (flow == nullptr) return false;
  ComputationPtr computation = flow->queue.Pop(now_ns);
  assert(!computation->taken);
  computation->taken = true;
  assert(flow->tag >= flow->finish);
  virtual_time_ = std::max(virtual_time_, flow->tag);
  flow->finish = flow->tag + computation->cost_estimate;
  finish_max_ = std::max(finish_max_, flow->finish);
  *taken = {.computation = std::move(computation), .client = flow->client, .charged = 0};
  taken->charged = taken->computation->cost_estimate;
  if (flow->queue.empty()) {
    EndWait(flow);
  } else {
    Retag(flow, flow->finish);
  }
  return true;
}

void FairOrder::Retag(Flow* flow, uint64_t tag) {
  Waiting::node_type node = waiting_.extract(flow);
  flow->tag = tag;
  flow->turn = turn_next_++;
  waiting_.insert(std::move(node));
}

void FairOrder::Correct(const TakenText& taken, uint32_t cost) {
  const auto found = flows_.find(taken.client);
  if (found == flows_.end()) return;  // forgotten: it had no debt
  Flow& flow = found->second;
  const bool at_finish = flow.tag == flow.finish;
  flow.finish = flow.finish - taken.charged + cost;
  finish_max_ = std::max(finish_max_, flow.finish);
  if (!flow.waits || cost == taken.charged) return;
  if (at_finish || flow.finish > flow.tag) Retag(&flow, flow.finish);
}

bool FairOrder::HeadArrivedSince(uint64_t arrivals, uint64_t now_ns) {
  Flow* flow = Head();
  if (flow == nullptr) return false;
  if (flow->waits_since >= arrivals) return true;
  const ClientQueue::Head next = flow->queue.Next(now_ns);
  return next.priority == kClassQuery && next.arrival >= arrivals;
}

// A client without texts whose last finish is in the past has no debt: to forget it changes nothing.
void FairOrder::Forget() {
  std::erase_if(flows_, [now = virtual_time_](const auto& item) {
    const Flow& flow = item.second;
    return !flow.waits && flow.finish <= now;
  });
  forget_at_ = std::max(kForgetAt, 2 * flows_.size());
}

}  // namespace sutra
