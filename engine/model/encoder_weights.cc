// Finds tensors by name, checks them against the shapes that a family requires, and reads them.
#include "engine/model/encoder_weights.h"

#include "shm/base/sha256.h"

namespace sutra {

Status TensorFinder::Problem(const std::string& what, const std::string& fix) const {
  return Status(StatusCode::kModelError, "the weights " + file_.path() + " " + what + "; " + fix);
}

const TensorView* TensorFinder::Get(const std::string& name, const std::vector<uint64_t>& shape) {
  constexpr char kForeign[] =
      "config.json and the weights belong to different models, or the download is incomplete: fetch the model again";
  if (!status_.ok()) return nullptr;
  const TensorView* found = file_.Find(prefix_ + name);
  if (found == nullptr) {
    status_ = Problem("lack the tensor " + prefix_ + name, kForeign);
  } else if (found->shape != shape) {
    status_ = Problem("hold " + prefix_ + name + " in another shape than config.json says", kForeign);
  } else if (found->type == TensorType::kOther) {
    status_ = Problem("hold " + prefix_ + name + " as " + found->type_name + "; supported: F32, F16, BF16",
                      "save the model again in one of these types (in transformers: "
                      "model.to(torch.float32).save_pretrained(...))");
  } else {
    Result<const TensorView*> loaded = file_.Load(found->name);
    if (loaded.ok()) return loaded.value();
    status_ = loaded.status();
  }
  return nullptr;
}

LinearTensors TensorFinder::Linear(const std::string& name, uint64_t out, uint64_t in) {
  return {Get(name + ".weight", {out, in}), Get(name + ".bias", {out})};
}

NormTensors TensorFinder::Norm(const std::string& name, uint64_t width) {
  const bool old_names = file_.Find(prefix_ + name + ".gamma") != nullptr;
  return {Get(name + (old_names ? ".gamma" : ".weight"), {width}),
          Get(name + (old_names ? ".beta" : ".bias"), {width})};
}

uint64_t TensorFinder::Rows(const std::string& name, uint64_t otherwise) const {
  const TensorView* found = file_.Find(prefix_ + name);
  return found != nullptr && found->shape.size() == 2 && found->shape[0] > 0 ? found->shape[0] : otherwise;
}

Result<std::string> Digest(const EncoderWeights& weights) {
  Sha256 hash;
  const auto add = [&hash](const TensorView* tensor) {
    std::string line = tensor->type_name;
    for (const uint64_t extent : tensor->shape) line += " " + std::to_string(extent);
    hash.Add(line + "\n");
    hash.Add(tensor->bytes());
  };
  const auto add_linear = [&add](const LinearTensors& linear) {
    add(linear.weight);
    add(linear.bias);
  };
  const auto add_norm = [&add](const NormTensors& norm) {
    add(norm.gain);
    add(norm.shift);
  };
  for (const TensorView* table : {weights.words, weights.positions, weights.segments}) add(table);
  add_norm(weights.embedding_norm);
  for (const LayerTensors& layer : weights.layers) {
    for (const LinearTensors* linear :
         {&layer.query, &layer.key, &layer.value, &layer.attention_out, &layer.ffn_in, &layer.ffn_out}) {
      add_linear(*linear);
    }
    add_norm(layer.attention_norm);
    add_norm(layer.ffn_norm);
  }
  return hash.FinishHex();
}

std::vector<float> ToFloats(const TensorView& tensor) {
  std::vector<float> values(tensor.count);
  tensor.CopyTo(values.data());
  return values;
}

}  // namespace sutra
