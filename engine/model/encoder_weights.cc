// Finds tensors by name and checks them against the shapes that a family requires.
#include "engine/model/encoder_weights.h"

namespace sutra {

const TensorView* TensorFinder::Get(const std::string& name, const std::vector<uint64_t>& shape) {
  if (!problem_.empty()) return nullptr;
  const TensorView* found = file_.Find(prefix_ + name);
  if (found == nullptr) {
    problem_ = "lack the tensor " + prefix_ + name;
  } else if (found->shape != shape) {
    problem_ = "hold " + prefix_ + name + " in another shape than config.json says";
  } else if (found->type == TensorType::kOther) {
    problem_ = "hold " + prefix_ + name + " as " + found->type_name + "; supported: F32, F16, BF16";
  } else {
    return found;
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

Status TensorFinder::status() const {
  if (problem_.empty()) return {};
  return Status(StatusCode::kModelError, "the weights " + file_.path() + " " + problem_ +
                                             "; config.json and the weights belong to different models, or the "
                                             "download is incomplete: fetch the model again");
}

std::vector<float> ToFloats(const TensorView& tensor) {
  std::vector<float> values(tensor.count);
  tensor.CopyTo(values.data());
  return values;
}

}  // namespace sutra
