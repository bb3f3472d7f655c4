// Texts as the order of service sees them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/serving/fair_order.h"

namespace sutra::testing {

inline ComputationPtr QueuedText(const std::string& name, uint32_t cost, uint64_t client = 1, uint64_t queued_ns = 1) {
  auto computation = std::make_shared<Computation>();
  computation->text = name;
  computation->cost_estimate = cost;
  computation->client = std::make_shared<Client>(client, 0, 0, "");
  computation->queued_ns = queued_ns;
  return computation;
}

inline QueuePlace At(uint64_t client, PriorityClass priority = kClassNormal, uint64_t deadline_ns = 1000) {
  return {.client = client, .priority = priority, .deadline_ns = deadline_ns};
}

}  // namespace sutra::testing
