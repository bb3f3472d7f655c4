// The fake model's vectors, computed again from the text, and texts made from a seed.
#include "tests/kit/fake_model_answers.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iterator>

#include "engine/model/fake_backend.h"

namespace sutra::test {

std::vector<float> ExpectedVector(std::string_view text, bool raw, uint32_t width, std::string_view name) {
  std::vector<float> vector = FakeVector(text, name, width);
  if (raw) return vector;
  double sum = 0;
  for (const float value : vector) sum += static_cast<double>(value) * static_cast<double>(value);
  const double norm = std::sqrt(sum);
  for (float& value : vector) value = static_cast<float>(static_cast<double>(value) / norm);
  return vector;
}

bool SameVector(const std::vector<float>& left, const std::vector<float>& right) {
  if (left.size() != right.size() || left.empty()) return false;
  for (size_t i = 0; i < left.size(); ++i) {
    const float size = std::max(std::fabs(left[i]), std::fabs(right[i]));
    if (!(std::fabs(left[i] - right[i]) <= 1e-6F + 1e-6F * size)) return false;
  }
  return true;
}

std::string WhatIsWrong(const Reply& reply, std::string_view text) {
  if (reply.status != SUTRA_OK) return std::string("status ") + sutra_status_text(reply.status);
  if (reply.source == SUTRA_SOURCE_NONE) return "an answer without a source";
  if (!SameVector(reply.vector, ExpectedVector(text, false, static_cast<uint32_t>(reply.vector.size())))) {
    return "the vector of another text, or of none, from source " + std::to_string(reply.source);
  }
  return {};
}

std::string RandomText(std::mt19937_64& random, size_t bytes_max) {
  static const char* const kPieces[] = {"revenue ",         "Quartal ", "\xC3\xA4\xC3\xB6 ", "\xE6\xBC\xA2\xE5\xAD\x97",
                                        "\xF0\x9F\x93\x88", "3.14 ",    "margin, ",          "\n",
                                        "e\xCC\x81",        "AAPL "};
  const size_t wanted = 1 + random() % bytes_max;
  std::string text = std::to_string(random() % 1'000'000'000);
  if (random() % 16 == 0) text += std::string(1, '\0');
  while (text.size() < wanted) text += kPieces[random() % std::size(kPieces)];
  return text;
}

std::vector<std::string> NumberedTexts(const std::string& prefix, size_t count) {
  std::vector<std::string> texts;
  for (size_t i = 0; i < count; ++i) texts.push_back(prefix + " " + std::to_string(i));
  return texts;
}

std::string ChaosText(const std::string& prefix, uint64_t id) {
  return prefix + " " + std::to_string(id) + std::string(id * 37 % 900, 'x');
}

}  // namespace sutra::test
