// The same cached text through the Rust crate, by its example `cached`, which bench/run builds where cargo is.
// Thread rule: the bench's main thread.
#pragma once

#include <string>

#include "bench/lanes/measure.h"

namespace sutra::bench {

// rust_over_c: time of a blocking call with a cached text through the crate over the same call from C, in turns.
// Without the program the key stays empty.
void MeasureRust(const Extent& extent, const std::string& program, Values* values);

}  // namespace sutra::bench
