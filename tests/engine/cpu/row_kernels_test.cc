// Embedding, norm and mean of every kernel set this CPU can run, against plain arithmetic in double, for widths of
// whole vectors and others. Tables and outputs end at a guard page: nothing beyond them is read or written.
#include <gtest/gtest.h>

#include <cmath>

#include "shm/base/numbers.h"
#include "tests/engine/cpu/kernel_tables.h"

namespace sutra::cpu {
namespace {

class RowKernels : public CpuKernels {};

TEST_P(RowKernels, EmbeddingNormAndMeanMatchForEveryWidth) {
  constexpr size_t kRows = 7;
  constexpr size_t kWords = 10;
  constexpr double kUntouched = 77.0;
  for (const size_t width : {1, 7, 25, 48, 63, 64, 65, 100, 312, 384, 392}) {
    const size_t padded = RoundUp(width, kPanelColumns);
    const size_t stride = padded + kHeadColumns;
    const GuardedArray<float> words(kWords * width);
    const GuardedArray<float> positions(kRows * width);
    const GuardedArray<int32_t> ids(kRows);
    for (float& value : words.values()) value = static_cast<float>(Normal());
    for (float& value : positions.values()) value = static_cast<float>(Normal() * 3 + 1);
    for (size_t i = 0; i < kRows; ++i) ids[i] = static_cast<int32_t>((3 * i + 9) % kWords);  // the last word is first
    AlignedBuffer memory(kRows * stride * sizeof(float));
    float* const x = memory.As<float>();
    std::fill_n(x, kRows * stride, static_cast<float>(kUntouched));
    table_->embed({.ids = ids.data(),
                   .tokens = kRows,
                   .width = width,
                   .words = words.data(),
                   .positions = positions.data(),
                   .x = x,
                   .x_stride = stride});
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t i = 0; i < stride; ++i) {
        const float sum = i < width ? words[static_cast<size_t>(ids[r]) * width + i] + positions[r * width + i] : 0.0F;
        ASSERT_EQ(x[r * stride + i], i < padded ? sum : static_cast<float>(kUntouched)) << "width " << width;
      }
    }

    const GuardedArray<float> gain(padded);
    const GuardedArray<float> shift(padded);
    for (size_t i = 0; i < width; ++i) gain[i] = static_cast<float>(Normal());
    for (size_t i = 0; i < width; ++i) shift[i] = static_cast<float>(Normal());
    const std::vector<float> before(x, x + kRows * stride);
    Elements elements(table_->element, kRows * stride);
    for (size_t i = 0; i < kRows * stride; ++i) elements.Set(i, kUntouched);
    table_->normalize({.x = x,
                       .rows = kRows,
                       .width = width,
                       .stride = stride,
                       .epsilon = 1e-5F,
                       .gain = gain.data(),
                       .shift = shift.data(),
                       .elements = elements.memory.data()});
    std::vector<double> means(width, 0.0);
    for (size_t r = 0; r < kRows; ++r) {
      const float* const row = before.data() + r * stride;
      double mean = 0;
      double variance = 0;
      for (size_t i = 0; i < width; ++i) mean += static_cast<double>(row[i]) / static_cast<double>(width);
      for (size_t i = 0; i < width; ++i) {
        const double part = static_cast<double>(row[i]) - mean;
        variance += part * part / static_cast<double>(width);
      }
      for (size_t i = 0; i < width; ++i) {
        const double expected =
            (static_cast<double>(row[i]) - mean) / std::sqrt(variance + 1e-5) * static_cast<double>(gain[i]) +
            static_cast<double>(shift[i]);
        // A width of one divides by the epsilon alone.
        const double tolerance = width == 1 ? 1e-3 : 2e-5;
        ASSERT_NEAR(static_cast<double>(x[r * stride + i]), expected, tolerance) << "width " << width;
        ASSERT_NEAR(elements.Get(r * stride + i), expected, tolerance + Rounding() * (1 + std::abs(expected)));
        means[i] += expected / kRows;
      }
      for (size_t i = width; i < stride; ++i) {
        const double right = i < padded ? 0.0 : kUntouched;
        ASSERT_EQ(static_cast<double>(x[r * stride + i]), right) << "width " << width << " column " << i;
        ASSERT_EQ(elements.Get(r * stride + i), right) << "width " << width << " column " << i;
      }
    }
    const GuardedArray<float> out(width + 1);
    out[width] = static_cast<float>(kUntouched);
    table_->mean({.x = x, .rows = kRows, .width = width, .stride = stride, .out = out.data()});
    for (size_t i = 0; i < width; ++i) ASSERT_NEAR(static_cast<double>(out[i]), means[i], width == 1 ? 1e-3 : 2e-5);
    ASSERT_EQ(out[width], static_cast<float>(kUntouched));
    const GuardedArray<float> exact(width);
    table_->mean({.x = x, .rows = kRows, .width = width, .stride = stride, .out = exact.data()});
    for (size_t i = 0; i < width; ++i) ASSERT_EQ(exact[i], out[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(EverySet, RowKernels, testing::ValuesIn(KernelTables()), KernelTableName);

}  // namespace
}  // namespace sutra::cpu
