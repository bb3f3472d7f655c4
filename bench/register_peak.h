// What one core of this CPU can multiply at most: loops over registers alone, no memory. The divisor of every share
// that bench/run kernels shows. Thread rule: any thread. Call a loop only on a CPU that has its instructions.
#pragma once

namespace sutra::bench {

enum class RegisterLoop { kFmaYmm, kFmaZmm, kDotBf16Zmm, kDotInt8Ymm, kDotInt8Zmm };

const char* NameOf(RegisterLoop loop);

// Arithmetic per second of the calling thread's processor time, in units of 10^9; a multiplication and an addition
// count as two. The best of several bursts of a few milliseconds in all. 0 where the build has no such loop.
double RegisterPeak(RegisterLoop loop);

// Processor time of the calling thread: what a busy machine still measures well.
double ThreadSeconds();

}  // namespace sutra::bench
