#include "engine/model/fake_backend.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "shm/base/hex.h"

namespace sutra {
namespace {

constexpr uint32_t kTokensMaxDefault = 8192;
constexpr uint32_t kVocabulary = 256;

class ByteTokenizer final : public Tokenizer {
 public:
  Encoded Encode(std::string_view text, uint32_t tokens_max, std::vector<int32_t>* ids) const override {
    const size_t kept = std::min<size_t>(text.size(), tokens_max);
    for (size_t i = 0; i < kept; ++i) ids->push_back(static_cast<unsigned char>(text[i]));
    return {static_cast<uint32_t>(kept), kept < text.size()};
  }
};

uint64_t Mix(uint64_t value) {  // the finaliser of splitmix64
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9U;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebU;
  return value ^ (value >> 31);
}

void WriteFakeVector(std::span<const int32_t> ids, std::string_view name, std::span<float> out) {
  uint64_t state = 0x9e3779b97f4a7c15U;
  for (const char c : name) state = Mix(state ^ static_cast<unsigned char>(c));
  for (const int32_t id : ids) state = Mix(state + 0x9e3779b97f4a7c15U + static_cast<uint32_t>(id));
  for (float& value : out) {
    state += 0x9e3779b97f4a7c15U;
    // 23 random bits and a last one that is always set: no value is zero, hence no vector is.
    value = static_cast<float>(static_cast<int64_t>((Mix(state) >> 40) | 1U) - (int64_t{1} << 23)) * 0x1p-23F;
  }
}

std::optional<uint64_t> FromEnvironment(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr || *text == '\0') return std::nullopt;
  return std::strtoull(text, nullptr, 10);
}

class FakeBackend final : public ModelBackend {
 public:
  FakeBackend(const FakeOptions& options, uint32_t tokens_max)
      : fail_at_(options.fail_at.has_value() ? options.fail_at : FromEnvironment("SUTRA_FAKE_FAIL_AT")),
        delay_us_(options.delay_us.has_value() ? options.delay_us : FromEnvironment("SUTRA_FAKE_DELAY_US")) {
    info_.name = options.name;
    info_.width = options.width;
    info_.tokens_max = tokens_max;
    info_.normalizes = true;
    info_.precision = "fp32";
    info_.device = "cpu";
    // Made from a vector of its own: another name or width gives another identity, without a file to hash.
    for (const float value : FakeVector("identity " + std::to_string(options.width), options.name, 64)) {
      info_.identity += kHexDigits[static_cast<int>((value + 1.0F) * 8.0F) & 15];
    }
  }

  const ModelInfo& info() const override { return info_; }
  const Tokenizer& tokenizer() const override { return tokenizer_; }

  Status Embed(const TokenBatch& batch, std::span<float* const> outputs) override {
    ++batches_;
    if (delay_us_.has_value()) std::this_thread::sleep_for(std::chrono::microseconds(*delay_us_));
    if (fail_at_.has_value() && batches_ == *fail_at_) {
      return Status(StatusCode::kModelError,
                    "the fake model fails at batch " + std::to_string(batches_) + " as requested");
    }
    for (uint32_t text = 0; text < batch.texts(); ++text) {
      const auto begin = static_cast<size_t>(batch.offsets[text]);
      const auto end = static_cast<size_t>(batch.offsets[text + 1]);
      if (end - begin < 1 || end - begin > info_.tokens_max) {
        return Status(StatusCode::kModelError, "a text has no tokens or more than the fake model allows");
      }
      const auto ids = batch.ids.subspan(begin, end - begin);
      if (std::any_of(ids.begin(), ids.end(), [](int32_t id) { return static_cast<uint32_t>(id) >= kVocabulary; })) {
        return Status(StatusCode::kModelError, "an id is not a byte");
      }
      WriteFakeVector(ids, info_.name, std::span(outputs[text], info_.width));
    }
    return Status();
  }

 private:
  ModelInfo info_;
  ByteTokenizer tokenizer_;
  std::optional<uint64_t> fail_at_;
  std::optional<uint64_t> delay_us_;
  uint64_t batches_ = 0;
};

}  // namespace

std::vector<float> FakeVector(std::span<const int32_t> ids, std::string_view name, uint32_t width) {
  std::vector<float> vector(width);
  WriteFakeVector(ids, name, vector);
  return vector;
}

std::vector<float> FakeVector(std::string_view text, std::string_view name, uint32_t width) {
  std::vector<int32_t> ids;
  (void)ByteTokenizer().Encode(text, static_cast<uint32_t>(text.size()), &ids);
  return FakeVector(ids, name, width);
}

Result<std::unique_ptr<ModelBackend>> MakeFakeBackend(const FakeOptions& options) {
  const uint64_t tokens_max = options.tokens_max.has_value()
                                  ? *options.tokens_max
                                  : FromEnvironment("SUTRA_FAKE_TOKENS_MAX").value_or(kTokensMaxDefault);
  if (options.width < 1 || options.width > 8192 || tokens_max < 2 || tokens_max > (1U << 20)) {
    return Status(StatusCode::kBadOption,
                  "the fake model needs a width from 1 to 8192 and 2 to 1048576 tokens per text");
  }
  return std::unique_ptr<ModelBackend>(std::make_unique<FakeBackend>(options, static_cast<uint32_t>(tokens_max)));
}

Result<std::unique_ptr<ModelBackend>> MakeFakeBackend(const std::string& name, uint32_t width) {
  FakeOptions options;
  options.name = name;
  options.width = width;
  return MakeFakeBackend(options);
}

}  // namespace sutra
