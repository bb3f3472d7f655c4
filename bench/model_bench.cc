// How fast the model alone is: token ids in, vectors out, no lanes and no tokenizer.
//   model_bench --model DIR [--precision fp32|bf16|auto] [--threads N] [--runs N] [--ids FILE] [--json]
// Shapes: A one text of 10 tokens, B 32 texts of 32, C 16 of 128, D a mix (one in ten of about 165 tokens, the rest 4
// to 48 with a median of 11); --ids takes one text per line, ids separated by spaces, instead of D's random ones.
// "share" is the linear layers' arithmetic per second over the best rate of the same kernels on one product of random
// numbers, measured in the same run, times the threads. On a busy machine compare "best cpu us".
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <thread>

#include "engine/backend_choice.h"
#include "engine/cpu/features.h"
#include "engine/cpu/kernel_choice.h"
#include "engine/cpu/packed_model.h"
#include "engine/model/model_config.h"

namespace sutra {
namespace {

using Clock = std::chrono::steady_clock;

struct Shape {
  std::string name;
  std::vector<int32_t> ids;
  std::vector<int32_t> offsets = {0};

  void Add(std::span<const int32_t> text) {
    ids.insert(ids.end(), text.begin(), text.end());
    offsets.push_back(static_cast<int32_t>(ids.size()));
  }
  size_t texts() const { return offsets.size() - 1; }
};

struct Figures {
  double median_us = 0;
  double mad_us = 0;
  double best_us = 0;
  double best_cpu_us = 0;  // processor time of all threads: what a busy machine still measures well
};

double ProcessorSeconds() {
  timespec now = {};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

std::vector<int32_t> RandomText(std::mt19937& random, int tokens) {
  std::uniform_int_distribution<int32_t> id(2000, 29000);
  std::vector<int32_t> text = {101};
  while (static_cast<int>(text.size()) < tokens - 1) text.push_back(id(random));
  text.push_back(102);
  return text;
}

Shape Uniform(const std::string& name, std::mt19937& random, int texts, int tokens) {
  Shape shape{name, {}, {0}};
  for (int i = 0; i < texts; ++i) shape.Add(RandomText(random, tokens));
  return shape;
}

Shape Mix(std::mt19937& random) {
  Shape shape{"D mix", {}, {0}};
  std::lognormal_distribution<double> fragment(2.4, 0.55);
  for (int i = 0; i < 320; ++i) {
    const int tokens =
        i % 10 == 0 ? 150 + static_cast<int>(random() % 30) : std::clamp(static_cast<int>(fragment(random)), 4, 48);
    shape.Add(RandomText(random, tokens));
  }
  return shape;
}

bool ReadIds(const std::string& path, Shape* shape) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    std::istringstream numbers(line);
    const std::vector<int32_t> text((std::istream_iterator<int32_t>(numbers)), std::istream_iterator<int32_t>());
    if (!text.empty()) shape->Add(text);
  }
  return shape->texts() > 0;
}

Figures Measure(ModelBackend& backend, const Shape& shape, int runs) {
  std::vector<float> vectors(shape.texts() * backend.info().width);
  std::vector<float*> outputs;
  for (size_t i = 0; i < shape.texts(); ++i) outputs.push_back(vectors.data() + i * backend.info().width);
  std::vector<double> times;
  double best_cpu = 1e9;
  for (int run = -2; run < runs; ++run) {
    const auto start = Clock::now();
    const double cpu_start = ProcessorSeconds();
    const Status status = backend.Embed({shape.ids, shape.offsets}, outputs);
    if (!status.ok()) {
      std::fprintf(stderr, "%s\n", status.message().c_str());
      std::exit(1);
    }
    if (run < 0) continue;
    times.push_back(Seconds(Clock::now() - start) * 1e6);
    best_cpu = std::min(best_cpu, ProcessorSeconds() - cpu_start);
  }
  std::sort(times.begin(), times.end());
  Figures figures{times[times.size() / 2], 0, times.front(), best_cpu * 1e6};
  for (double& time : times) time = std::abs(time - figures.median_us);
  std::sort(times.begin(), times.end());
  figures.mad_us = times[times.size() / 2];
  return figures;
}

// GFLOP/s of one thread on a 512 x 1536 x 384 product of random numbers; 0 where ATen computes.
double PeakOfOneThread(const cpu::KernelTable* kernels) {
  if (kernels == nullptr) return 0;
  constexpr size_t kRows = 512;
  constexpr size_t kColumns = 1536;
  constexpr size_t kDepth = 384;
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> weight(kColumns * kDepth);
  std::generate(weight.begin(), weight.end(), [&] { return normal(random); });
  const cpu::PackedLinear packed = cpu::PackLinear(weight.data(), nullptr, kColumns, kDepth, kernels->element);
  AlignedBuffer a((kRows + cpu::kRowPadding) * kDepth * sizeof(float));
  AlignedBuffer c((kRows + cpu::kRowPadding) * kColumns * sizeof(float));
  for (size_t i = 0; i < kRows * kDepth; ++i) {
    if (kernels->element == cpu::Element::kF32) {
      a.As<float>()[i] = normal(random);
    } else {
      a.As<uint16_t>()[i] = cpu::ToBf16(normal(random));
    }
  }
  cpu::GemmCall call;
  call.a = a.data();
  call.a_stride = kDepth;
  call.rows = kRows;
  call.b = packed.weights.data();
  call.depth = kDepth;
  call.panel_end = packed.panels();
  call.c = c.data();
  call.c_stride = kColumns;
  kernels->prepare_thread();
  double best = 1e9;
  for (int i = 0; i < 30; ++i) {
    const auto start = Clock::now();
    kernels->gemm(call);
    best = std::min(best, Seconds(Clock::now() - start));
  }
  kernels->release_thread();
  return 2.0 * kRows * kColumns * kDepth / best / 1e9;
}

double LinearGflopPerToken(const EncoderSpec& spec) {
  const double hidden = spec.hidden;
  return spec.layers * 2.0 * (4 * hidden * hidden + 2 * hidden * spec.intermediate) / 1e9;
}

struct Options {
  BackendOptions backend;
  int runs = 15;
  std::string ids;
  bool json = false;
};

int Run(const Options& options) {
  Result<ModelConfig> config = LoadModelConfig(options.backend.model_dir);
  Result<std::unique_ptr<ModelBackend>> made = MakeModelBackend(options.backend);
  if (!config.ok() || !made.ok()) {
    std::fprintf(stderr, "%s\n", (config.ok() ? made.status() : config.status()).message().c_str());
    return 1;
  }
  ModelBackend& backend = **made;
  Result<cpu::KernelChoice> choice = cpu::ChooseKernels(config->spec, options.backend.precision);
  const double peak = choice.ok() ? PeakOfOneThread(choice->kernels) *
                                        std::min<double>(options.backend.threads, std::thread::hardware_concurrency())
                                  : 0;
  std::mt19937 random(5);
  std::vector<Shape> shapes = {Uniform("A 1x10", random, 1, 10), Uniform("B 32x32", random, 32, 32),
                               Uniform("C 16x128", random, 16, 128), Mix(random)};
  if (!options.ids.empty()) {
    shapes.back() = Shape{"D ids", {}, {0}};
    if (!ReadIds(options.ids, &shapes.back())) {
      std::fprintf(stderr, "no ids in %s\n", options.ids.c_str());
      return 1;
    }
  }
  std::printf("cpu: %s; %d threads; %s, kernels' best product %.0f GFLOP/s; %d runs\n",
              cpu::DescribeFeatures(cpu::DetectFeatures()).c_str(), options.backend.threads,
              backend.info().precision.c_str(), peak, options.runs);
  std::printf("%-10s %12s %10s %12s %10s %12s %10s %7s\n", "shape", "median us", "MAD us", "best cpu us", "texts/s",
              "tokens/s", "GFLOP/s", "share");
  nlohmann::json report = {
      {"precision", backend.info().precision}, {"threads", options.backend.threads}, {"peak", peak}};
  for (const Shape& shape : shapes) {
    const Figures figures = Measure(backend, shape, shape.texts() == 1 ? options.runs * 20 : options.runs);
    const double seconds = figures.median_us / 1e6;
    const auto tokens = static_cast<double>(shape.ids.size());
    const double rate = tokens * LinearGflopPerToken(config->spec) / seconds;
    std::printf("%-10s %12.0f %10.0f %12.0f %10.0f %12.0f %10.0f %6.1f%%\n", shape.name.c_str(), figures.median_us,
                figures.mad_us, figures.best_cpu_us, static_cast<double>(shape.texts()) / seconds, tokens / seconds,
                rate, peak > 0 ? 100 * rate / peak : 0.0);
    report[shape.name.substr(0, 1)] = {{"median_us", figures.median_us},
                                       {"mad_us", figures.mad_us},
                                       {"best_us", figures.best_us},
                                       {"best_cpu_us", figures.best_cpu_us},
                                       {"texts_per_s", static_cast<double>(shape.texts()) / seconds},
                                       {"tokens_per_s", tokens / seconds},
                                       {"share_of_peak", peak > 0 ? rate / peak : 0.0}};
  }
  if (options.json) std::printf("%s\n", report.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace sutra

int main(int argc, char** argv) {
  sutra::Options options;
  CLI::App app("The model alone: ids in, vectors out");
  app.add_option("--model", options.backend.model_dir, "model directory")->required();
  const std::map<std::string, sutra::Precision> precisions = {
      {"auto", sutra::Precision::kAuto}, {"fp32", sutra::Precision::kF32}, {"bf16", sutra::Precision::kBf16}};
  app.add_option("--precision", options.backend.precision, "auto, fp32 or bf16")
      ->transform(CLI::CheckedTransformer(precisions));
  app.add_option("--threads", options.backend.threads, "intra-op threads");
  app.add_option("--runs", options.runs, "measured runs of each shape")->check(CLI::Range(1, 1000));
  app.add_option("--ids", options.ids, "file with the ids of one text per line, for shape D");
  app.add_flag("--json", options.json, "one JSON object as the last line");
  CLI11_PARSE(app, argc, argv);
  return sutra::Run(options);
}
