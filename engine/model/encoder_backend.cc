#include "engine/model/encoder_backend.h"

#include <spdlog/spdlog.h>

#include <exception>
#include <mutex>
#include <utility>

#include "engine/cpu/cpu_encoder.h"
#include "engine/cpu/features.h"
#include "engine/model/model_identity.h"
#include "engine/tokenizer/wordpiece.h"

namespace sutra {
namespace {

// The packed weights in use, by file, configuration and element, so that a worker per core costs its buffers and not 20
// MiB more each.
std::shared_ptr<const cpu::PackedModel> SharedPackedModel(const LoadedModel& model, cpu::Element element) {
  static std::mutex mutex;
  static std::vector<std::weak_ptr<const cpu::PackedModel>> in_use;
  const std::lock_guard lock(mutex);
  std::erase_if(in_use, [](const auto& packed) { return packed.expired(); });
  for (const auto& weak : in_use) {
    std::shared_ptr<const cpu::PackedModel> packed = weak.lock();
    if (packed != nullptr && packed->element == element && packed->file == model.weights.file &&
        packed->config == model.config) {
      return packed;
    }
  }
  std::shared_ptr<const cpu::PackedModel> packed = cpu::PackModel(model.config, model.weights, element);
  in_use.push_back(packed);
  return packed;
}

// Workers that load the same path while another still holds it share the mapping (and with it the packed weights).
Result<std::shared_ptr<const SafetensorsFile>> OpenShared(const std::string& path) {
  static std::mutex mutex;
  static std::vector<std::weak_ptr<const SafetensorsFile>> in_use;
  const std::lock_guard lock(mutex);
  std::erase_if(in_use, [](const auto& file) { return file.expired(); });
  for (const auto& weak : in_use) {
    std::shared_ptr<const SafetensorsFile> file = weak.lock();
    if (file != nullptr && file->path() == path && file->IsStillAtPath()) return file;
  }
  Result<std::shared_ptr<const SafetensorsFile>> opened = SafetensorsFile::Open(path);
  if (opened.ok()) in_use.push_back(opened.value());
  return opened;
}

}  // namespace

Result<LoadedModel> LoadModel(const std::string& model_dir) {
  Result<ModelConfig> config = LoadModelConfig(model_dir);
  if (!config.ok()) return config.status();
  Result<std::shared_ptr<const SafetensorsFile>> file = OpenShared(config->weights_path);
  if (!file.ok()) return file.status();
  Result<BertWeights> weights = FindBertWeights(file.value(), config.value());
  if (!weights.ok()) return weights.status();
  Result<std::unique_ptr<WordPieceTokenizer>> tokenizer = WordPieceTokenizer::Load(config->transformer_dir);
  if (!tokenizer.ok()) return tokenizer.status();
  if ((*tokenizer)->vocab_size() > config->vocabulary) {
    return Status(StatusCode::kModelError,
                  "the tokenizer in " + config->transformer_dir + " has ids up to " +
                      std::to_string((*tokenizer)->vocab_size() - 1) + ", but config.json gives the model only " +
                      std::to_string(config->vocabulary) + " words; the files belong to different models");
  }
  return LoadedModel{std::move(config).value(), std::move(weights).value(), std::move(tokenizer).value()};
}

Result<std::unique_ptr<ModelBackend>> EncoderBackend::Make(LoadedModel model, std::unique_ptr<Encoder> encoder,
                                                           const std::string& precision, const std::string& device) {
  const std::string device_class = device.substr(0, device.find(':'));
  Result<std::string> identity =
      ComputeModelIdentity(model.config, model.weights.file->contents(), precision, device_class);
  if (!identity.ok()) return identity.status();
  std::unique_ptr<EncoderBackend> backend(new EncoderBackend());
  backend->info_ = {.name = model.config.name,
                    .identity = std::move(identity).value(),
                    .width = model.config.hidden,
                    .tokens_max = model.config.tokens_max,
                    .normalizes = model.config.normalizes,
                    .precision = precision,
                    .device = device};
  backend->vocabulary_ = model.config.vocabulary;
  backend->tokenizer_ = std::move(model.tokenizer);
  backend->encoder_ = std::move(encoder);

  std::vector<int32_t> ids;
  (void)backend->tokenizer_->Encode("ready", backend->info_.tokens_max, &ids);
  const std::vector<int32_t> offsets = {0, static_cast<int32_t>(ids.size())};
  std::vector<float> vector(backend->info_.width);
  float* const outputs[] = {vector.data()};
  if (Status status = backend->Embed({ids, offsets}, outputs); !status.ok()) return status;
  spdlog::info("model {}: width {}, {} tokens at most, {} on {} ({})", backend->info_.name, backend->info_.width,
               backend->info_.tokens_max, precision, device, backend->encoder_->name());
  return std::unique_ptr<ModelBackend>(std::move(backend));
}

// The requirements of Embed, checked: an id outside the table would read foreign memory.
Status EncoderBackend::Check(const TokenBatch& batch, size_t outputs) const {
  const auto wrong = [](const char* what) {
    return Status(StatusCode::kModelError, std::string("a batch was refused before the model saw it: ") + what);
  };
  if (batch.texts() != outputs || batch.offsets.empty() || batch.offsets.front() != 0 ||
      static_cast<size_t>(batch.offsets.back()) != batch.ids.size()) {
    return wrong("its offsets do not fit its ids and outputs");
  }
  for (size_t i = 0; i + 1 < batch.offsets.size(); ++i) {
    const int64_t length = int64_t{batch.offsets[i + 1]} - batch.offsets[i];
    if (length < 1 || length > info_.tokens_max) return wrong("a text has no tokens or more than the model takes");
  }
  for (const int32_t id : batch.ids) {
    if (static_cast<uint32_t>(id) >= vocabulary_) return wrong("an id is outside the vocabulary");
  }
  return Status();
}

Status EncoderBackend::Embed(const TokenBatch& batch, std::span<float* const> outputs) {
  if (batch.texts() == 0 && outputs.empty()) return Status();
  if (Status status = Check(batch, outputs.size()); !status.ok()) return status;
  try {
    return encoder_->Encode(batch, outputs);
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kOutOfMemory, "no memory for a batch of " + std::to_string(batch.ids.size()) + " tokens");
  } catch (const std::exception& error) {
    return Status(StatusCode::kModelError, "the " + std::string(encoder_->name()) + " encoder failed: " + error.what());
  }
}

Result<std::unique_ptr<ModelBackend>> MakeKernelBackend(const TorchOptions& options) {
  Result<LoadedModel> model = LoadModel(options.model_dir);
  if (!model.ok()) return model.status();
  Result<cpu::KernelChoice> choice = cpu::ChooseKernels(model->config, options.precision);
  if (!choice.ok()) return choice.status();
  if (choice->kernels == nullptr || options.device != "cpu") {
    return Status(StatusCode::kModelError, "this build has no torch, and its own kernels do not cover this CPU (" +
                                               cpu::DescribeFeatures(cpu::DetectFeatures()) +
                                               "), model, precision or device; build with -DSUTRA_WITH_TORCH=ON");
  }
  std::unique_ptr<Encoder> encoder = MakeCpuEncoder(model.value(), *choice->kernels, options.threads);
  return EncoderBackend::Make(std::move(model).value(), std::move(encoder), choice->precision, "cpu");
}

std::unique_ptr<Encoder> MakeCpuEncoder(const LoadedModel& model, const cpu::KernelTable& kernels, int threads) {
  return std::make_unique<cpu::CpuEncoder>(SharedPackedModel(model, kernels.element), kernels, threads);
}

}  // namespace sutra
