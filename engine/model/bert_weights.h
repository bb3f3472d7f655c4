// The tensors of a BERT encoder, found by name and checked against the configuration; nothing is copied.
// Thread rule: plain data; the views live as long as `file`.
#pragma once

#include <memory>
#include <vector>

#include "engine/model/model_config.h"
#include "engine/model/safetensors.h"
#include "shm/base/status.h"

namespace sutra {

struct LinearTensors {
  const TensorView* weight = nullptr;  // [out][in]
  const TensorView* bias = nullptr;    // [out]
};

struct NormTensors {
  const TensorView* gain = nullptr;
  const TensorView* shift = nullptr;
};

struct BertLayerTensors {
  LinearTensors query, key, value, attention_out, ffn_in, ffn_out;
  NormTensors attention_norm, ffn_norm;
};

struct BertWeights {
  std::shared_ptr<const SafetensorsFile> file;
  const TensorView* words = nullptr;      // [vocabulary][hidden]
  const TensorView* positions = nullptr;  // [positions][hidden]
  const TensorView* types = nullptr;      // [types][hidden]; row 0 is used
  NormTensors embedding_norm;
  std::vector<BertLayerTensors> layers;
};

// Accepts names with and without "bert." in front, and the older "gamma"/"beta". A missing tensor, another shape or a
// type other than F32, F16, BF16 fails by name.
Result<BertWeights> FindBertWeights(std::shared_ptr<const SafetensorsFile> file, const ModelConfig& config);

std::vector<float> ToFloats(const TensorView& tensor);

}  // namespace sutra
