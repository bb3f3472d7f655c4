// How close int8 vectors are to fp32 ones over many texts of all kinds.
// Thread rule: one thread.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/model/model_backend.h"
#include "shm/base/status.h"

namespace sutra::bench {

struct QualityText {
  std::string family;  // "paragraph", "short", ...
  std::string text;
};

struct Quality {
  size_t texts = 0;
  double cosine_min = 1;
  double cosine_mean = 0;
  double top10 = 0;  // mean share of the ten nearest neighbours among these texts that both precisions agree on
  std::string worst_text;
  std::map<std::string, double> family_min;
};

// Lines of {"family": ..., "text": ...}.
Result<std::vector<QualityText>> ReadQualityTexts(const std::string& path);

// Both backends are of the same model. Adds texts of random ids, a fourteenth of all, as the family "ids".
// REQUIRES more than ten texts.
Result<Quality> CompareVectors(const std::vector<QualityText>& texts, ModelBackend& fp32, ModelBackend& int8);

}  // namespace sutra::bench
