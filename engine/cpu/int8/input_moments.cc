// Sums relative to provisional means.
#include "engine/cpu/int8/input_moments.h"

#include <cassert>
#include <cmath>

#include "shm/base/numbers.h"

namespace sutra::cpu {

InputMoments::InputMoments(size_t depth)
    : depth_(depth),
      padded_depth_(RoundUp(depth, kPanelColumns)),
      products_(padded_depth_ * padded_depth_ * sizeof(float)) {
  for (Class& of : classes_) {
    of.sum.resize(depth);
    of.weighted.resize(depth);
  }
}

void InputMoments::SetReferences(const ChunkOfTexts& chunk, const float* rows, size_t stride) {
  std::array<std::vector<double>, kRowClasses> sums;
  std::array<double, kRowClasses> counts = {};
  for (auto& sum : sums) sum.resize(depth_);
  for (size_t text = 0; text < chunk.texts(); ++text) {
    for (size_t token = 0; token < chunk.tokens(text); ++token) {
      const size_t of = token == 0 ? 0 : 1;
      const float* const row = rows + (chunk.row(text) + token) * stride;
      for (size_t k = 0; k < depth_; ++k) sums[of][k] += static_cast<double>(row[k]);
      ++counts[of];
    }
  }
  for (size_t of = 0; of < kRowClasses; ++of) {
    classes_[of].reference.resize(depth_);
    for (size_t k = 0; k < depth_; ++k) {
      classes_[of].reference[k] = counts[of] > 0 ? static_cast<float>(sums[of][k] / counts[of]) : 0.0F;
    }
  }
}

void InputMoments::AddRow(const float* row, Class* of, double weight, float* out) {
  const auto root = static_cast<float>(std::sqrt(weight));
  for (size_t k = 0; k < depth_; ++k) {
    const float deviation = row[k] - of->reference[k];
    of->sum[k] += static_cast<double>(deviation);
    of->weighted[k] += static_cast<double>(deviation) * weight;
    out[k] = deviation * root;
  }
  for (size_t k = depth_; k < padded_depth_; ++k) out[k] = 0;
  of->rows += 1;
  of->weight += weight;
}

void InputMoments::Add(const ChunkOfTexts& chunk, const float* rows, size_t stride, float* scratch, Gram* gram) {
  if (classes_[0].reference.empty()) SetReferences(chunk, rows, stride);
  for (size_t text = 0; text < chunk.texts(); ++text) {
    const double weight = 1 / static_cast<double>(chunk.tokens(text));
    for (size_t token = 0; token < chunk.tokens(text); ++token) {
      const size_t row = chunk.row(text) + token;
      AddRow(rows + row * stride, &classes_[token == 0 ? 0 : 1], weight, scratch + row * padded_depth_);
    }
  }
  gram->Load(scratch, padded_depth_, chunk.rows(), padded_depth_, 1);
  for (size_t panel = 0; panel < gram->panels(); ++panel) gram->Add(panel, products_.As<float>(), padded_depth_);
}

LinearStatistics InputMoments::Finish() const {
  LinearStatistics out;
  out.depth = depth_;
  std::array<std::vector<double>, kRowClasses> shift;  // from the reference to the mean
  double weight = 0;
  for (size_t c = 0; c < kRowClasses; ++c) {
    const Class& of = classes_[c];
    assert(of.rows > 0);
    weight += of.weight;
    shift[c].resize(depth_);
    out.mean[c].resize(depth_);
    for (size_t k = 0; k < depth_; ++k) {
      shift[c][k] = of.sum[k] / of.rows;
      out.mean[c][k] = static_cast<float>(static_cast<double>(of.reference[k]) + shift[c][k]);
    }
  }
  // The sum of w (d' - s)(d' - s)^T is that of w d' d'^T, less m s^T and s m^T with m the sum of w d', and s s^T times
  // the sum of w.
  out.moments.resize(depth_ * depth_);
  for (size_t k = 0; k < depth_; ++k) {
    for (size_t j = k; j < depth_; ++j) {
      auto sum = static_cast<double>(products_.As<float>()[k * padded_depth_ + j]);
      for (size_t c = 0; c < kRowClasses; ++c) {
        const Class& of = classes_[c];
        sum -= of.weighted[k] * shift[c][j] + shift[c][k] * of.weighted[j] - shift[c][k] * shift[c][j] * of.weight;
      }
      out.moments[k * depth_ + j] = static_cast<float>(sum / weight);
    }
  }
  return out;
}

}  // namespace sutra::cpu
