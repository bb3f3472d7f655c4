// The trial has two halves: everything is allocated and the expected numbers are computed before the fork; the child
// only calls kernels and compares, which needs no lock that another thread of the parent may hold.
#include "engine/cpu/kernel_trial.h"

#include <spdlog/spdlog.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstring>

#include "engine/cpu/activation_curve.h"
#include "engine/cpu/int8_trial.h"
#include "engine/cpu/packed_model.h"

namespace sutra::cpu {
namespace {

constexpr double kSpeedGainMin = 1.25;  // of bf16 over fp32 for "auto"; real gains are 2 (AVX-512) to 8 (AMX)
constexpr unsigned kChildSecondsMax = 20;

// Random operands: zeros would hide wrong results, and AMX runs faster on zeros than on any real text.
std::vector<float> RandomFloats(size_t count, uint32_t seed) {
  std::vector<float> values(count);
  uint32_t state = seed;
  for (float& value : values) {
    state = state * 1664525U + 1013904223U;
    value = static_cast<float>(state >> 8) * 0x1p-23F - 1.0F;
  }
  return values;
}

AlignedBuffer ToElements(const std::vector<float>& values, size_t spare, Element element) {
  AlignedBuffer buffer((values.size() + spare) * sizeof(float));
  for (size_t i = 0; i < values.size(); ++i) {
    if (element == Element::kF32) {
      buffer.As<float>()[i] = values[i];
    } else {
      buffer.As<uint16_t>()[i] = ToBf16(values[i]);
    }
  }
  return buffer;
}

float ElementAt(const AlignedBuffer& buffer, size_t index, Element element) {
  if (element == Element::kF32) return buffer.As<float>()[index];
  return std::bit_cast<float>(static_cast<uint32_t>(buffer.As<uint16_t>()[index]) << 16);
}

// Every function of a kernel table on a small text. Numbers of rows that no tile divides, heads of both fast widths.
struct Shape {
  size_t rows = 39;
  size_t width = 128;
  size_t columns = 192;
  size_t tokens = 21;
};

// The operands and results of one element type.
class Trial {
 public:
  explicit Trial(Element element)
      : element_(element),
        packed_(PackLinear(weight_.data(), bias_.data(), shape_.columns, shape_.width, element)),
        curve_(MakeActivationCurve(Activation::kGeluErf)),
        a_(ToElements(RandomFloats(shape_.rows * shape_.width, 3), kRowPadding * shape_.width, element)),
        qkv_(ToElements(RandomFloats(shape_.tokens * 3 * shape_.width, 4), kRowPadding * 3 * shape_.width, element)),
        scratch_(AttentionScratchBytes(shape_.tokens, 64)),
        expected_(),
        computed_() {
    Run(*PortableKernels(element), &expected_);
    MultiplyExactly();
  }

  // Allocates nothing.
  bool Matches(const KernelTable& kernels) {
    Run(kernels, &computed_);
    const bool fp32 = element_ == Element::kF32;
    const auto near = [](float a, float b, float tolerance) { return std::abs(a - b) <= tolerance; };
    const float rounding = fp32 ? 0.0F : 0x1p-7F;  // two results may round to neighbouring elements
    for (size_t i = 0; i < shape_.rows * shape_.columns; ++i) {
      if (!near(computed_.sums.As<float>()[i], expected_.sums.As<float>()[i], 1e-3F)) return false;
      const float activated = ElementAt(expected_.activated, i, element_);
      if (!near(ElementAt(computed_.activated, i, element_), activated, 2e-3F + std::abs(activated) * rounding))
        return false;
    }
    for (size_t i = 0; i < shape_.tokens * shape_.width; ++i) {
      for (size_t heads = 0; heads < kHeadWidths.size(); ++heads) {
        if (!near(ElementAt(computed_.context[heads], i, element_), ElementAt(expected_.context[heads], i, element_),
                  1e-4F + 2 * rounding))
          return false;
      }
      const float x = expected_.x.As<float>()[i];
      if (!near(computed_.x.As<float>()[i], x, 1e-4F)) return false;
      if (!near(ElementAt(computed_.elements, i, element_), x, 1e-4F + std::abs(x) * rounding)) return false;
    }
    for (size_t i = 0; i < shape_.width; ++i) {
      if (!near(computed_.mean.As<float>()[i], expected_.mean.As<float>()[i], 1e-4F)) return false;
    }
    return true;
  }

 private:
  static constexpr std::array<size_t, 2> kHeadWidths = {32, 64};

  struct Results {
    AlignedBuffer sums = AlignedBuffer((39 + kRowPadding) * 192 * sizeof(float));
    AlignedBuffer activated = AlignedBuffer((39 + kRowPadding) * 192 * sizeof(float));
    std::array<AlignedBuffer, 2> context = {AlignedBuffer((21 + kRowPadding) * 128 * sizeof(float)),
                                            AlignedBuffer((21 + kRowPadding) * 128 * sizeof(float))};
    AlignedBuffer x = AlignedBuffer((21 + kRowPadding) * 128 * sizeof(float));
    AlignedBuffer elements = AlignedBuffer((21 + kRowPadding) * 128 * sizeof(float));
    AlignedBuffer mean = AlignedBuffer(128 * sizeof(float));
  };

