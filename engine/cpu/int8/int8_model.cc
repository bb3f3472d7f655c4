// From a file or anew; then the quality decides.
#include "engine/cpu/int8/int8_model.h"

#include <spdlog/spdlog.h>

#include <cassert>
#include <utility>
#include <vector>

#include "engine/cpu/cpu_encoder.h"
#include "engine/cpu/features.h"
#include "engine/cpu/int8/int8_pass.h"
#include "engine/cpu/int8/int8_quality.h"
#include "engine/cpu/int8/model_quantiser.h"
#include "engine/cpu/int8/packed_file.h"
#include "engine/cpu/int8/random_texts.h"
#include "engine/cpu/kernel_choice.h"
#include "shm/base/mutex.h"
#include "shm/base/printable.h"
#include "shm/base/time.h"

namespace sutra::cpu {
namespace {

// A part of the recipe: other texts give other weights (kInt8Recipe in engine/model/model_identity.h).
// Short texts are the hardest, so that most of these are short; without some long ones, GPTQ would know nothing of
// later positions; and without texts that repeat few words or consist of signs it would serve these at 0.998.
constexpr RandomTexts kCalibrationTexts[] = {
    {.count = 1200, .words_min = 1, .words_max = 30, .draws = 4, .seed = 4},
    {.count = 60, .words_min = 40, .words_max = 240, .seed = 5},
    {.count = 250, .words_min = 3, .words_max = 120, .draws = 2, .distinct_max = 2, .seed = 6},
    {.count = 400, .words_min = 2, .words_max = 60, .draws = 3, .distinct_max = 5, .signs = true, .seed = 7},
};

double Seconds(uint64_t since_ns) {
  return static_cast<double>(MonotonicNs() - since_ns) / static_cast<double>(kNsPerSecond);
}

class Preparation {
 public:
  Preparation(const LoadedModel& model, const KernelTable& kernels, const KernelTable& exact,
              const Int8Options& options)
      : model_(model), kernels_(kernels), exact_(exact), options_(options) {}

  Result<std::shared_ptr<QuantisedModel>> Run() {
    auto out = std::make_shared<QuantisedModel>();
    out->rest = SharedPackedModel(model_.config.spec, model_.weights, kernels_.element, PackedParts::kAllButProducts);
    const bool found = ReadFile(out.get());
    if (!found) {
      if (Status status = Quantise(out.get()); !status.ok()) return status;
    }
    if (out->quality.kernels == kernels_.name) return out;
    if (Status status = Measure(out); !status.ok()) return status;
    WriteFile(*out);
    return out;
  }

 private:
  std::string Path() const { return PackedFilePath(options_.directory, options_.identity); }

  bool ReadFile(QuantisedModel* out) const {
    if (options_.directory.empty()) return false;
    const Status status = ReadPackedFile(Path(), options_.identity, out);
    if (!status.ok() && status.code() != StatusCode::kNotReady) {
      spdlog::warn("int8: {}; preparing the weights anew", status.message());
    }
    return status.ok();
  }

  void WriteFile(const QuantisedModel& out) const {
    if (options_.directory.empty()) return;
    if (Status status = WritePackedFile(Path(), options_.identity, out); !status.ok()) {
      spdlog::warn("int8: the prepared weights are not stored, so the next start prepares them again: {}",
                   status.message());
    }
  }

  std::shared_ptr<const PackedModel> Exact() const {
    return SharedPackedModel(model_.config.spec, model_.weights, Element::kF32);
  }

  Status Quantise(QuantisedModel* out) const {
    const uint64_t start_ns = MonotonicNs();
    spdlog::info("int8: preparing the weights of {}, which takes a few seconds{}", model_.config.name,
                 options_.directory.empty() ? "" : "; the next start reads them from " + Path());
    TokenTexts texts;
    for (const RandomTexts& part : kCalibrationTexts) {
      AppendRandomTexts(part, *model_.tokenizer, model_.config.spec.vocabulary, model_.config.spec.tokens_max, &texts);
    }
    Result<std::vector<QuantisedLayer>> layers = QuantiseLayers(Exact(), exact_, texts, options_.threads);
    if (!layers.ok()) return layers.status();
    out->layers = std::move(layers).value();
    spdlog::info("int8: prepared in {:.1f} s", Seconds(start_ns));
    return {};
  }

