// Random numbers from the kernel that nothing may guess: seeds of hash tables that clients fill, generations, ids.
// There is no substitute for them: a public constant would let a client choose keys that collide. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sutra {

// False if the kernel provides none (no getrandom, or a seccomp filter forbids it); errno says why.
[[nodiscard]] bool FillRandom(void* data, size_t size);

// 64 random bits, never 0. Prints the cause and aborts where FillRandom would fail: there is no safe substitute.
uint64_t RandomSeed();

}  // namespace sutra
