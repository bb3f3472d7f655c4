// How a request ends: with an engine's answer, at its deadline, cancelled, or with its engine. One word per slot says
// how, and in which attachment's memory the answer lies.
//
// Thread rule: any thread that has the slot, or the lane's mutex. Several may look at once: one of them decides.
// Invariants: whoever first sets ClientSlot::ended decides, and everyone else takes that word; a result is SUTRA_OK
// only with a vector, and has figures only of the answer to its own request.
#pragma once

#include <stdint.h>

#include "producer/client_lane.h"

namespace sutra::client {

// ClientSlot::ended: a status; whether it is the engine's, else it is ours; the sutra_reason of SUTRA_ENGINE_GONE;
// whether the vector came from the hot table; and of an engine's answer the low bits of its attachment's number.
inline constexpr uint32_t kEndedByAnswer = 0x100;
inline constexpr uint32_t kEndedReasonShift = 9, kEndedReasonMask = 7;
inline constexpr uint32_t kEndedHot = 0x1000;
inline constexpr uint32_t kEndedNumberShift = 13;
constexpr sutra_status EndedStatus(uint32_t ended) { return ended & 0xff; }
constexpr sutra_reason EndedReason(uint32_t ended) { return ended >> kEndedReasonShift & kEndedReasonMask; }

// How a held slot's request ended as of now, or SUTRA_NOT_READY. Ends it if the engine answered, if it ends with an
// engine that is gone, or if its deadline passed (now_ns; 0 = not asked).
sutra_status SettleSlot(ClientLane* lane, uint32_t slot, uint64_t now_ns);
// Ends a request that has not ended yet. RETURNS the status that it ended with.
sutra_status EndSlot(ClientLane* lane, uint32_t slot, uint32_t ended);
// Whether a request that has ended did so with its engine, without an answer.
bool EndedWithEngine(const ClientLane* lane, uint32_t slot);
// Asks for the end of a held request: at once where its engine is gone, else the engine is told.
void CancelLocked(ClientLane* lane, uint32_t slot) SUTRA_REQUIRES(lane->mutex);
// Fills all of *result by how the request ended: result->vector points into the reply lane only for SUTRA_OK.
void FillResult(const ClientLane* lane, uint32_t slot, sutra_result* result);
// Names the `width` floats at `vector` in all fields of a result that say where its vector is.
void SetVector(const float* vector, uint32_t width, sutra_result* result);
// Copies at most `width_max` floats from the reply lane, where *result points, to `vector`, where it points afterwards.
void CopyVector(uint32_t width_max, float* vector, sutra_result* result);

// When the engine wants an `overloaded` request submitted again, in ms; 0 = it does not say. REQUIRES: it ended by the
// engine's answer.
uint32_t RetryAfterMs(const ClientLane* lane, uint32_t slot, sutra_status status);

}  // namespace sutra::client
