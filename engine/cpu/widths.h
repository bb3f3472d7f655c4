// The widths and row strides of a model's activations as the kernels see them: padded, so that every kernel set
// computes every shape. What is added is zero in the weights, so it adds zero to every sum; norms, embedding and means
// know the real width.
// Thread rule: plain data.
#pragma once

#include <cstddef>

#include "engine/model/encoder_spec.h"

namespace sutra::cpu {

struct Widths {
  size_t hidden = 0;         // real: what a norm divides by, and what a vector has
  size_t hidden_padded = 0;  // whole panels, as the depth or the columns of a product
  size_t inner = 0;          // whole panels
  size_t head = 0;           // a multiple of kHeadColumns
  size_t heads = 0;          // as many as make whole panels; those beyond the model's are zero
  size_t context = 0;        // heads * head, whole panels: of queries, of keys, of values, of what attention writes
  size_t hidden_row = 0;     // stride of the residual stream and of the elements that a norm writes
  size_t qkv_row = 0;        // of queries, keys and values
  size_t context_row = 0;    // of what attention writes
  size_t inner_row = 0;      // of the feed-forward's inner activations
};

Widths WidthsOf(const EncoderSpec& spec);

}  // namespace sutra::cpu
