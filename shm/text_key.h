// The key of a cached vector is the model's identity, a variant and the full text. The variant stands for the options
// of a request that change the vector; it is the one place where they are encoded, for engine, cache and clients alike.
// Header-only. Thread rule: constants.
//
// A model's own settings are no options of a request: its default prompt, the width of its vectors (truncate_dim), its
// truncation side and its lower-casing are part of its identity. Whether a vector is answered normalised or raw changes
// only the answer: unit vector and length are both stored.
//
// Numbers are never reused: an old library or an old cache must miss, never hit another's vector. What comes later (a
// width, an element type or a prompt for each request) gets numbers of its own, with the version of their encoding in
// the upper byte.
#pragma once

#include <cstdint>

namespace sutra {

// Encoding version 0, no option: the model's own vector. The only variant that a request can ask for so far; other
// widths are refused. Stands in every record of the log.
inline constexpr uint32_t kVariantOfModel = 0;

}  // namespace sutra
