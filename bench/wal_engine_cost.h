// The CPU time that the log takes from a real engine at full load. Thread rule: the bench's main thread.
#pragma once

#include <optional>
#include <string>

namespace sutra::bench {

// CPU time of the log's threads over that of the threads that embed, of a sutra-engine with the model in `model` that
// is given texts it has never seen for some seconds; nothing, with the reason in `why`, if it cannot be measured.
std::optional<double> IntervalCost(const std::string& model, std::string* why);

}  // namespace sutra::bench
