#include "engine/model/bert_weights.h"

namespace sutra {
namespace {

// Looks tensors up and remembers the first thing that is wrong, so that the code that names them reads as a list.
class Finder {
 public:
  Finder(const SafetensorsFile& file) : file_(file) {
    prefix_ = file.Find("embeddings.word_embeddings.weight") == nullptr ? "bert." : "";
  }

  const TensorView* Get(const std::string& name, std::vector<uint64_t> shape) {
    return Check(prefix_ + name, file_.Find(prefix_ + name), shape);
  }

  LinearTensors Linear(const std::string& name, uint64_t out, uint64_t in) {
    return {Get(name + ".weight", {out, in}), Get(name + ".bias", {out})};
  }

  NormTensors Norm(const std::string& name, uint64_t width) {
    const bool old_names = file_.Find(prefix_ + name + ".gamma") != nullptr;
    return {Get(name + (old_names ? ".gamma" : ".weight"), {width}),
            Get(name + (old_names ? ".beta" : ".bias"), {width})};
  }

  const std::string& problem() const { return problem_; }

 private:
  const TensorView* Check(const std::string& name, const TensorView* found, const std::vector<uint64_t>& shape) {
    if (!problem_.empty()) return nullptr;
    if (found == nullptr) {
      problem_ = "lack the tensor " + name;
    } else if (found->shape != shape) {
      problem_ = "hold " + name + " in another shape than config.json says";
    } else if (found->type == TensorType::kOther) {
      problem_ = "hold " + name + " as " + found->type_name + "; supported: F32, F16, BF16";
    } else {
      return found;
    }
    return nullptr;
  }

  const SafetensorsFile& file_;
  std::string prefix_;
  std::string problem_;
};

}  // namespace

Result<BertWeights> FindBertWeights(std::shared_ptr<const SafetensorsFile> file, const ModelConfig& config) {
  BertWeights weights;
  weights.file = std::move(file);
  Finder find(*weights.file);
  const uint64_t hidden = config.hidden;
  const uint64_t inner = config.intermediate;
  weights.words = find.Get("embeddings.word_embeddings.weight", {config.vocabulary, hidden});
  weights.positions = find.Get("embeddings.position_embeddings.weight", {config.positions, hidden});
  const std::string types = "embeddings.token_type_embeddings.weight";
  const TensorView* any_types = weights.file->Find(types);
  if (any_types == nullptr) any_types = weights.file->Find("bert." + types);
  const uint64_t type_rows =
      any_types != nullptr && any_types->shape.size() == 2 && any_types->shape[0] > 0 ? any_types->shape[0] : 2;
  weights.types = find.Get(types, {type_rows, hidden});
  weights.embedding_norm = find.Norm("embeddings.LayerNorm", hidden);
  for (uint32_t i = 0; i < config.layers; ++i) {
    const std::string layer = "encoder.layer." + std::to_string(i) + ".";
    BertLayerTensors tensors;
    tensors.query = find.Linear(layer + "attention.self.query", hidden, hidden);
    tensors.key = find.Linear(layer + "attention.self.key", hidden, hidden);
    tensors.value = find.Linear(layer + "attention.self.value", hidden, hidden);
    tensors.attention_out = find.Linear(layer + "attention.output.dense", hidden, hidden);
    tensors.attention_norm = find.Norm(layer + "attention.output.LayerNorm", hidden);
    tensors.ffn_in = find.Linear(layer + "intermediate.dense", inner, hidden);
    tensors.ffn_out = find.Linear(layer + "output.dense", hidden, inner);
    tensors.ffn_norm = find.Norm(layer + "output.LayerNorm", hidden);
    weights.layers.push_back(tensors);
  }
  if (!find.problem().empty()) {
    return Status(StatusCode::kModelError, "the weights " + weights.file->path() + " " + find.problem() +
                                               "; config.json and the weights belong to different models, or the "
                                               "download is incomplete: fetch the model again");
  }
  return weights;
}

std::vector<float> ToFloats(const TensorView& tensor) {
  std::vector<float> values(tensor.count);
  tensor.CopyTo(values.data());
  return values;
}

}  // namespace sutra
