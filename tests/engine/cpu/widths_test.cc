#include "engine/cpu/widths.h"

#include <gtest/gtest.h>

#include "engine/cpu/kernels/kernels.h"

namespace sutra::cpu {
namespace {

TEST(Widths, WholePanelsStayAsTheyAre) {
  const Widths widths = WidthsOf({.hidden = 384, .heads = 12, .intermediate = 1472});
  EXPECT_EQ(widths.hidden, 384U);
  EXPECT_EQ(widths.hidden_padded, 384U);
  EXPECT_EQ(widths.inner, 1472U);
  EXPECT_EQ(widths.head, 32U);
  EXPECT_EQ(widths.heads, 12U);
  EXPECT_EQ(widths.context, 384U);
  EXPECT_EQ(widths.hidden_row, 384U);
  EXPECT_EQ(widths.qkv_row, 1152U);
  EXPECT_EQ(widths.context_row, 384U);
  EXPECT_EQ(widths.inner_row, 1472U);
}

TEST(Widths, EveryShapeIsPaddedToWholePanelsAndHeads) {
  for (uint32_t head = 1; head <= 130; ++head) {
    for (uint32_t heads = 1; heads <= 6; ++heads) {
      const EncoderSpec spec = {.hidden = head * heads, .heads = heads, .intermediate = 7 * head};
      const Widths widths = WidthsOf(spec);
      EXPECT_EQ(widths.hidden, spec.hidden);
      EXPECT_GE(widths.hidden_padded, spec.hidden);
      EXPECT_GE(widths.inner, spec.intermediate);
      EXPECT_GE(widths.head, head);
      EXPECT_LT(widths.head, head + kHeadColumns);
      EXPECT_GE(widths.heads, heads);
      EXPECT_LE(widths.heads, heads + 1);
      EXPECT_EQ(widths.head % kHeadColumns, 0U);
      EXPECT_EQ(widths.context, widths.heads * widths.head);
      for (const size_t panels : {widths.hidden_padded, widths.inner, widths.context}) {
        EXPECT_EQ(panels % kPanelColumns, 0U) << head << " x " << heads;
      }
    }
  }
}

// 2 KiB are 512 floats or 1,024 bf16: bge-large's 1,024, 3,072 and 4,096 columns.
TEST(Widths, RowsDoNotFallOnTheSameCacheSets) {
  for (const uint32_t panels : {6U, 8U, 16U, 24U, 48U, 64U}) {
    const Widths widths = WidthsOf({.hidden = 64 * panels, .heads = panels, .intermediate = 256 * panels});
    for (const size_t row : {widths.hidden_row, widths.qkv_row, widths.context_row, widths.inner_row}) {
      EXPECT_NE(row * ElementBytes(Element::kF32) % 2048, 0U) << row;
      EXPECT_NE(row * ElementBytes(Element::kBf16) % 2048, 0U) << row;
      EXPECT_EQ(row * ElementBytes(Element::kBf16) % 64, 0U) << row << ": rows begin on a cache line";
    }
  }
}

}  // namespace
}  // namespace sutra::cpu
