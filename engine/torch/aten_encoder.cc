// libsutra_torch.so: the encoder as ATen operators, the same code for CPU and CUDA tensors. The only file that sees
// torch; plugin.h is what the engine sees of it.
//
// Thread rule: one worker thread at a time. Invariants:
// - No padding: texts are ordered by length, each group of equal lengths is one attention call, all other operators see
//   packed rows.
// - Products are computed in `type`, the residual stream and the norms in fp32.
// - No exception leaves this file.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <c10/core/InferenceMode.h>
#include <dlfcn.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "engine/torch/plugin.h"

namespace sutra {
namespace {

constexpr size_t kChunkTokens = 4096;  // tokens through all layers at once: bounds the memory of a batch

struct AtenLinear {
  at::Tensor weight;
  at::Tensor bias;
};

struct AtenNorm {
  at::Tensor gain;
  at::Tensor shift;
};

struct AtenLayer {
  AtenLinear qkv, attention_out, ffn_in, ffn_out;
  AtenNorm attention_norm, ffn_norm;
};

// A run of texts of one length, neighbours in the packed rows.
struct LengthGroup {
  int64_t row = 0;
  int64_t texts = 0;
  int64_t length = 0;
};

class AtenEncoder final : public Encoder {
 public:
  AtenEncoder(const EncoderSpec& spec, const EncoderWeights& weights, at::Device device, at::ScalarType type)
      : spec_(spec), device_(device), type_(type) {
    const c10::InferenceMode inference;
    words_ = Load(*weights.words, at::kFloat);
    positions_ = at::add(Load(*weights.positions, at::kFloat), Load(*weights.segments, at::kFloat)[0]);
    embedding_norm_ = Load(weights.embedding_norm);
    for (const LayerTensors& layer : weights.layers) {
      AtenLayer loaded;
      loaded.qkv.weight =
          at::cat({Load(*layer.query.weight, type_), Load(*layer.key.weight, type_), Load(*layer.value.weight, type_)});
      loaded.qkv.bias =
          at::cat({Load(*layer.query.bias, type_), Load(*layer.key.bias, type_), Load(*layer.value.bias, type_)});
      loaded.attention_out = Load(layer.attention_out);
      loaded.attention_norm = Load(layer.attention_norm);
      loaded.ffn_in = Load(layer.ffn_in);
      loaded.ffn_out = Load(layer.ffn_out);
      loaded.ffn_norm = Load(layer.ffn_norm);
      layers_.push_back(std::move(loaded));
    }
  }

  const char* name() const override { return "aten"; }

  Status Encode(const TokenBatch& batch, std::span<float* const> outputs) override {
    const c10::InferenceMode inference;
    order_.resize(batch.texts());
    std::iota(order_.begin(), order_.end(), 0U);
    const auto length = [&](uint32_t text) { return batch.offsets[text + 1] - batch.offsets[text]; };
    std::stable_sort(order_.begin(), order_.end(), [&](uint32_t a, uint32_t b) { return length(a) < length(b); });
    for (size_t begin = 0; begin < order_.size();) {
      size_t end = begin;
      size_t tokens = 0;
      do {
        tokens += static_cast<size_t>(length(order_[end++]));
      } while (end < order_.size() && tokens + static_cast<size_t>(length(order_[end])) <= kChunkTokens);
      if (Status status = EncodeTexts(batch, std::span(order_).subspan(begin, end - begin), outputs); !status.ok()) {
        return status;
      }
      begin = end;
    }
    return Status();
  }

 private:
  // The tensor's own memory where it can be used in place, else a converted copy.
  at::Tensor Load(const TensorView& view, at::ScalarType type) const {
    const std::vector<int64_t> shape(view.shape.begin(), view.shape.end());
    if (const float* floats = view.Floats(); floats != nullptr) {
      const auto keep_alive = [memory = view.memory](void*) {};
      return at::from_blob(const_cast<float*>(floats), shape, keep_alive, at::kFloat)
          .to(at::TensorOptions(device_).dtype(type));
    }
    at::Tensor copy = at::empty(shape, at::kFloat);
    view.CopyTo(copy.mutable_data_ptr<float>());
    return copy.to(at::TensorOptions(device_).dtype(type));
  }
  AtenLinear Load(const LinearTensors& linear) const {
    return {Load(*linear.weight, type_), Load(*linear.bias, type_)};
  }
  AtenNorm Load(const NormTensors& norm) const { return {Load(*norm.gain, at::kFloat), Load(*norm.shift, at::kFloat)}; }

  at::Tensor Norm(const at::Tensor& x, const AtenNorm& norm) const {
    return at::layer_norm(x, {spec_.hidden}, norm.gain, norm.shift, static_cast<double>(spec_.norm_epsilon));
  }

  at::Tensor Embed(const std::vector<int64_t>& ids, const std::vector<int64_t>& positions) const {
    const auto upload = [this](const std::vector<int64_t>& numbers) {
      return at::from_blob(const_cast<int64_t*>(numbers.data()), {static_cast<int64_t>(numbers.size())}, at::kLong)
          .to(device_);
    };
    return Norm(at::add(words_.index_select(0, upload(ids)), positions_.index_select(0, upload(positions))),
                embedding_norm_);
  }

