// The checks around an encoder: identity and a first vector at load, ids and lengths before it, finite numbers after
// it.
#include "engine/model/encoder_backend.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <sstream>
#include <utility>

#include "engine/model/model_identity.h"
#include "shm/base/printable.h"
#include "shm/base/time.h"

namespace sutra {

Result<std::unique_ptr<EncoderBackend>> EncoderBackend::Make(LoadedModel model, std::unique_ptr<Encoder> encoder,
                                                             const std::string& precision, const std::string& device,
                                                             MakeFallback fallback) {
  const std::string device_class = device.substr(0, device.find(':'));
  Result<std::string> identity = ComputeModelIdentity(model, precision, device_class);
  if (!identity.ok()) return identity.status();
  std::unique_ptr<EncoderBackend> backend(new EncoderBackend());
  backend->info_ = {.name = model.config.name,
                    .identity = std::move(identity).value(),
                    .width = model.config.width,
                    .tokens_max = model.config.spec.tokens_max,
                    // A unit vector that was cut is not one any more; sentence-transformers does not normalise again.
                    .normalizes = model.config.normalizes && model.config.width == model.config.spec.hidden,
                    .precision = precision,
                    .device = device};
  backend->vocabulary_ = model.config.spec.vocabulary;
  backend->hidden_ = model.config.spec.hidden;
  backend->cut_unit_vector_ = model.config.normalizes;
  backend->tokenizer_ = std::move(model.tokenizer);
  backend->encoder_ = std::move(encoder);

  std::vector<int32_t> ids;
  (void)backend->tokenizer_->Encode("ready", backend->info_.tokens_max, &ids);
  const std::vector<int32_t> offsets = {0, static_cast<int32_t>(ids.size())};
  std::vector<float> vector(backend->info_.width);
  float* const outputs[] = {vector.data()};
  if (Status status = backend->Embed({ids, offsets}, outputs); !status.ok()) return status;
  backend->make_fallback_ = std::move(fallback);  // not before: weights that fail at load fail in every precision
  std::istringstream lines(CanonicalIdentity(model, precision, device_class));
  for (std::string line; std::getline(lines, line);) {
    spdlog::debug("model {}: identity: {}", backend->info_.name, Printable(line, HighBytes::kReplace));
  }
  if (!model.config.prompt.empty()) {
    spdlog::info("model {}: its default prompt of {} bytes goes before every text", backend->info_.name,
                 model.config.prompt.size());
  }
  if (backend->info_.width < backend->hidden_) {
    spdlog::info("model {}: vectors are cut from {} to {} numbers, as its truncate_dim says", backend->info_.name,
                 backend->hidden_, backend->info_.width);
  }
  spdlog::info("model {}: width {}, {} tokens at most, {} on {} ({})", backend->info_.name, backend->info_.width,
               backend->info_.tokens_max, precision, device, backend->encoder_->name());
  return backend;
}

std::unique_ptr<ModelBackend> EncoderBackend::ForAnotherWorker(std::unique_ptr<Encoder> encoder,
                                                               MakeFallback fallback) const {
  std::unique_ptr<EncoderBackend> other(new EncoderBackend());
  other->info_ = info_;
  other->vocabulary_ = vocabulary_;
  other->hidden_ = hidden_;
  other->cut_unit_vector_ = cut_unit_vector_;
  other->tokenizer_ = tokenizer_;
  other->encoder_ = std::move(encoder);
  other->make_fallback_ = std::move(fallback);
  return other;
}

// Checks the requirements of Embed: an id outside the table would read foreign memory.
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
    if (length < 1 || length > info_.tokens_max) return wrong("a text has no tokens or more than the model allows");
  }
  for (const int32_t id : batch.ids) {
    if (static_cast<uint32_t>(id) >= vocabulary_) return wrong("an id is outside the vocabulary");
  }
  return Status();
}

Status EncoderBackend::EncodeAndCut(Encoder& encoder, const TokenBatch& batch, std::span<float* const> outputs) {
  whole_.resize(outputs.size() * hidden_);
  whole_outputs_.clear();
  for (size_t i = 0; i < outputs.size(); ++i) whole_outputs_.push_back(whole_.data() + i * hidden_);
  if (Status status = encoder.Encode(batch, whole_outputs_); !status.ok()) return status;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const float* vector = whole_outputs_[i];
    double length = 1;
    if (cut_unit_vector_) {
      double sum = 0;
      for (uint32_t n = 0; n < hidden_; ++n) sum += static_cast<double>(vector[n]) * static_cast<double>(vector[n]);
      length = std::max(std::sqrt(sum), 1e-12);  // as torch's normalize: a zero vector stays one
    }
    for (uint32_t n = 0; n < info_.width; ++n) {
      outputs[i][n] = static_cast<float>(static_cast<double>(vector[n]) / length);
    }
  }
  return Status();
}

Status EncoderBackend::EmbedWith(Encoder& encoder, const TokenBatch& batch, std::span<float* const> outputs) {
  try {
    const bool cut = info_.width < hidden_;
    if (Status status = cut ? EncodeAndCut(encoder, batch, outputs) : encoder.Encode(batch, outputs); !status.ok()) {
      return status;
    }
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kOutOfMemory, "no memory for a batch of " + std::to_string(batch.ids.size()) + " tokens");
  } catch (const std::exception& error) {
    return Status(StatusCode::kModelError, "the " + std::string(encoder.name()) + " encoder failed: " + error.what());
  }
  for (const float* output : outputs) {
    if (!std::all_of(output, output + info_.width, [](float value) { return std::isfinite(value); })) {
      return Status(StatusCode::kModelError,
                    "the model " + info_.name + " computed a value that is not finite; its weights may be damaged");
    }
  }
  return Status();
}

Status EncoderBackend::Retry(const TokenBatch& batch, std::span<float* const> outputs, Status failed) {
  const uint64_t now_ns = MonotonicNs();
  if (fallback_ == nullptr) {
    if (now_ns < fallback_until_ns_) return failed;  // it could not be made a moment ago
    fallback_until_ns_ = now_ns + kFallbackIdleNs;
    Result<std::unique_ptr<Encoder>> made = make_fallback_();
    if (!made.ok()) {
      spdlog::error("model {}: a batch failed ({}), and it cannot be computed again: {}", info_.name, failed.message(),
                    made.status().message());
      return failed;
    }
    fallback_ = std::move(made).value();
    spdlog::warn("model {}: a batch failed in the {} kernels ({}); batches that fail are computed again by the {} ones",
                 info_.name, encoder_->name(), failed.message(), fallback_->name());
  }
  ++retries_;
  Status status = EmbedWith(*fallback_, batch, outputs);
  fallback_until_ns_ = MonotonicNs() + kFallbackIdleNs;
  return status;
}

Status EncoderBackend::Embed(const TokenBatch& batch, std::span<float* const> outputs) {
  if (batch.texts() == 0 && outputs.empty()) return Status();
  if (Status status = Check(batch, outputs.size()); !status.ok()) return status;
  if (fallback_ != nullptr && MonotonicNs() >= fallback_until_ns_) fallback_.reset();
  Status status = EmbedWith(*encoder_, batch, outputs);
  if (status.code() != StatusCode::kModelError || !make_fallback_) return status;
  try {
    return Retry(batch, outputs, status);
  } catch (const std::bad_alloc&) {
    return status;
  } catch (const std::exception& error) {
    spdlog::error("model {}: making the fallback failed: {}", info_.name, error.what());
    return status;
  }
}

}  // namespace sutra
