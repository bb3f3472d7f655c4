// What an encoder computes, independent of any model family. A family (families/) turns a model directory into a
// specification and weights by role (encoder_weights.h); an executor (engine/cpu, engine/torch) computes a
// specification and knows no family. That takes families + executors pieces of code instead of families x executors.
//
// Thread rule: plain data. Every number was checked against a range by the family, because it later sizes buffers.
#pragma once

#include <cstdint>

namespace sutra {

enum class Activation : uint8_t { kGeluErf, kGeluTanh };
enum class Pooling : uint8_t { kMean, kCls };

// Embeddings (word + position + segment 0), a norm, then `layers` times: self-attention over all tokens of the text,
// residual, norm, feed-forward of width `intermediate`, residual, norm; finally one pooled vector per text.
struct EncoderSpec {
  uint32_t hidden = 0;  // floats per token and per vector; a multiple of heads
  uint32_t layers = 0;
  uint32_t heads = 0;
  uint32_t intermediate = 0;
  uint32_t vocabulary = 0;
  uint32_t positions = 0;
  uint32_t tokens_max = 0;  // of one text, special tokens included; at most `positions`
  float norm_epsilon = 0;
  Activation activation = Activation::kGeluErf;
  Pooling pooling = Pooling::kMean;

  uint32_t head_width() const { return hidden / heads; }
  bool operator==(const EncoderSpec&) const = default;
};

}  // namespace sutra
