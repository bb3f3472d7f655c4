// How long clients wait when the engine dies and a standby takes over.
// Thread rule: the bench's main thread.
#pragma once

#include <string>
#include <vector>

#include "bench/lanes/measure.h"

namespace sutra::bench {

// takeover_ms: SIGKILL of an engine with a full cache to the first answer of its standby, for a client that sleeps in a
// blocking call; hand_over_ms: the same from SIGTERM. `notes` gets a line when the cache could not be filled.
void MeasureTakeover(const Extent& extent, Values* values, std::vector<std::string>* notes);

}  // namespace sutra::bench
