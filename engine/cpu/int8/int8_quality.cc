// Cosines, in double.
#include "engine/cpu/int8/int8_quality.h"

#include <algorithm>
#include <cmath>
#include <span>

namespace sutra::cpu {
namespace {

double Cosine(std::span<const float> a, std::span<const float> b) {
  double product = 0, a_squared = 0, b_squared = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const auto x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    product += x * y;
    a_squared += x * x;
    b_squared += y * y;
  }
  const double cosine = product / std::sqrt(a_squared * b_squared);
  return std::isfinite(cosine) ? cosine : -1;
}

Result<std::vector<float>> Vectors(Encoder& encoder, size_t width, const TokenTexts& texts) {
  std::vector<float> vectors(texts.size() * width);
  std::vector<float*> outputs;
  for (size_t i = 0; i < texts.size(); ++i) outputs.push_back(vectors.data() + i * width);
  if (Status status = encoder.Encode(texts.batch(), outputs); !status.ok()) return status;
  return vectors;
}

}  // namespace

Result<Int8Quality> CompareEncoders(Encoder& exact, Encoder& quantised, size_t width, const QualityTexts& texts) {
  const Result<std::vector<float>> expected = Vectors(exact, width, texts.tokens);
  if (!expected.ok()) return expected.status();
  const Result<std::vector<float>> actual = Vectors(quantised, width, texts.tokens);
  if (!actual.ok()) return actual.status();
  Int8Quality quality;
  quality.cosine_min = 2;
  double sum = 0;
  for (size_t i = 0; i < texts.tokens.size(); ++i) {
    const double cosine = Cosine(std::span(expected.value()).subspan(i * width, width),
                                 std::span(actual.value()).subspan(i * width, width));
    sum += cosine;
    ++quality.texts;
    if (cosine >= quality.cosine_min) continue;
    quality.cosine_min = cosine;
    quality.text = texts.names[i];
  }
  quality.cosine_mean = sum / std::max(1.0, static_cast<double>(quality.texts));
  return quality;
}

}  // namespace sutra::cpu
