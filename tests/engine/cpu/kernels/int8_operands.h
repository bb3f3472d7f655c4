// Operands of the int8 kernels with memory of their own, and what they mean in double arithmetic.
#pragma once

#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "engine/cpu/aligned_buffer.h"
#include "engine/cpu/kernels/int8_kernels.h"

namespace sutra::cpu {

// Quantised rows with memory of their own. Spare rows hold what a row never may: a set must not use them.
struct OwnRows {
  OwnRows(size_t rows, size_t depth, size_t block)
      : values((rows + kRowPadding) * depth),
        remainders((rows + kRowPadding) * depth),
        scale((rows * (depth / block) + 1) * sizeof(float)) {
    std::memset(values.data(), 0xee, (rows + kRowPadding) * depth);
    std::memset(remainders.data(), 0xdd, (rows + kRowPadding) * depth);
    view.values = values.As<uint8_t>();
    view.remainders = remainders.As<uint8_t>();
    view.stride = depth;
    view.scale = scale.As<float>();
    view.blocks = depth / block;
  }
  AlignedBuffer values;
  AlignedBuffer remainders;
  AlignedBuffer scale;
  QuantisedRows view;
};

// Of a product's inputs.
struct Shape {
  size_t depth;
  size_t block;
};
// How a row is quantised, with memory of its own.
struct Vectors {
  Vectors(size_t depth, const std::function<float()>& next) : inverse_smooth(depth) {
    for (float& value : inverse_smooth) value = 0.1F + std::abs(next());
    for (auto& of_class : shift) {
      of_class.resize(depth);
      for (float& value : of_class) value = next();
    }
  }
  Quantisation how(size_t block) const {
    return {inverse_smooth.size(), block, inverse_smooth.data(), {shift[0].data(), shift[1].data()}};
  }
  std::vector<float> inverse_smooth;
  std::vector<float> shift[kRowClasses];
};

// The inputs of a row, mixed in double by the words of MixBlockWidth's comment.
inline std::vector<double> Mixed(const Quantisation& how, uint8_t row_class, const std::vector<float>& x) {
  std::vector<double> t(how.depth);
  for (size_t i = 0; i < how.depth; ++i) {
    t[i] = static_cast<double>(x[i]) * static_cast<double>(how.inverse_smooth[i]) +
           static_cast<double>(how.shift[row_class][i]);
  }
  for (size_t begin = 0; begin < how.depth; begin += how.block) {
    const size_t n = how.block / kMixLanes;
    for (size_t lane = 0; lane < kMixLanes; ++lane) {
      const auto v = [&](size_t i) -> double& { return t[begin + i * kMixLanes + lane]; };
      if (n == 24) {
        for (size_t i = 0; i < 8; ++i) {
          const double sum = v(i) + v(i + 8) + v(i + 16);
          for (size_t third = 0; third < 3; ++third) v(i + 8 * third) -= 2.0 / 3 * sum;
        }
      }
      for (size_t h = 1; h < (n == 24 ? 8 : n); h *= 2) {
        for (size_t i = 0; i < n; ++i) {
          if ((i & h) != 0) continue;
          const double first = v(i);
          const double second = v(i + h);
          v(i) = first + second;
          v(i + h) = first - second;
        }
      }
    }
  }
  return t;
}

// A product with random operands of one shape, for any number of rows.
struct Product {
  Product(std::mt19937& random, size_t rows_max, const Shape& shape, size_t columns)
      : rows(rows_max, shape.depth, shape.block),
        b((columns + kPanelColumns) * shape.depth),
        classes(rows_max),
        scale(columns),
        offsets(columns * (shape.depth / shape.block)),
        bias{std::vector<float>(columns), std::vector<float>(columns)} {
    std::normal_distribution<float> normal;
    for (size_t i = 0; i < rows_max * shape.depth; ++i) {
      rows.view.values[i] = static_cast<uint8_t>(random());
      rows.view.remainders[i] = static_cast<uint8_t>(random());
    }
    for (size_t i = 0; i < rows_max * rows.view.blocks; ++i) {
      rows.view.scale[i] = 0.001F + std::abs(normal(random)) / 255;
    }
    for (uint8_t& row_class : classes) row_class = random() % kRowClasses;
    for (size_t i = 0; i < columns * shape.depth; ++i) {
      b.As<int8_t>()[i] = static_cast<int8_t>(static_cast<int>(random() % 255) - 127);
    }
    for (float& value : scale) value = std::abs(normal(random)) / 127;
    for (int32_t& value : offsets) value = static_cast<int32_t>(random() % 100'000) - 50'000;
    for (auto& of_class : bias) {
      for (float& value : of_class) value = normal(random);
    }
    call.a = rows.view;
    call.classes = classes.data();
    call.b = b.As<int8_t>();
    call.b_panel_stride = shape.depth * kPanelColumns;
    call.depth = shape.depth;
    call.block = shape.block;
    call.columns = columns;
    call.panel_end = columns / kPanelColumns;
    call.scale = scale.data();
    call.offsets = offsets.data();
    call.offsets_stride = columns;
    call.bias[0] = bias[0].data();
    call.bias[1] = bias[1].data();
  }

  // [two terms][row][column of the panel]
  std::vector<double> ExactOfPanel(size_t panel) const {
    std::vector<double> all;
    for (const bool two_terms : {false, true}) {
      for (size_t row = 0; row < classes.size(); ++row) {
        for (size_t n = 0; n < kPanelColumns; ++n) all.push_back(Exact(row, panel * kPanelColumns + n, two_terms));
      }
    }
    return all;
  }

  double Exact(size_t row, size_t column, bool two_terms) const {
    double y = call.bias[0] == nullptr ? 0.0 : static_cast<double>(call.bias[classes[row]][column]);
    const int8_t* panel = call.b + column / kPanelColumns * call.b_panel_stride;
    for (size_t index = 0; index * call.block < call.depth; ++index) {
      int64_t products = call.offsets[index * call.offsets_stride + column];
      int64_t fine = products;
      for (size_t k = index * call.block; k < (index + 1) * call.block; ++k) {
        const int64_t weight = panel[(k / 4 * kPanelColumns + column % kPanelColumns) * 4 + k % 4];
        products += call.a.values[row * call.a.stride + k] * weight;
        fine += call.a.remainders[row * call.a.stride + k] * weight;
      }
      const auto a = static_cast<double>(call.a.scale[row * call.a.blocks + index]);
      auto sum = static_cast<double>(products);
      if (two_terms) sum += static_cast<double>(fine) / 255;
      y += sum * a * static_cast<double>(call.scale[column]);
    }
    return y;
  }

  OwnRows rows;
  AlignedBuffer b;
  std::vector<uint8_t> classes;
  std::vector<float> scale;
  std::vector<int32_t> offsets;
  std::vector<float> bias[kRowClasses];
  Int8GemmCall call;
};

}  // namespace sutra::cpu
