#include "bench/int8_quality.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "bench/model_shapes.h"

namespace sutra::bench {
namespace {

constexpr size_t kBatchTexts = 64;
constexpr size_t kNeighbours = 10;

using Vectors = std::vector<std::vector<float>>;

double Dot(const std::vector<float>& a, const std::vector<float>& b) {
  float sum = 0;  // of unit vectors; 1e-7 is far below what is compared
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return static_cast<double>(sum);
}

double Cosine(const std::vector<float>& a, const std::vector<float>& b) {
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const auto x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    ab += x * y, aa += x * x, bb += y * y;
  }
  return ab / std::sqrt(aa * bb);
}

// Unit vectors of all texts.
Result<Vectors> Embed(const std::vector<std::vector<int32_t>>& texts, ModelBackend& backend) {
  Vectors vectors(texts.size(), std::vector<float>(backend.info().width));
  for (size_t begin = 0; begin < texts.size(); begin += kBatchTexts) {
    std::vector<int32_t> ids, offsets = {0};
    std::vector<float*> outputs;
    for (size_t i = begin; i < std::min(begin + kBatchTexts, texts.size()); ++i) {
      ids.insert(ids.end(), texts[i].begin(), texts[i].end());
      offsets.push_back(static_cast<int32_t>(ids.size()));
      outputs.push_back(vectors[i].data());
    }
    const Status status = backend.Embed({ids, offsets}, outputs);
    if (!status.ok()) return status;
  }
  for (std::vector<float>& vector : vectors) {
    const auto norm = static_cast<float>(std::sqrt(Dot(vector, vector)));
    for (float& value : vector) value /= norm;
  }
  return vectors;
}

std::vector<size_t> Nearest(const Vectors& vectors, size_t text) {
  std::vector<std::pair<double, size_t>> by_cosine;
  by_cosine.reserve(vectors.size());
  for (size_t other = 0; other < vectors.size(); ++other) {
    if (other != text) by_cosine.emplace_back(-Dot(vectors[text], vectors[other]), other);
  }
  std::partial_sort(by_cosine.begin(), by_cosine.begin() + kNeighbours, by_cosine.end());
  std::vector<size_t> nearest;
  for (size_t i = 0; i < kNeighbours; ++i) nearest.push_back(by_cosine[i].second);
  std::sort(nearest.begin(), nearest.end());
  return nearest;
}

double Agreement(const Vectors& a, const Vectors& b) {
  size_t common = 0;
  for (size_t text = 0; text < a.size(); ++text) {
    const std::vector<size_t> of_a = Nearest(a, text), of_b = Nearest(b, text);
    std::vector<size_t> both;
    std::set_intersection(of_a.begin(), of_a.end(), of_b.begin(), of_b.end(), std::back_inserter(both));
    common += both.size();
  }
  return static_cast<double>(common) / static_cast<double>(a.size() * kNeighbours);
}

}  // namespace

Result<std::vector<QualityText>> ReadQualityTexts(const std::string& path) {
  std::ifstream in(path);
  std::vector<QualityText> texts;
  for (std::string line; std::getline(in, line);) {
    const nlohmann::json json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("family") || !json.contains("text")) {
      return Status(StatusCode::kBadOption, path + " has a line that is not {\"family\": ..., \"text\": ...}");
    }
    texts.push_back({json["family"], json["text"]});
  }
  if (texts.size() <= kNeighbours) return Status(StatusCode::kBadOption, "too few texts in " + path);
  return texts;
}

Result<Quality> CompareVectors(const std::vector<QualityText>& texts, ModelBackend& fp32, ModelBackend& int8) {
  std::vector<std::string> families, shown;
  std::vector<std::vector<int32_t>> ids;
  for (const QualityText& text : texts) {
    ids.emplace_back();
    fp32.tokenizer().Encode(text.text, fp32.info().tokens_max, &ids.back());
    families.push_back(text.family);
    shown.push_back(text.text);
  }
  std::mt19937 random(17);
  for (size_t i = 0; i < texts.size() / 13; ++i) {
    Shape shape;
    shape.AddRandom(random, static_cast<int>(3 + random() % (i % 4 == 0 ? 125 : 20)));
    ids.push_back(shape.ids);
    families.emplace_back("ids");
    shown.emplace_back("random ids");
  }
  const Result<Vectors> exact = Embed(ids, fp32);
  if (!exact.ok()) return exact.status();
  const Result<Vectors> rounded = Embed(ids, int8);
  if (!rounded.ok()) return rounded.status();
  Quality quality;
  quality.texts = ids.size();
  for (size_t i = 0; i < ids.size(); ++i) {
    const double cosine = Cosine((*exact)[i], (*rounded)[i]);
    quality.cosine_mean += cosine / static_cast<double>(ids.size());
    // A cosine that is no number must not pass.
    if (!(cosine >= quality.cosine_min))
      quality.worst_text = shown[i], quality.cosine_min = std::isnan(cosine) ? -1 : cosine;
    const auto [family, fresh] = quality.family_min.emplace(families[i], cosine);
    if (!fresh) family->second = std::min(family->second, cosine);
  }
  quality.top10 = Agreement(*exact, *rounded);
  return quality;
}

}  // namespace sutra::bench
