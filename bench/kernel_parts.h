// One kernel set at a model's shapes: its products, attention, norm and activation, as arithmetic per second.
// Thread rule: one thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/cpu/kernels/kernels.h"
#include "engine/model/encoder_spec.h"

namespace sutra::bench {

struct PartRate {
  std::string part;   // "qkv", "ffn_in", ...
  double gflops = 0;  // 10^9 multiplications and additions per second of processor time
  bool fp32 = false;  // in any set: the divisor of a share is the peak of fp32
};

// Products of one chunk of tokens with random operands: qkv, attention_out, ffn_in (with and without its activation),
// ffn_out; attention over texts of 32 and 128 tokens; the norm after a residual. `activation` counts the polynomial's
// arithmetic in the difference of the two ffn_in. The best of several calls each.
// REQUIRES: the set runs on this CPU.
std::vector<PartRate> MeasureParts(const cpu::KernelTable& kernels, const EncoderSpec& spec);

// Of a 512 x 1536 x 384 product of random numbers: what stands for the peak where tiles have no register loop.
double PackedProductRate(const cpu::KernelTable& kernels);

// The same with int8 products, and what quantising rows of the inner width and the norm with quantising take.
// REQUIRES: the set has int8 products.
std::vector<PartRate> MeasureInt8Parts(const cpu::KernelTable& kernels, const EncoderSpec& spec);
double PackedInt8ProductRate(const cpu::KernelTable& kernels);

// Processor time of the fastest of several calls.
double BestSeconds(const std::function<void()>& call);

}  // namespace sutra::bench
