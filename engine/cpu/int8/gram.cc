// One operand transposed, the other in panels.
#include "engine/cpu/int8/gram.h"

#include <algorithm>
#include <cassert>

namespace sutra::cpu {

Gram::Gram(const KernelTable& kernels, size_t rows_max, size_t width_max)
    : kernels_(kernels),
      transposed_((width_max + kRowPadding) * rows_max * sizeof(float)),
      packed_(width_max * rows_max * sizeof(float)),
      rows_max_(rows_max) {
  assert(kernels.element == Element::kF32);
}

void PackPanels(const float* d, size_t stride, size_t rows, size_t width, float* packed) {
  assert(width % kPanelColumns == 0);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t panel = 0; panel < width / kPanelColumns; ++panel) {
      std::copy_n(d + r * stride + panel * kPanelColumns, kPanelColumns, packed + (panel * rows + r) * kPanelColumns);
    }
  }
}

void Gram::Load(const float* d, size_t stride, size_t rows, size_t width, float sign) {
  assert(rows <= rows_max_);
  rows_ = rows;
  width_ = width;
  PackPanels(d, stride, rows, width, packed_.As<float>());
  constexpr size_t kTile = 16;  // of rows and columns at once: whole cache lines on both sides
  float* const out = transposed_.As<float>();
  for (size_t begin = 0; begin < rows; begin += kTile) {
    const size_t end = std::min(begin + kTile, rows);
    for (size_t k = 0; k < width; ++k) {
      for (size_t r = begin; r < end; ++r) out[k * rows + r] = sign * d[r * stride + k];
    }
  }
}

void Gram::Add(size_t panel, float* c, size_t c_stride) const {
  GemmCall call;
  call.a = transposed_.data();
  call.a_stride = rows_;
  call.rows = (panel + 1) * kPanelColumns;
  call.b = packed_.data();
  call.depth = rows_;
  call.panel_begin = panel;
  call.panel_end = panel + 1;
  call.output = GemmOutput::kAddToF32;
  call.c = c;
  call.c_stride = c_stride;
  kernels_.gemm(call);
}

}  // namespace sutra::cpu
