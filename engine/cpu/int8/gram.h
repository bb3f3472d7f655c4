// Sums of products of a matrix's columns, D^T D, by the engine's own fp32 products: what calibration gathers and what a
// Cholesky factorisation takes away.
// Thread rule: Load by one thread; then any threads may add different panels.
#pragma once

#include <cstddef>

#include "engine/cpu/aligned_buffer.h"
#include "engine/cpu/kernels/kernels.h"

namespace sutra::cpu {

class Gram {
 public:
  // For matrices of up to rows_max rows and width_max columns; `kernels` multiply fp32.
  Gram(const KernelTable& kernels, size_t rows_max, size_t width_max);

  // Takes `sign` times d^T d of d [rows][width], with row stride `stride`. REQUIRES width % 64 == 0.
  void Load(const float* d, size_t stride, size_t rows, size_t width, float sign);

  size_t panels() const { return width_ / kPanelColumns; }
  // c[i][j] += sign * d_i . d_j for the columns j of one panel and every i up to the end of that panel: all panels
  // together fill the upper half of c and a little more.
  void Add(size_t panel, float* c, size_t c_stride) const;

 private:
  const KernelTable& kernels_;
  AlignedBuffer transposed_;  // sign * d, [width][rows]
  AlignedBuffer packed_;      // d as panels, [panel][rows][64]
  size_t rows_max_ = 0;
  size_t rows_ = 0;
  size_t width_ = 0;
};

// The columns of `d` [rows][width] as the panels of a product, [panel][rows][64]. REQUIRES width % 64 == 0.
void PackPanels(const float* d, size_t stride, size_t rows, size_t width, float* packed);

}  // namespace sutra::cpu
