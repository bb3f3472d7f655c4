// Several lanes of one process at a time, on the client's CPU: does the engine serve eight as fast as one?
// Thread rule: the bench's main thread.
#pragma once

#include "bench/lanes/measure.h"

namespace sutra::bench {

// eight_lanes_over_one: cached texts per second of eight threads with a lane each, 64 in flight in each, over those of
// one thread with one lane.
void MeasureManyLanes(const Extent& extent, Values* values);

}  // namespace sutra::bench
