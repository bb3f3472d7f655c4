// The int8 half of a set's trial (kernel_trial.h): each of its functions on a small case, against the definition.
// Thread rule: used by one thread at a time. Matches allocates nothing, so that a forked child may call it.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/cpu/aligned_buffer.h"
#include "engine/cpu/kernels/int8_kernels.h"

namespace sutra::cpu {

class Int8Trial {
 public:
  explicit Int8Trial(Element element);

  // REQUIRES kernels.int8 != nullptr, and its elements are of this type.
  bool Matches(const KernelTable& kernels);

 private:
  // Rows that no tile divides; the last ones have a second term.
  static constexpr size_t kRows = 39;
  static constexpr size_t kTwoTermBegin = 30;
  static constexpr size_t kDepth = 128;
  static constexpr size_t kColumns = 192;
  static constexpr size_t kBlocks = kDepth / MixBlockWidth(kDepth);

  struct Rows {
    AlignedBuffer values = AlignedBuffer((kRows + kRowPadding) * kDepth);
    AlignedBuffer remainders = AlignedBuffer((kRows + kRowPadding) * kDepth);
    AlignedBuffer scale = AlignedBuffer((kRows + kRowPadding) * kBlocks * sizeof(float));
    QuantisedRows view() const;
  };
  struct Results {
    Rows quantised;
    Rows normalized;
    AlignedBuffer x = AlignedBuffer((kRows + kRowPadding) * kDepth * sizeof(float));
    AlignedBuffer sums = AlignedBuffer((kRows + kRowPadding) * kColumns * sizeof(float));
  };

  void Run(const Int8Kernels& kernels, Results* out) const;
  static bool RowsMatch(const Rows& rows, const Rows& expected, int steps_max);

  Quantisation how_;
  std::vector<uint8_t> classes_;
  std::vector<float> numbers_;  // inputs, smoothing, norms and sums: whatever floats are needed
  std::vector<int32_t> offsets_;
  AlignedBuffer elements_;
  AlignedBuffer weights_;
  Results expected_;
  Results computed_;
};

}  // namespace sutra::cpu