  void Run(const KernelTable& kernels, Results* out) const {
    kernels.prepare_thread();
    GemmCall product;
    product.a = a_.data();
    product.a_stride = shape_.width;
    product.rows = shape_.rows;
    product.b = packed_.weights.data();
    product.depth = shape_.width;
    product.panel_end = packed_.panels();
    product.bias = packed_.bias.As<float>();
    product.c_stride = shape_.columns;
    product.curve = &curve_;
    product.output = GemmOutput::kAddToF32;
    product.c = out->sums.data();
    std::fill_n(out->sums.As<float>(), shape_.rows * shape_.columns, 0.0F);
    kernels.gemm(product);
    product.output = GemmOutput::kElementActivated;
    product.c = out->activated.data();
    kernels.gemm(product);
    for (size_t i = 0; i < kHeadWidths.size(); ++i) {
      kernels.attention({.qkv = qkv_.data(),
                         .qkv_stride = 3 * shape_.width,
                         .tokens = shape_.tokens,
                         .width = shape_.width,
                         .head_width = kHeadWidths[i],
                         .head_begin = 0,
                         .head_end = shape_.width / kHeadWidths[i],
                         .context = out->context[i].data(),
                         .context_stride = shape_.width,
                         .scratch = scratch_.data()});
    }
    kernels.embed({.ids = ids_.data(),
                   .tokens = shape_.tokens,
                   .width = shape_.width,
                   .words = weight_.data(),
                   .positions = bias_.data(),
                   .x = out->x.As<float>(),
                   .x_stride = shape_.width});
    kernels.normalize({.x = out->x.As<float>(),
                       .rows = shape_.tokens,
                       .width = shape_.width,
                       .stride = shape_.width,
                       .epsilon = 1e-12F,
                       .gain = bias_.data(),
                       .shift = bias_.data() + shape_.width,
                       .elements = out->elements.data()});
    kernels.mean({.x = out->x.As<float>(),
                  .rows = shape_.tokens,
                  .width = shape_.width,
                  .stride = shape_.width,
                  .out = out->mean.As<float>()});
    kernels.release_thread();
  }

  // The product is what most depends on instructions: expected as its definition says, not as the portable set sums it.
  void MultiplyExactly() {
    for (size_t r = 0; r < shape_.rows; ++r) {
      for (size_t n = 0; n < shape_.columns; ++n) {
        double sum = static_cast<double>(bias_[n]);
        for (size_t k = 0; k < shape_.width; ++k) {
          sum += static_cast<double>(ElementAt(a_, r * shape_.width + k, element_)) *
                 static_cast<double>(Rounded(weight_[n * shape_.width + k]));
        }
        expected_.sums.As<float>()[r * shape_.columns + n] = static_cast<float>(sum);
      }
    }
  }

  float Rounded(float value) const {
    return element_ == Element::kF32 ? value : std::bit_cast<float>(static_cast<uint32_t>(ToBf16(value)) << 16);
  }

  const Shape shape_;
  const Element element_;
  const std::vector<float> weight_ = RandomFloats(shape_.columns * shape_.width, 1);  // serves as words, too
  const std::vector<float> bias_ = RandomFloats(shape_.tokens * shape_.width, 2);     // as positions and norms, too
  const std::vector<int32_t> ids_ = {7, 0, 191, 3, 3, 100, 42, 8, 9, 10, 11, 12, 13, 64, 65, 66, 67, 127, 128, 1, 2};
  const PackedLinear packed_;
  const ActivationCurve curve_;
  const AlignedBuffer a_;
  const AlignedBuffer qkv_;
  const AlignedBuffer scratch_;
  Results expected_;
  Results computed_;
};

class Trials {
 public:
  bool Matches(const KernelTable& kernels) {
    const bool fp32 = kernels.element == Element::kF32;
    if (!(fp32 ? fp32_ : bf16_).Matches(kernels)) return false;
    return kernels.int8 == nullptr || (fp32 ? fp32_int8_ : bf16_int8_).Matches(kernels);
  }

