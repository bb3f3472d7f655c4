// What the rest of the engine may know about a loaded model. Plain data, immutable once the model is loaded.
#pragma once

#include <cstdint>
#include <string>

namespace sutra {

struct ModelInfo {
  std::string name;         // last part of the model directory, or "fake"
  std::string identity;     // 64 hex digits: SHA-256 over weights, vocabulary, settings, precision and device class
  uint32_t width = 0;       // floats in a vector
  uint32_t tokens_max = 0;  // the model's limit, special tokens included
  bool normalizes = true;   // the model's own vector has unit length: Normalize is its last module, and nothing is cut
  std::string precision;    // "fp32", "bf16" or "int8"
  std::string device;       // "cpu" or "cuda:0"
};

}  // namespace sutra
