// Random numbers from the kernel, for what nobody may guess: seeds of hash tables that clients fill, generations, ids.
// There is no substitute for them: a public constant would let a client choose keys that collide. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sutra {

// False if the kernel gives none (getrandom forbidden by a seccomp filter, a kernel without it); errno says why.
[[nodiscard]] bool FillRandom(void* data, size_t size);

// 64 random bits, never 0. Prints the cause and aborts where FillRandom would fail: nothing safe can be done without.
uint64_t RandomSeed();

}  // namespace sutra
