#include "engine/cpu/int8_trial.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "engine/cpu/packed_model.h"

namespace sutra::cpu {

QuantisedRows Int8Trial::Rows::view() const {
  return {.values = values.As<uint8_t>(),
          .remainders = remainders.As<uint8_t>(),
          .stride = kDepth,
          .scale = scale.As<float>(),
          .blocks = kBlocks,
          .two_term_begin = kTwoTermBegin};
}

Int8Trial::Int8Trial(Element element)
    : classes_(kRows, 1),
      numbers_(kRows * kDepth),
      offsets_(kBlocks * kColumns),
      elements_((kRows + kRowPadding) * kDepth * sizeof(float)),
      weights_(kColumns * kDepth) {
  uint32_t state = 99;
  const auto next = [&state] {
    state = state * 1664525U + 1013904223U;
    return state >> 8;
  };
  for (float& number : numbers_) number = static_cast<float>(next()) * 0x1p-24F + 0.1F;  // no factor is near zero
  for (size_t i = 0; i < numbers_.size(); ++i) {
    const float value = (i % 3 == 0 ? -1.0F : 1.0F) * numbers_[i];
    if (element == Element::kF32) {
      elements_.As<float>()[i] = value;
    } else {
      elements_.As<uint16_t>()[i] = ToBf16(value);
    }
  }
  for (size_t i = 0; i < kColumns * kDepth; ++i) {
    weights_.As<int8_t>()[i] = static_cast<int8_t>(static_cast<int>(next() % 255) - 127);
  }
  for (int32_t& offset : offsets_) offset = static_cast<int32_t>(next());
  classes_[0] = classes_[17] = 0;
  how_ = {kDepth, kDepth / kBlocks, numbers_.data(), {numbers_.data() + kDepth, numbers_.data() + 2 * kDepth}};
  Run(*PortableInt8Kernels(element), &expected_);
}

void Int8Trial::Run(const Int8Kernels& kernels, Results* out) const {
  kernels.quantise({.x = elements_.data(),
                    .x_stride = kDepth,
                    .rows = kRows,
                    .classes = classes_.data(),
                    .how = how_,
                    .out = out->quantised.view()});
  std::copy(numbers_.begin(), numbers_.end(), out->x.As<float>());
  NormalizeQuantiseCall norm;
  norm.norm = {.x = out->x.As<float>(),
               .rows = kRows,
               .width = kDepth,
               .stride = kDepth,
               .epsilon = 1e-12F,
               .gain = numbers_.data() + 3 * kDepth,
               .shift = numbers_.data() + 4 * kDepth};
  norm.classes = classes_.data();
  norm.how = how_;
  norm.out = out->normalized.view();
  kernels.normalize_quantise(norm);
  std::fill_n(out->sums.As<float>(), kRows * kColumns, 0.0F);
  Int8GemmCall product;
  product.a = expected_.quantised.view();  // its own would hide which function is wrong
  product.rows = kRows;
  product.classes = classes_.data();
  product.b = weights_.As<int8_t>();
  product.b_panel_stride = kPanelColumns * kDepth;
  product.depth = kDepth;
  product.block = kDepth / kBlocks;
  product.columns = kColumns;
  product.panel_end = kColumns / kPanelColumns;
  product.scale = numbers_.data();
  product.offsets = offsets_.data();
  product.offsets_stride = kColumns;
  product.bias[0] = numbers_.data() + 3 * kColumns;
  product.bias[1] = numbers_.data() + 4 * kColumns;
  product.output = GemmOutput::kAddToF32;
  product.c = out->sums.data();
  product.c_stride = kColumns;
  kernels.gemm(product);
}

bool Int8Trial::RowsMatch(const Rows& rows, const Rows& expected, int steps_max) {
  for (size_t i = 0; i < kRows * kDepth; ++i) {
    if (std::abs(int{rows.values.As<uint8_t>()[i]} - int{expected.values.As<uint8_t>()[i]}) > steps_max) return false;
  }
  for (size_t i = 0; i < kRows * kBlocks; ++i) {
    const float scale = expected.scale.As<float>()[i];
    if (!(std::abs(rows.scale.As<float>()[i] - scale) <= 1e-4F * scale)) return false;
  }
  return true;
}

// Quantising is defined to the bit; a norm's sums are not, which may move a value to its neighbour.
bool Int8Trial::Matches(const KernelTable& kernels) {
  kernels.prepare_thread();
  Run(*kernels.int8, &computed_);
  kernels.release_thread();
  if (!RowsMatch(computed_.quantised, expected_.quantised, 0)) return false;
  for (size_t i = kTwoTermBegin * kDepth; i < kRows * kDepth; ++i) {
    if (computed_.quantised.remainders.As<uint8_t>()[i] != expected_.quantised.remainders.As<uint8_t>()[i])
      return false;
  }
  if (!RowsMatch(computed_.normalized, expected_.normalized, 1)) return false;
  for (size_t i = 0; i < kRows * kColumns; ++i) {
    const float sum = expected_.sums.As<float>()[i];
    if (!(std::abs(computed_.sums.As<float>()[i] - sum) <= 1e-4F * (1 + std::abs(sum)))) return false;
  }
  return true;
}

}  // namespace sutra::cpu
