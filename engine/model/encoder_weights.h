// The tensors of an encoder by their role, whatever a family calls them; found first, then read and hashed together.
// Thread rule: plain data; the views live as long as `file`, their memory as long as somebody holds it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/model/safetensors.h"
#include "shm/base/status.h"

namespace sutra {

struct LinearTensors {
  const TensorView* weight = nullptr;  // [out][in]
  const TensorView* bias = nullptr;    // [out]
};

struct NormTensors {
  const TensorView* gain = nullptr;
  const TensorView* shift = nullptr;
};

struct LayerTensors {
  LinearTensors query, key, value, attention_out, ffn_in, ffn_out;
  NormTensors attention_norm, ffn_norm;
};

struct EncoderWeights {
  std::shared_ptr<SafetensorsFile> file;
  // 64 hex digits: SHA-256 over the type, shape and bytes of every tensor here, in the order of their roles. What else
  // the file holds (other tensors, metadata, names, the order of tensors) does not count. Weights with the same digest
  // are the same weights. Empty until ReadWeights.
  std::string digest;
  const TensorView* words = nullptr;      // [vocabulary][hidden]
  const TensorView* positions = nullptr;  // [positions][hidden]
  const TensorView* segments = nullptr;   // [at least 1][hidden]; row 0 is added to every position
  NormTensors embedding_norm;
  std::vector<LayerTensors> layers;
};

// Looks tensors up for a family and remembers the first problem (a missing tensor, another shape, a type other than
// F32, F16, BF16), so that the code that names them reads as a list.
class TensorFinder {
 public:
  // `prefix` goes before every name.
  TensorFinder(SafetensorsFile& file, std::string prefix) : file_(file), prefix_(std::move(prefix)) {}

  const TensorView* Get(const std::string& name, const std::vector<uint64_t>& shape);
  // NAME.weight and NAME.bias.
  LinearTensors Linear(const std::string& name, uint64_t out, uint64_t in);
  // NAME.weight and NAME.bias, or the older NAME.gamma and NAME.beta.
  NormTensors Norm(const std::string& name, uint64_t width);
  // Rows of a two-dimensional tensor; `otherwise` if there is no such tensor.
  uint64_t Rows(const std::string& name, uint64_t otherwise) const;

  // kOk, or a kModelError that names file, tensor and fix.
  const Status& status() const { return status_; }

 private:
  Status Problem(const std::string& what, const std::string& fix) const;

  SafetensorsFile& file_;
  const std::string prefix_;
  Status status_;
};

// Reads the tensors in the order of their roles and fills in the digest, of the very bytes that were read. A second
// thread hashes each part as soon as it is there: with MiniLM 50 ms, of which 35 pass while the file is read.
Status ReadWeights(EncoderWeights* weights);

std::vector<float> ToFloats(const TensorView& tensor);

}  // namespace sutra
