#include "engine/cpu/widths.h"

#include "engine/cpu/kernels/kernels.h"
#include "shm/base/numbers.h"

namespace sutra::cpu {
namespace {

// Rows that are a multiple of 2 KiB apart begin on one or two of the 64 sets of an L1 cache, so that a block of rows
// evicts itself: the 32 rows of an AMX block of a 4,096-wide inner layer in bf16 would share the 12 ways of one set.
// Half a panel more moves each row by a cache line (bf16) or two (fp32). Blocks of six rows gain little: 0 to 3 % with
// AVX-512, nothing with AVX2 (Zen 5, depth 512 of 4,096).
size_t RowStride(size_t columns) {
  constexpr size_t kSharesSets = 512;  // floats in 2 KiB
  return columns % kSharesSets == 0 ? columns + kPanelColumns / 2 : columns;
}

}  // namespace

Widths WidthsOf(const EncoderSpec& spec) {
  Widths widths;
  widths.hidden = spec.hidden;
  widths.hidden_padded = RoundUp(spec.hidden, kPanelColumns);
  widths.inner = RoundUp(spec.intermediate, kPanelColumns);
  widths.head = RoundUp(spec.head_width(), kHeadColumns);
  widths.heads = RoundUp(spec.heads, widths.head % kPanelColumns == 0 ? 1 : kPanelColumns / kHeadColumns);
  widths.context = widths.heads * widths.head;
  widths.hidden_row = RowStride(widths.hidden_padded);
  widths.qkv_row = RowStride(3 * widths.context);
  widths.context_row = RowStride(widths.context);
  widths.inner_row = RowStride(widths.inner);
  return widths;
}

}  // namespace sutra::cpu
