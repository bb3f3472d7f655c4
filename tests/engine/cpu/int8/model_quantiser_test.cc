// Whole models to int8: the same bytes however the work is cut, and errors instead of nonsense.
#include "engine/cpu/int8/model_quantiser.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/engine/cpu/int8/quantised_tiny_model.h"

namespace sutra::cpu {
namespace {

TEST(ModelQuantiser, TheSameBytesForAnyNumberOfThreadsAndAnySizeOfAGroup) {
  const LoadedModel model = LoadTinyModel({.layers = 3});
  const auto exact = SharedPackedModel(model.config.spec, model.weights, Element::kF32);
  const KernelTable& kernels = *PortableKernels(Element::kF32);
  const TokenTexts texts = SomeTexts(model);
  const auto bytes = [&](int threads, size_t moment_bytes_max) {
    return BytesOf(QuantiseLayers(exact, kernels, texts, threads, moment_bytes_max).value());
  };
  const std::string expected = bytes(1, kMomentBytesMax);
  EXPECT_EQ(bytes(3, kMomentBytesMax), expected);
  EXPECT_EQ(bytes(2, 1), expected) << "layer by layer";
}

TEST(ModelQuantiser, ProductsHaveTheShapesOfThePackedModel) {
  const LoadedModel model = LoadTinyModel({.hidden = 24, .heads = 3, .intermediate = 40});
  const auto exact = SharedPackedModel(model.config.spec, model.weights, Element::kF32);
  const auto layers = QuantiseLayers(exact, *PortableKernels(Element::kF32), SomeTexts(model), 1).value();
  ASSERT_EQ(layers.size(), 2U);
  const size_t columns[] = {384, 64, 64, 64};  // three heads of 8 become four of 32
  const size_t depths[] = {64, 128, 64, 64};
  for (const QuantisedLayer& layer : layers) {
    for (size_t role = 0; role < kLinearRoles; ++role) {
      EXPECT_EQ(layer[role].columns, columns[role]);
      EXPECT_EQ(layer[role].depth, depths[role]);
    }
  }
}

TEST(ModelQuantiser, AModelThatComputesInfinitiesIsRefused) {
  TinyModel tiny;
  for (auto& [name, values] : tiny.tensors()) {
    if (name.find("intermediate.dense.weight") != std::string::npos) values[3] = std::numeric_limits<float>::infinity();
  }
  tiny.Save();
  const LoadedModel model = LoadModel(tiny.path()).value();
  const auto exact = SharedPackedModel(model.config.spec, model.weights, Element::kF32);
  const auto layers = QuantiseLayers(exact, *PortableKernels(Element::kF32), SomeTexts(model), 2);
  ASSERT_FALSE(layers.ok());
  EXPECT_NE(layers.status().message().find("not finite"), std::string::npos);
}

}  // namespace
}  // namespace sutra::cpu
