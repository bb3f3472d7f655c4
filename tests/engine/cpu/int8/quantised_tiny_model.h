// A small model, its fp32 weights packed, and what int8 tests need of it.
#pragma once

#include <memory>
#include <string>

#include "engine/cpu/int8/model_quantiser.h"
#include "engine/cpu/int8/random_texts.h"
#include "engine/model/loaded_model.h"
#include "tests/kit/tiny_model.h"

namespace sutra::cpu {

inline LoadedModel LoadTinyModel(const TinyModel::Shape& shape = {}) {
  TinyModel model(shape);
  model.Save();
  return LoadModel(model.path()).value();
}

inline TokenTexts SomeTexts(const LoadedModel& model, size_t count = 60) {
  TokenTexts texts;
  AppendRandomTexts({.count = count, .words_min = 1, .words_max = 20, .seed = 3}, *model.tokenizer,
                    model.config.spec.vocabulary, model.config.spec.tokens_max, &texts);
  return texts;
}

inline std::shared_ptr<QuantisedModel> QuantiseTinyModel(const LoadedModel& model) {
  const KernelTable& kernels = *PortableKernels(Element::kF32);
  auto out = std::make_shared<QuantisedModel>();
  out->rest = SharedPackedModel(model.config.spec, model.weights, kernels.element, PackedParts::kAllButProducts);
  out->layers =
      QuantiseLayers(SharedPackedModel(model.config.spec, model.weights, Element::kF32), kernels, SomeTexts(model), 1)
          .value();
  return out;
}

// All arrays of a product, one after the other.
inline std::string BytesOf(const QuantisedLinear& linear) {
  const size_t width = linear.panels() * kPanelColumns;
  std::string bytes;
  const auto add = [&bytes](const AlignedBuffer& buffer, size_t count) { bytes.append(buffer.As<char>(), count); };
  add(linear.weights, linear.depth * width);
  add(linear.scale, width * sizeof(float));
  add(linear.offsets, linear.depth / linear.block * width * sizeof(int32_t));
  for (const AlignedBuffer& bias : linear.bias) add(bias, width * sizeof(float));
  add(linear.inverse_smooth, linear.depth * sizeof(float));
  for (const AlignedBuffer& shift : linear.shift) add(shift, linear.depth * sizeof(float));
  return bytes;
}

inline std::string BytesOf(const std::vector<QuantisedLayer>& layers) {
  std::string bytes;
  for (const QuantisedLayer& layer : layers) {
    for (const QuantisedLinear& linear : layer) bytes += BytesOf(linear);
  }
  return bytes;
}

}  // namespace sutra::cpu
