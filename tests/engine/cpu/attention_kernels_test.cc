// Attention of every kernel set this CPU can run, against the definition in double over the same rounded operands.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "shm/base/numbers.h"
#include "tests/engine/cpu/kernel_tables.h"

namespace sutra::cpu {
namespace {

class AttentionKernels : public CpuKernels {
 protected:
  static constexpr size_t kHeads = 3;
  static constexpr double kUntouched = 77.0;

  // The context of all heads, in rows that follow each other directly. queries: as in AttentionCall.
  Elements Attend(const Elements& qkv, size_t tokens, size_t head, size_t heads = 1, size_t queries = 0) {
    const size_t width = heads * head;
    Elements context(table_->element, tokens * width);
    const AlignedBuffer scratch(AttentionScratchBytes(tokens, head));
    table_->attention({.qkv = qkv.memory.data(),
                       .qkv_stride = 3 * width,
                       .tokens = tokens,
                       .queries = queries,
                       .width = width,
                       .head_width = head,
                       .head_begin = 0,
                       .head_end = heads,
                       .context = context.memory.data(),
                       .context_stride = width,
                       .scratch = scratch.data()});
    return context;
  }

  // Heads of `real` columns at places of `padded` ones; the second and the third are computed.
  void Compare(size_t tokens, size_t real, size_t padded) {
    const size_t width = kHeads * padded;
    const size_t stride = 3 * width + kHeadColumns;  // rows do not follow each other directly
    const size_t context_stride = width + kHeadColumns;
    Elements qkv(table_->element, tokens * stride);
    for (size_t token = 0; token < tokens; ++token) {
      for (size_t i = 0; i < 3 * width; ++i) {
        if (i % padded < real) qkv.Set(token * stride + i, Normal() * (i < width ? 0.5 : 1.0));
      }
    }
    Elements context(table_->element, tokens * context_stride);
    for (size_t i = 0; i < tokens * context_stride; ++i) context.Set(i, kUntouched);
    const AlignedBuffer scratch(AttentionScratchBytes(tokens, padded));
    table_->attention({.qkv = qkv.memory.data(),
                       .qkv_stride = stride,
                       .tokens = tokens,
                       .width = width,
                       .head_width = padded,
                       .head_begin = 1,
                       .head_end = kHeads,
                       .context = context.memory.data(),
                       .context_stride = context_stride,
                       .scratch = scratch.data()});
    const auto at = [&](size_t token, size_t part, size_t column) {
      return qkv.values[token * stride + part * width + column];
    };
    for (size_t query = 0; query < tokens; query += 1 + tokens / 16) {
      for (size_t head = 1; head < kHeads; ++head) {
        std::vector<double> weights(tokens);
        double total = 0;
        for (size_t key = 0; key < tokens; ++key) {
          double score = 0;
          for (size_t i = head * padded; i < head * padded + real; ++i) score += at(query, 0, i) * at(key, 1, i);
          weights[key] = std::exp2(score);
          total += weights[key];
        }
        for (size_t i = head * padded; i < (head + 1) * padded; ++i) {
          double value = 0;  // zero in the padding
          for (size_t key = 0; key < tokens; ++key) value += weights[key] / total * at(key, 2, i);
          ASSERT_NEAR(context.Get(query * context_stride + i), value, is_f32() ? 2e-5 : 3e-2)
              << table_->name << " length " << tokens << " head width " << real;
        }
      }
      for (size_t i = 0; i < context_stride; ++i) {
        if (i >= padded && i < width) continue;
        ASSERT_EQ(context.Get(query * context_stride + i), AsElement(table_->element, kUntouched));
      }
    }
  }
};

TEST_P(AttentionKernels, EveryLengthMatches) {
  for (const size_t head : {size_t{32}, size_t{64}}) {
    for (size_t tokens = 1; tokens <= 70; ++tokens) Compare(tokens, head, head);
    for (const size_t tokens : {100, 127, 165, 255, 256}) Compare(tokens, head, head);
  }
}

TEST_P(AttentionKernels, EveryHeadWidthMatches) {
  for (const size_t head : {1, 16, 25, 26, 48, 80, 96, 128, 160}) {
    for (const size_t tokens : {1, 2, 7, 16, 17, 33, 70, 131}) Compare(tokens, head, RoundUp(head, kHeadColumns));
  }
}

TEST_P(AttentionKernels, TheFirstQueriesAreThoseOfAllAndNoOtherRowIsWritten) {
  constexpr size_t kTokens = 37;
  for (const size_t head : {32, 96}) {
    const size_t width = 2 * head;
    Elements qkv(table_->element, kTokens * 3 * width);
    for (size_t i = 0; i < kTokens * 3 * width; ++i) qkv.Set(i, Normal());
    const auto attend = [&](size_t queries) {
      const Elements context = Attend(qkv, kTokens, head, 2, queries);
      std::vector<double> values;
      for (size_t i = 0; i < kTokens * width; ++i) values.push_back(context.Get(i));
      return values;
    };
    const std::vector<double> all = attend(0);
    for (const size_t queries : {size_t{1}, size_t{7}, kTokens}) {
      std::vector<double> expected = all;
      std::fill(expected.begin() + static_cast<std::ptrdiff_t>(queries * width), expected.end(), 0.0);
      EXPECT_EQ(attend(queries), expected) << table_->name << " " << queries;
    }
  }
}

TEST_P(AttentionKernels, ExtremeScoresGiveAMeanStill) {
  constexpr size_t kTokens = 20;
  constexpr size_t kHidden = 32;
  Elements qkv(table_->element, kTokens * 3 * kHidden);
  for (size_t i = 0; i < kTokens * 3 * kHidden; ++i)
    qkv.Set(i, i % (3 * kHidden) < 2 * kHidden ? 200.0 * Normal() : 1.0);
  const Elements context = Attend(qkv, kTokens, kHidden);
  for (size_t i = 0; i < kTokens * kHidden; ++i) EXPECT_NEAR(context.Get(i), 1.0, Rounding());  // a mean of ones
}

TEST_P(AttentionKernels, WhatIsNotFiniteStaysSoAndInItsPlace) {
  constexpr size_t kTokens = 35;
  constexpr size_t kHidden = 32;
  constexpr size_t kQuery = 17;
  constexpr size_t kColumn = 5;
  Elements qkv(table_->element, kTokens * 3 * kHidden);
  for (size_t i = 0; i < kTokens * 3 * kHidden; ++i) qkv.Set(i, Normal());
  qkv.Set(kQuery * 3 * kHidden + 7, NAN);                 // of one query: its context
  qkv.Set(3 * 3 * kHidden + 2 * kHidden + kColumn, NAN);  // of one value: its column
  const Elements context = Attend(qkv, kTokens, kHidden);
  for (size_t token = 0; token < kTokens; ++token) {
    for (size_t i = 0; i < kHidden; ++i) {
      EXPECT_EQ(std::isnan(context.Get(token * kHidden + i)), token == kQuery || i == kColumn) << token << " " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EverySet, AttentionKernels, testing::ValuesIn(KernelTables()), KernelTableName);

}  // namespace
}  // namespace sutra::cpu
