// What others cost one client: floods beside a victim, a miss beside an ingest, hits beside idle lanes.
// Thread rule: the bench's main thread.
#pragma once

#include <string>
#include <vector>

#include "bench/lanes/measure.h"

namespace sutra::bench {

// flood_p99_us and a figure per flood. A flood that the engine refuses altogether has no figure and counts as refused.
void MeasureFloods(const Extent& extent, Values* values, std::vector<std::string>* notes);
// mixed_p99_ratio.
void MeasureMixed(const Extent& extent, Values* values, std::vector<std::string>* notes);
// idle_lanes_ratio and idle_cpu_percent.
void MeasureIdleLanes(const Extent& extent, Values* values, std::vector<std::string>* notes);

// Shows that these figures can be bad: an engine that stands still again and again moves the victim's p99, and an
// engine that grants no lane makes a flood "refused". RETURNS false, with what failed printed, if they do not.
bool SelfTest();

}  // namespace sutra::bench
