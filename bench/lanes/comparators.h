// What our lanes are measured beside, without a line of ours in it: the least that shared memory and the kernel can do.
// All run between the bench's process on the client's CPU and a peer on the engine's.
// Thread rule: the bench's main thread.
#pragma once

#include <cstdint>

namespace sutra::bench {

// One cache line that both sides write in turn: nanoseconds per round trip.
double BouncedLineNs(int windows, int round_trips);

// Slots with a sequence word in each, a constant vector that the server copies out, integer sums over every byte, no
// model, no checks, no statuses, no sleeping: nanoseconds per request with `window` in flight.
double BareSlotsNs(uint64_t window, int windows, int requests);

// Two processes that sleep on a futex each and wake the other; `pause_us` between two round trips, not counted.
// RETURNS the median round trip.
double FutexPingPongNs(int round_trips, uint64_t pause_us);

}  // namespace sutra::bench