 private:
  Trial fp32_{Element::kF32};
  Trial bf16_{Element::kBf16};
  Int8Trial fp32_int8_{Element::kF32};
  Int8Trial bf16_int8_{Element::kBf16};
};

// What the child tells: one byte per set in memory that both share, so that nothing depends on how it ends.
enum class Verdict : uint8_t { kNotTried, kBegun, kWrong, kCorrect };

class Verdicts {
 public:
  explicit Verdicts(size_t count) : count_(count) {
    void* address = mmap(nullptr, count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (address != MAP_FAILED) verdicts_ = static_cast<volatile Verdict*>(address);
  }
  ~Verdicts() {
    if (verdicts_ != nullptr) munmap(const_cast<Verdict*>(verdicts_), count_);
  }
  Verdicts(const Verdicts&) = delete;
  Verdicts& operator=(const Verdicts&) = delete;

  bool ok() const { return verdicts_ != nullptr; }
  volatile Verdict& operator[](size_t index) { return verdicts_[index]; }

 private:
  const size_t count_;
  volatile Verdict* verdicts_ = nullptr;
};

// In the child: no handler of the parent runs, no core is written, and a kernel that hangs is ended.
void PrepareToDie() {
  for (const int signal : {SIGILL, SIGSEGV, SIGBUS, SIGFPE, SIGTRAP, SIGABRT, SIGALRM}) std::signal(signal, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  (void)sigprocmask(SIG_SETMASK, &none, nullptr);
  (void)prctl(PR_SET_DUMPABLE, 0);
  (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
  (void)alarm(kChildSecondsMax);
}

// Tries sets[begin..) until one kills the child. RETURNS the status of its end as waitpid tells it, or -1 without fork.
int TryInChild(std::span<const KernelTable* const> sets, size_t begin, Trials& trials, Verdicts& verdicts) {
  const pid_t child = fork();
  if (child < 0) return -1;
  if (child == 0) {
    PrepareToDie();
    for (size_t i = begin; i < sets.size(); ++i) {
      verdicts[i] = Verdict::kBegun;
      verdicts[i] = trials.Matches(*sets[i]) ? Verdict::kCorrect : Verdict::kWrong;
    }
    _exit(0);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return 0;  // ECHILD where SIGCHLD is ignored: it has ended, too
  }
  return status;
}

std::string WhyDead(int status) {
  if (!WIFSIGNALED(status)) return "ends the process";
  if (WTERMSIG(status) == SIGALRM) return "does not return";
  return std::string("dies of ") + strsignal(WTERMSIG(status));
}

constexpr char kWrongResults[] = "computes wrong results";

}  // namespace

std::vector<TrialResult> TryKernels(std::span<const KernelTable* const> sets) {
  std::vector<TrialResult> results;
  for (const KernelTable* kernels : sets) results.push_back({kernels, {}});
  if (sets.empty()) return results;
  const auto trials = std::make_unique<Trials>();
  Verdicts verdicts(sets.size());
  for (size_t next = 0; next < sets.size();) {
    const int status = verdicts.ok() ? TryInChild(sets, next, *trials, verdicts) : -1;
    if (status == -1) {
      spdlog::warn("no child process can be made ({}): kernels are tried in this one", std::strerror(errno));
      for (; next < sets.size(); ++next) {
        if (!trials->Matches(*sets[next])) results[next].problem = kWrongResults;
      }
      return results;
    }
    const size_t begin = next;
    for (; next < sets.size() && verdicts[next] > Verdict::kBegun; ++next) {
      if (verdicts[next] == Verdict::kWrong) results[next].problem = kWrongResults;
    }
    if (next == sets.size()) break;
    // Without a verdict it died in this set; if it died before the first (killed from outside), that one counts as bad.
    if (verdicts[next] == Verdict::kBegun || next == begin) results[next++].problem = WhyDead(status);
  }
  return results;
}

bool KernelsComputeCorrectly(const KernelTable& kernels) { return std::make_unique<Trials>()->Matches(kernels); }

namespace {

// One product of a model's size.
double BestSeconds(const KernelTable& kernels) {
  constexpr size_t kRows = 50;
  constexpr size_t kWidth = 384;
  const std::vector<float> weight = RandomFloats(kWidth * kWidth, 1);
  const PackedLinear packed = PackLinear(weight.data(), weight.data(), kWidth, kWidth, kernels.element);
  const AlignedBuffer a = ToElements(RandomFloats(kRows * kWidth, 2), kRowPadding * kWidth, kernels.element);
  const AlignedBuffer c((kRows + kRowPadding) * kWidth * sizeof(float));
  const GemmCall call = {.a = a.data(),
                         .a_stride = kWidth,
                         .rows = kRows,
                         .b = packed.weights.data(),
                         .depth = kWidth,
                         .panel_end = packed.panels(),
                         .bias = packed.bias.As<float>(),
                         .output = GemmOutput::kAddToF32,
                         .c = c.data(),
                         .c_stride = kWidth};
  double best = 1e9;
  kernels.prepare_thread();
  for (int i = 0; i < 20; ++i) {
    const auto start = std::chrono::steady_clock::now();
    kernels.gemm(call);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  kernels.release_thread();
  return best;
}

}  // namespace

bool Bf16IsFaster(const KernelTable& bf16, const KernelTable& fp32) {
  return BestSeconds(fp32) > kSpeedGainMin * BestSeconds(bf16);
}

}  // namespace sutra::cpu
