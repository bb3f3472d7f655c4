// bench/run kernels: the CPU kernels over what the core can multiply at most, the model alone in each precision, and
// how close int8 vectors are to fp32 ones.
//   kernels_bench --model DIR [--texts FILE] [--only parts,model,quality] [--runs N] [--quick] [--json]
// --texts: what quality_texts.py writes. One thread; every time is the processor time of that thread, so that a busy
// machine disturbs little.
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "bench/bench_report.h"
#include "bench/int8_quality.h"
#include "bench/kernel_parts.h"
#include "bench/model_shapes.h"
#include "bench/register_peak.h"
#include "engine/backend_choice.h"
#include "engine/cpu/features.h"
#include "engine/cpu/kernels/int8_kernels.h"
#include "engine/model/model_config.h"

namespace sutra::bench {
namespace {

struct Options {
  std::string model_dir;
  std::string texts;
  std::vector<std::string> only = {"parts", "model", "quality"};
  int runs = 7;
  bool quick = false;
  bool json = false;
};

// A kernel set of this CPU, and what its products are measured against; without a loop, the packed product. What is
// fp32 in every set is measured against `fp32`.
struct KernelSet {
  const cpu::KernelTable* table = nullptr;
  std::optional<RegisterLoop> loop = std::nullopt;
  RegisterLoop fp32 = RegisterLoop::kFmaZmm;
  bool int8 = false;  // its int8 half is what is measured
};

std::vector<KernelSet> SetsOfThisCpu() {
  const cpu::Features& features = cpu::DetectFeatures();
  std::vector<KernelSet> sets;
  const auto add = [&](bool present, const KernelSet& set) {
    if (present && set.table != nullptr) sets.push_back(set);
  };
  add(features.avx2, {cpu::Avx2Kernels(), RegisterLoop::kFmaYmm, RegisterLoop::kFmaYmm});
  add(features.avx512, {cpu::Avx512Kernels(), RegisterLoop::kFmaZmm});
  add(features.avx512_bf16, {cpu::Avx512Bf16Kernels(), RegisterLoop::kDotBf16Zmm});
  add(features.amx_bf16, {cpu::AmxKernels(), std::nullopt});
  add(features.avx512_vnni, {.table = cpu::Avx512VnniKernels(), .loop = RegisterLoop::kDotInt8Zmm, .int8 = true});
  add(features.avx512_vnni && features.avx512_bf16,
      {.table = cpu::Avx512VnniBf16Kernels(), .loop = RegisterLoop::kDotInt8Zmm, .int8 = true});
  add(features.avx_vnni,
      {.table = cpu::AvxVnniKernels(), .loop = RegisterLoop::kDotInt8Ymm, .fp32 = RegisterLoop::kFmaYmm, .int8 = true});
  add(features.amx_int8, {.table = cpu::AmxInt8Kernels(), .int8 = true});
  return sets;
}

double PeakOf(const KernelSet& set) {
  if (set.loop) return RegisterPeak(*set.loop);
  return set.int8 ? PackedInt8ProductRate(*set.table) : PackedProductRate(*set.table);
}

// The best set for bf16: what the engine's own choice takes.
const KernelSet* BestBf16(const std::vector<KernelSet>& sets) {
  const KernelSet* best = nullptr;
  for (const KernelSet& set : sets) {
    if (set.table->element == cpu::Element::kBf16 && !set.int8) best = &set;
  }
  return best;
}

void ReportParts(const Options& options, const EncoderSpec& spec, const std::vector<KernelSet>& sets, Report* report) {
  for (const KernelSet& set : sets) {
    const std::string name = set.table->name;
    std::vector<double> peaks;
    std::vector<std::pair<std::string, std::vector<double>>> shares, rates;
    for (int run = 0; run < options.runs; ++run) {
      const double peak = PeakOf(set);
      const double fp32_peak = RegisterPeak(set.fp32);
      peaks.push_back(peak);
      const std::vector<PartRate> parts =
          set.int8 ? MeasureInt8Parts(*set.table, spec) : MeasureParts(*set.table, spec);
      for (const PartRate& part : parts) {
        // A part that could not be told from noise in one run has fewer values.
        const auto into = [&](auto* rows, double value) {
          auto row = std::find_if(rows->begin(), rows->end(), [&](const auto& r) { return r.first == part.part; });
          if (row == rows->end()) row = rows->insert(rows->end(), {part.part, {}});
          row->second.push_back(value);
        };
        into(&rates, part.gflops);
        const double divisor = part.fp32 ? fp32_peak : peak;
        if (divisor > 0) into(&shares, part.gflops / divisor);
      }
    }
    report->Add(name + "_peak_gflops", name + ": " + (set.loop ? NameOf(*set.loop) : "packed product") + ", GFLOP/s",
                peaks);
    for (auto& [part, values] : rates)
      report->Add(name + "_" + part + "_gflops", name + ": " + part + ", GFLOP/s", values);
    for (auto& [part, values] : shares)
      report->Add(name + "_" + part + "_share", name + ": " + part + ", over the peak", values);
  }
}

Result<std::unique_ptr<ModelBackend>> Backend(const Options& options, const std::string& precision) {
  const auto known = std::find_if(std::begin(kPrecisionNames), std::end(kPrecisionNames),
                                  [&](const auto& name) { return precision == name.first; });
  if (known == std::end(kPrecisionNames)) return Status(StatusCode::kBadOption, "this build has no " + precision);
  Result<Backends> made =
      MakeModelBackends({.model_dir = options.model_dir, .precision = known->second, .executor = Executor::kCpu});
  if (!made.ok()) return made.status();
  return std::move(made->front());
}

// Processor time of one pass, of the best of `passes`.
double SecondsOf(ModelBackend& backend, const Shape& shape, int passes) {
  std::vector<float> vectors(shape.texts() * backend.info().width);
  std::vector<float*> outputs;
  for (size_t i = 0; i < shape.texts(); ++i) outputs.push_back(vectors.data() + i * backend.info().width);
  double best = 1e9;
  for (int pass = 0; pass < passes; ++pass) {
    const double start = ThreadSeconds();
    const Status status = backend.Embed({shape.ids, shape.offsets}, outputs);
    best = std::min(best, ThreadSeconds() - start);
    if (!status.ok()) {
      std::fprintf(stderr, "kernels_bench: %s\n", status.message().c_str());
      std::exit(1);
    }
  }
  return best;
}

double LinearGflopPerToken(const EncoderSpec& spec) {
  const double hidden = spec.hidden;
  return spec.layers * 2.0 * (4 * hidden * hidden + 2 * hidden * spec.intermediate) / 1e9;
}

// The precisions take turns; a ratio or share is taken within a turn.
void ReportModel(const Options& options, const EncoderSpec& spec, const KernelSet* bf16_set, Report* report) {
  const auto backend = [&](const std::string& precision) -> std::unique_ptr<ModelBackend> {
    Result<std::unique_ptr<ModelBackend>> made = Backend(options, precision);
    if (made.ok()) return std::move(*made);
    report->Note("model_" + precision + "_*: " + made.status().message());
    return nullptr;
  };
  const std::unique_ptr<ModelBackend> fp32 = backend("fp32"), bf16 = backend("bf16"), int8 = backend("int8");
  for (const Shape& shape : ModelShapes()) {
    std::vector<double> of_fp32, of_bf16, of_int8, gain, share;
    const auto texts = static_cast<double>(shape.texts());
    const int passes = shape.texts() == 1 ? 60 : 3;
    for (int run = options.quick ? 0 : -1; run < options.runs; ++run) {  // the first warms up
      std::vector<double> fresh_fp32, fresh_bf16, fresh_int8, fresh_gain, fresh_share;
      const double seconds = bf16 ? SecondsOf(*bf16, shape, passes) : 0;
      const double peak = bf16_set != nullptr ? PeakOf(*bf16_set) : 0;
      if (int8 != nullptr) {
        const double int8_seconds = SecondsOf(*int8, shape, passes);
        fresh_int8.push_back(texts / int8_seconds);
        if (bf16 != nullptr) fresh_gain.push_back(seconds / int8_seconds);
      }
      if (fp32 != nullptr) fresh_fp32.push_back(texts / SecondsOf(*fp32, shape, passes));
      if (bf16 != nullptr) fresh_bf16.push_back(texts / seconds);
      if (bf16 != nullptr && peak > 0) {
        fresh_share.push_back(static_cast<double>(shape.ids.size()) * LinearGflopPerToken(spec) / seconds / peak);
      }
      if (run < 0) continue;
      const auto keep = [](std::vector<double>* all, const std::vector<double>& fresh) {
        all->insert(all->end(), fresh.begin(), fresh.end());
      };
      keep(&of_fp32, fresh_fp32), keep(&of_bf16, fresh_bf16), keep(&of_int8, fresh_int8);
      keep(&gain, fresh_gain), keep(&share, fresh_share);
    }
    const std::string of = shape.title;
    report->Add("model_fp32_" + shape.key + "_texts_per_s", "model alone, fp32, " + of + ", texts/s", of_fp32);
    report->Add("model_bf16_" + shape.key + "_texts_per_s", "model alone, bf16, " + of + ", texts/s", of_bf16);
    report->Add("model_int8_" + shape.key + "_texts_per_s", "model alone, int8, " + of + ", texts/s", of_int8);
    report->Add("int8_over_bf16_" + shape.key, "int8 over bf16, " + of, gain);
    report->Add("bf16_share_" + shape.key, "bf16, linear layers over the peak, " + of, share);
  }
  if (bf16_set == nullptr) report->Note("bf16_share_*: this CPU does not multiply bf16");
}

void ReportQuality(const Options& options, Report* report) {
  const auto missing = [&](const std::string& why) {
    for (const char* key : {"int8_cos_min", "int8_cos_mean", "int8_top10", "int8_texts"}) report->Add(key, key, {});
    report->Note("int8_cos_min, int8_top10: " + why);
  };
  if (options.texts.empty()) return missing("no --texts");
  Result<std::vector<QualityText>> texts = ReadQualityTexts(options.texts);
  if (!texts.ok()) return missing(texts.status().message());
  spdlog::set_level(spdlog::level::warn);
  if (options.quick && texts->size() > 400) {
    std::vector<QualityText> some;
    for (size_t i = 0; i < 400; ++i) some.push_back((*texts)[i * texts->size() / 400]);
    *texts = some;
  }
  const Result<std::unique_ptr<ModelBackend>> int8 = Backend(options, "int8");
  if (!int8.ok()) return missing(int8.status().message());
  const Result<std::unique_ptr<ModelBackend>> fp32 = Backend(options, "fp32");
  if (!fp32.ok()) return missing(fp32.status().message());
  const Result<Quality> quality = CompareVectors(*texts, **fp32, **int8);
  if (!quality.ok()) return missing(quality.status().message());
  report->Add("int8_cos_min", "int8: smallest cosine to fp32", {quality->cosine_min});
  report->Add("int8_cos_mean", "int8: mean cosine to fp32", {quality->cosine_mean});
  report->Add("int8_top10", "int8: share of the ten nearest texts as in fp32", {quality->top10});
  report->Add("int8_texts", "texts compared", {static_cast<double>(quality->texts)});
  report->Note("smallest cosine of each kind of text, and where it is:");
  for (const auto& [family, worst] : quality->families) {
    char line[160];
    std::snprintf(line, sizeof(line), "  %-14s %.5f  %s", family.c_str(), worst.cosine,
                  nlohmann::json(worst.text).dump(-1, ' ', true).substr(0, 80).c_str());
    report->Note(line);
    report->AddValue("int8_cos_min_" + family, worst.cosine);
  }
}

int Run(const Options& options) {
  const Result<ModelConfig> config = LoadModelConfig(options.model_dir);
  if (!config.ok()) {
    std::fprintf(stderr, "kernels_bench: %s\n", config.status().message().c_str());
    return 1;
  }
  const std::set<std::string> only(options.only.begin(), options.only.end());
  const std::vector<KernelSet> sets = SetsOfThisCpu();
  Report report("kernels");
  if (only.contains("parts")) ReportParts(options, config->spec, sets, &report);
  if (only.contains("model")) ReportModel(options, config->spec, BestBf16(sets), &report);
  if (only.contains("quality")) ReportQuality(options, &report);
  report.Print(options.json);
  return 0;
}

}  // namespace
}  // namespace sutra::bench

int main(int argc, char** argv) {
  sutra::bench::Options options;
  CLI::App app("The CPU kernels, the model alone, and int8 beside fp32.", "kernels_bench");
  app.add_option("--model", options.model_dir, "Model directory")->required();
  app.add_option("--texts", options.texts, "Texts for the comparison of int8 with fp32");
  app.add_option("--only", options.only, "parts, model, quality")
      ->delimiter(',')
      ->check(CLI::IsMember({"parts", "model", "quality"}));
  CLI::Option* runs = app.add_option("--runs", options.runs, "Turns of each figure")->check(CLI::Range(1, 1000));
  app.add_flag("--quick", options.quick, "Two turns and 400 texts: does everything run?");
  app.add_flag("--json", options.json, "One JSON object as the last line");
  CLI11_PARSE(app, argc, argv);
  spdlog::set_level(spdlog::level::warn);
  if (options.quick && runs->count() == 0) options.runs = 2;
  return sutra::bench::Run(options);
}
