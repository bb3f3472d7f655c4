// Statistics of a model's inputs against plain loops over the same inputs, for any size of the team.
#include "engine/cpu/int8/calibration.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "engine/cpu/int8/random_texts.h"
#include "engine/model/loaded_model.h"
#include "tests/kit/tiny_model.h"

namespace sutra::cpu {
namespace {

// The inputs of one product in all texts, each text run alone.
struct Inputs {
  std::vector<std::vector<double>> rows;
  std::vector<size_t> classes;
  std::vector<double> weights;
};

class Calibration : public testing::Test {
 protected:
  void Load(const TinyModel::Shape& shape, size_t texts = 40) {
    TinyModel model(shape);
    model.Save();
    auto loaded = LoadModel(model.path());
    ASSERT_TRUE(loaded.ok()) << loaded.status().message();
    texts_ = {};
    AppendRandomTexts({.count = texts, .words_min = 1, .words_max = 30, .seed = 5}, *loaded->tokenizer,
                      loaded->config.spec.vocabulary, loaded->config.spec.tokens_max, &texts_);
    packed_ = SharedPackedModel(loaded->config.spec, loaded->weights, Element::kF32);
  }

  std::vector<LayerMoments> Gather(size_t begin, size_t end, int threads) {
    WorkTeam team(threads);
    return GatherMoments(packed_, *PortableKernels(Element::kF32), texts_, begin, end, &team);
  }

  Inputs Watch(size_t layer, LinearRole role) {
    Inputs inputs;
    const FloatPass pass(packed_, *PortableKernels(Element::kF32),
                         [&](const ChunkOfTexts& chunk, const LinearInput& input) {
                           if (input.layer == layer && input.role == role) Append(chunk, input, &inputs);
                         });
    const Workspace workspace = pass.MakeWorkspace(64);
    std::vector<float> vector(packed_->spec.hidden);
    float* const outputs[] = {vector.data()};
    for (size_t i = 0; i < texts_.size(); ++i) {
      ChunkOfTexts chunk;
      chunk.offsets = std::span(texts_.offsets).subspan(i, 2);
      chunk.ids = texts_.ids.data() + texts_.offsets[i];
      chunk.outputs = outputs;
      Steps steps(workspace.scratch.data());
      pass.Run(chunk, workspace, steps);
    }
    return inputs;
  }

  static void Append(const ChunkOfTexts& chunk, const LinearInput& input, Inputs* inputs) {
    for (size_t r = 0; r < chunk.rows(); ++r) {
      const float* const row = static_cast<const float*>(input.rows) + r * input.stride;
      if (input.column_begin == 0) {
        inputs->rows.emplace_back();
        inputs->classes.push_back(r == 0 ? 0 : 1);
        inputs->weights.push_back(1 / static_cast<double>(chunk.rows()));
      }
      std::vector<double>& all = inputs->rows[inputs->rows.size() - (input.column_begin == 0 ? 1 : chunk.rows() - r)];
      for (size_t k = 0; k < input.columns; ++k) all.push_back(static_cast<double>(row[k]));
    }
  }

  TokenTexts texts_;
  std::shared_ptr<const PackedModel> packed_;
};

void ExpectPlainStatistics(const Inputs& inputs, const LinearStatistics& statistics) {
  const size_t depth = statistics.depth;
  ASSERT_EQ(inputs.rows.front().size(), depth);
  std::vector<std::vector<double>> mean(2, std::vector<double>(depth));
  double counts[2] = {};
  for (size_t r = 0; r < inputs.rows.size(); ++r) {
    for (size_t k = 0; k < depth; ++k) mean[inputs.classes[r]][k] += inputs.rows[r][k];
    counts[inputs.classes[r]] += 1;
  }
  for (size_t c = 0; c < 2; ++c) {
    for (size_t k = 0; k < depth; ++k) {
      mean[c][k] /= counts[c];
      ASSERT_NEAR(static_cast<double>(statistics.mean[c][k]), mean[c][k], 1e-5 + 1e-5 * std::abs(mean[c][k]));
    }
  }
  std::vector<double> moments(depth * depth);
  double weight = 0;
  for (size_t r = 0; r < inputs.rows.size(); ++r) {
    weight += inputs.weights[r];
    const std::vector<double>& of = mean[inputs.classes[r]];
    for (size_t k = 0; k < depth; ++k) {
      for (size_t j = k; j < depth; ++j) {
        moments[k * depth + j] += inputs.weights[r] * (inputs.rows[r][k] - of[k]) * (inputs.rows[r][j] - of[j]);
      }
    }
  }
  for (size_t k = 0; k < depth; ++k) {
    for (size_t j = k; j < depth; ++j) {
      const double size = std::sqrt(moments[k * depth + k] * moments[j * depth + j]) / weight;
      ASSERT_NEAR(static_cast<double>(statistics.moments[k * depth + j]), moments[k * depth + j] / weight,
                  1e-4 * size + 1e-9)
          << k << "," << j;
    }
  }
}

TEST_F(Calibration, GathersWhatPlainLoopsFind) {
  for (const TinyModel::Shape& shape : {TinyModel::Shape{}, TinyModel::Shape{.intermediate = 576},
                                        TinyModel::Shape{.hidden = 24, .heads = 3, .intermediate = 40}}) {
    Load(shape);
    const std::vector<LayerMoments> layers = Gather(0, 2, 1);
    ASSERT_EQ(layers.size(), 2U);
    for (size_t layer = 0; layer < 2; ++layer) {
      for (size_t role = 0; role < kLinearRoles; ++role) {
        SCOPED_TRACE(testing::Message() << shape.hidden << ", layer " << layer << ", role " << role);
        ExpectPlainStatistics(Watch(layer, static_cast<LinearRole>(role)), layers[layer][role].Finish());
      }
    }
  }
}

TEST_F(Calibration, TheSameBytesForAnyTeamAndForAnyGroupOfLayers) {
  Load({.intermediate = 256}, 300);  // some ten chunks, for members that overtake each other
  const std::vector<LayerMoments> whole = Gather(0, 2, 1);
  const std::vector<LayerMoments> shared = Gather(0, 2, 3);
  const std::vector<LayerMoments> second = Gather(1, 2, 2);
  for (size_t role = 0; role < kLinearRoles; ++role) {
    const std::vector<float> expected = whole[1][role].Finish().moments;
    EXPECT_EQ(std::memcmp(expected.data(), shared[1][role].Finish().moments.data(), expected.size() * 4), 0);
    EXPECT_EQ(std::memcmp(expected.data(), second[0][role].Finish().moments.data(), expected.size() * 4), 0);
  }
}

}  // namespace
}  // namespace sutra::cpu