  at::Tensor Attend(const at::Tensor& qkv) const {
    const int64_t heads = spec_.heads;
    const int64_t width = int64_t{spec_.hidden} / heads;
    at::Tensor context = at::empty({qkv.size(0), spec_.hidden}, qkv.options());
    for (const LengthGroup& group : groups_) {
      const int64_t rows = group.texts * group.length;
      const at::Tensor parts =
          qkv.narrow(0, group.row, rows).view({group.texts, group.length, 3, heads, width}).permute({2, 0, 3, 1, 4});
      const at::Tensor attended = at::scaled_dot_product_attention(parts[0], parts[1], parts[2]);
      context.narrow(0, group.row, rows).copy_(attended.transpose(1, 2).reshape({rows, spec_.hidden}));
    }
    return context;
  }

  at::Tensor Forward(at::Tensor x) const {
    const char* approximate = spec_.activation == Activation::kGeluTanh ? "tanh" : "none";
    const auto linear = [](const at::Tensor& in, const AtenLinear& layer) {
      return at::linear(in, layer.weight, layer.bias);
    };
    for (const AtenLayer& layer : layers_) {
      const at::Tensor context = Attend(linear(x.to(type_), layer.qkv));
      x = Norm(at::add(x, linear(context, layer.attention_out)), layer.attention_norm);
      const at::Tensor inner = at::gelu(linear(x.to(type_), layer.ffn_in), approximate);
      x = Norm(at::add(x, linear(inner, layer.ffn_out)), layer.ffn_norm);
    }
    return x;
  }

  Status EncodeTexts(const TokenBatch& batch, std::span<const uint32_t> texts, std::span<float* const> outputs) {
    std::vector<int64_t> ids;
    std::vector<int64_t> positions;
    groups_.clear();
    for (const uint32_t text : texts) {
      const int64_t length = batch.offsets[text + 1] - batch.offsets[text];
      if (groups_.empty() || groups_.back().length != length) {
        groups_.push_back({static_cast<int64_t>(ids.size()), 0, length});
      }
      ++groups_.back().texts;
      for (int64_t i = 0; i < length; ++i) {
        ids.push_back(batch.ids[static_cast<size_t>(batch.offsets[text] + i)]);
        positions.push_back(i);
      }
    }
    const at::Tensor x = Forward(Embed(ids, positions));
    std::vector<at::Tensor> pooled;
    for (const LengthGroup& group : groups_) {
      const at::Tensor rows =
          x.narrow(0, group.row, group.texts * group.length).view({group.texts, group.length, spec_.hidden});
      pooled.push_back(spec_.pooling == Pooling::kMean ? rows.mean(1) : rows.select(1, 0));
    }
    const at::Tensor vectors = at::cat(pooled).to(at::kCPU).contiguous();
    const float* values = vectors.const_data_ptr<float>();
    for (size_t i = 0; i < texts.size(); ++i) {
      std::copy_n(values + i * spec_.hidden, spec_.hidden, outputs[texts[i]]);
    }
    return Status();
  }

  EncoderSpec spec_;
  at::Device device_;
  at::ScalarType type_;
  at::Tensor words_;
  at::Tensor positions_;
  AtenNorm embedding_norm_;
  std::vector<AtenLayer> layers_;
  std::vector<uint32_t> order_;
  std::vector<LengthGroup> groups_;
};

// The CUDA half of torch is not linked; it must be loaded before anything asks torch whether CUDA is available,
// because torch remembers the answer.
Status LoadCuda() {
  if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    return Status(StatusCode::kModelError, std::string("--device cuda: libtorch_cuda cannot be loaded (") + dlerror() +
                                               "); install torch's CUDA libraries, or use --device cpu");
  }
  if (!at::globalContext().hasCUDA()) {
    return Status(StatusCode::kModelError,
                  "--device cuda: torch finds no usable GPU; check the driver (nvidia-smi), or "
                  "use --device cpu");
  }
  return Status();
}

Result<std::unique_ptr<Encoder>> MakeEncoder(const EncoderSpec& spec, const EncoderWeights& weights,
                                             const TorchPlugin::Options& options) {
  try {
    const at::ScalarType type = options.precision == Precision::kBf16 ? at::kBFloat16 : at::kFloat;
    if (options.device == Device::kCuda) {
      if (Status status = LoadCuda(); !status.ok()) return status;
      return std::unique_ptr<Encoder>(std::make_unique<AtenEncoder>(spec, weights, at::Device(at::kCUDA, 0), type));
    }
    at::set_num_threads(options.threads);
    return std::unique_ptr<Encoder>(std::make_unique<AtenEncoder>(spec, weights, at::Device(at::kCPU), type));
  } catch (const std::exception& error) {
    return Status(StatusCode::kModelError, std::string("libtorch could not load the model: ") + error.what());
  }
}

constexpr TorchPlugin kPlugin = {
    .interface_version = kTorchPluginInterface, .build = kTorchPluginBuild, .make_encoder = MakeEncoder};

}  // namespace
}  // namespace sutra

extern "C" __attribute__((visibility("default"))) const sutra::TorchPlugin* sutra_torch_plugin() {
  return &sutra::kPlugin;
}
