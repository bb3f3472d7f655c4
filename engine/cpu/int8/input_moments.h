// Gathers what one product's inputs look like: the mean of each class of rows, and H (linear_statistics.h).
//
// Thread rule: one thread at a time. Invariants:
// - One pass over the data, without the cancellation of sums of squares: rows are taken relative to the class means of
//   the first chunk, and the rest is corrected exactly.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "engine/cpu/aligned_buffer.h"
#include "engine/cpu/forward_pass.h"
#include "engine/cpu/int8/gram.h"
#include "engine/cpu/int8/linear_statistics.h"

namespace sutra::cpu {

class InputMoments {
 public:
  explicit InputMoments(size_t depth);

  // Adds the rows of a chunk, [rows][depth] with row stride `stride`. `scratch` holds rows_max x padded_depth() floats;
  // `gram` is for matrices of that size.
  void Add(const ChunkOfTexts& chunk, const float* rows, size_t stride, float* scratch, Gram* gram);

  // REQUIRES: rows of both classes were added.
  LinearStatistics Finish() const;

  size_t padded_depth() const { return padded_depth_; }

 private:
  struct Class {
    std::vector<float> reference;
    std::vector<double> sum;       // of d' = x - reference
    std::vector<double> weighted;  // of d' times the weight of its token
    double rows = 0;
    double weight = 0;
  };

  void SetReferences(const ChunkOfTexts& chunk, const float* rows, size_t stride);
  void AddRow(const float* row, Class* of, double weight, float* out);

  const size_t depth_;
  const size_t padded_depth_;
  std::array<Class, kRowClasses> classes_;
  AlignedBuffer products_;  // [padded_depth][padded_depth]: of weight * d' d'^T, the upper half
};

}  // namespace sutra::cpu
