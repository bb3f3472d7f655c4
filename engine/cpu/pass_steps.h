// The steps that every forward pass has in the same form, whatever its products multiply.
// Thread rule: any thread; each call writes only the rows, heads or outputs that it is given.
#pragma once

#include "engine/cpu/forward_pass.h"
#include "engine/cpu/packed_model.h"

namespace sutra::cpu {

// x = words + positions, for the texts [begin, end) of a chunk.
void EmbedTexts(const KernelTable& kernels, const PackedModel& model, const ChunkOfTexts& chunk, size_t begin,
                size_t end, float* x);

// Which rows a step works on: all of a chunk, or the first of each text, which lies in the row of the text's number.
enum class RowsKept : uint8_t { kAll, kFirstOfEachText };

// Computes the pairs (text, head) with numbers [begin, end); the heads of one text are neighbours, and there are
// widths.heads of them. Queries, keys and values are there for all rows; what is kept is what attention writes.
void AttendPairs(const KernelTable& kernels, const Widths& widths, const ChunkOfTexts& chunk, size_t begin, size_t end,
                 const Workspace& workspace, void* scratch, RowsKept kept = RowsKept::kAll);

// Moves the first row of each text of the residual stream to the row of the text's number.
void KeepFirstRows(const Widths& widths, const ChunkOfTexts& chunk, float* x);

// Norm of rows [begin, end) in place, and as elements.
void NormalizeRows(const KernelTable& kernels, const PackedModel& model, const PackedNorm& norm,
                   const Workspace& workspace, size_t begin, size_t end);

// One vector per text, from the residual stream.
void PoolTexts(const KernelTable& kernels, const PackedModel& model, const ChunkOfTexts& chunk, const float* x,
               RowsKept kept = RowsKept::kAll);

}  // namespace sutra::cpu
