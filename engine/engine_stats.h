// What the engine shows in the stats segment in addition to the counters of its parts: the constants of one run, and
// the gauges, which are read from the parts at every tick of the loop.
// Thread rule: the loop thread.
#pragma once

#include "cache/other_identities.h"
#include "engine/model/model_info.h"
#include "engine/serving/engine_loop.h"
#include "engine/serving/served_model.h"
#include "shm/stats/stats_writer.h"

namespace sutra {

void ShowConstants(const StatsWriter& stats, const ModelInfo& model, uint32_t lanes_max, size_t workers);
void ShowGauges(const ServedModel& model, const EngineLoop::Vitals& vitals);
void ShowOtherIdentities(const StatsWriter& stats, const OtherIdentities::Figures& figures);

}  // namespace sutra
