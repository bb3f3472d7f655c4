// How fast one client is: round trips and windows with both sides awake, round trips with both asleep, attaching; each
// beside its comparator, in turns within a run.
// Thread rule: the bench's main thread.
#pragma once

#include <string>

#include "bench/lanes/measure.h"

namespace sutra::bench {

// A bounced line below this says that both CPUs are threads of one core; the host moves them between runs.
inline constexpr double kNearNs = 85;

// round_trip_over_bounce, windowed_over_bare, redis_over_hit_latency, hit_over_redis_pipelined and their raw figures;
// each ratio once more under KEY_near or KEY_far, by where the host had put the CPUs. Without Redis its keys stay empty
// and *no_redis says why.
void MeasureAwake(const Extent& extent, Values* values, std::string* no_redis);
// The same hits from vectors that the real model in `folder` computed: raw figures only.
void MeasureRealModel(const Extent& extent, const std::string& folder, Values* values);
// asleep_over_futex.
void MeasureAsleep(const Extent& extent, Values* values);
// attach_ms: sutra_attach to the first answer, a cached text.
void MeasureAttach(const Extent& extent, Values* values);

}  // namespace sutra::bench