  Status Measure(const std::shared_ptr<QuantisedModel>& out) const {
    const EncoderSpec& spec = model_.config.spec;
    const QualityTexts texts = BuiltInTexts(*model_.tokenizer, spec.vocabulary, spec.tokens_max);
    spdlog::info("int8: comparing the vectors of {} built-in texts with fp32", texts.tokens.size());
    CpuEncoder exact(std::make_shared<FloatPass>(Exact(), exact_), options_.threads);
    CpuEncoder quantised(std::make_shared<Int8Pass>(out, kernels_), options_.threads);
    Result<Int8Quality> quality = CompareEncoders(exact, quantised, spec.hidden, texts);
    if (!quality.ok()) return quality.status();
    out->quality = std::move(quality).value();
    out->quality.kernels = kernels_.name;
    return {};
  }

  const LoadedModel& model_;
  const KernelTable& kernels_;
  const KernelTable& exact_;
  const Int8Options& options_;
};

class Models {
 public:
  Result<std::shared_ptr<const QuantisedModel>> Get(const LoadedModel& model, const KernelTable& kernels,
                                                    const KernelTable& exact, const Int8Options& options) {
    const MutexLock lock(mutex_);
    std::erase_if(in_use_, [](const Entry& entry) { return entry.model.expired(); });
    for (const Entry& entry : in_use_) {
      std::shared_ptr<const QuantisedModel> found = entry.model.lock();
      if (found != nullptr && entry.identity == options.identity && entry.kernels == &kernels) return found;
    }
    Result<std::shared_ptr<QuantisedModel>> made = Preparation(model, kernels, exact, options).Run();
    if (!made.ok()) return made.status();
    in_use_.push_back({options.identity, &kernels, made.value()});
    return std::shared_ptr<const QuantisedModel>(std::move(made).value());
  }

 private:
  struct Entry {
    std::string identity;
    const KernelTable* kernels;
    std::weak_ptr<const QuantisedModel> model;
  };

  Mutex mutex_;
  std::vector<Entry> in_use_ SUTRA_GUARDED_BY(mutex_);
};

std::string Description(const Int8Quality& quality) {
  return fmt::format("smallest cosine {:.5f} against fp32, of the text {}; mean {:.5f} over {} built-in texts",
                     quality.cosine_min, Printable(quality.text, HighBytes::kKeep), quality.cosine_mean, quality.texts);
}

}  // namespace

const KernelTable* ChooseInt8Kernels(CpuIsa isa_max) {
  if (isa_max == CpuIsa::kPortable) return PortableKernels(Element::kF32);
  const Features features = Capped(DetectFeatures(), isa_max);
  std::vector<const KernelTable*> sets;
  const auto add = [&](bool present, const KernelTable* kernels) {
    if (present && kernels != nullptr) sets.push_back(kernels);
  };
  add(features.amx_int8 && features.amx_bf16, AmxInt8Kernels());
  add(features.avx512_vnni && features.avx512_bf16, Avx512VnniBf16Kernels());
  add(features.avx512_vnni, Avx512VnniKernels());
  add(features.avx_vnni, AvxVnniKernels());
  const std::vector<const KernelTable*> trusted = TrustedSets(sets).sets;
  return trusted.empty() ? nullptr : trusted.front();
}

Result<std::shared_ptr<const QuantisedModel>> SharedInt8Model(const LoadedModel& model, const KernelTable& kernels,
                                                              const KernelTable& exact, const Int8Options& options) {
  assert(kernels.int8 != nullptr && exact.element == Element::kF32);
  static Models models;
  Result<std::shared_ptr<const QuantisedModel>> found = models.Get(model, kernels, exact, options);
  if (!found.ok()) return found;
  const Int8Quality& quality = found.value()->quality;
  if (options.cosine_min > 0 && !(quality.cosine_min >= options.cosine_min)) {
    return Status(StatusCode::kModelError,
                  fmt::format("the model {} loses too much in int8: {}, below --int8-cosine-min {}. Its activations or "
                              "weights do not fit 8 bits, or its files are damaged: use --precision bf16 or fp32, or "
                              "accept these vectors with a lower --int8-cosine-min",
                              model.config.name, Description(quality), options.cosine_min));
  }
  spdlog::info("int8: {}", Description(quality));
  return found;
}

}  // namespace sutra::cpu
