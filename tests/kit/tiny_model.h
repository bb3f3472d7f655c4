// A model directory in a temporary folder: a BERT of two heads and a dozen words with random weights, small enough to
// be damaged in every way. Removed with the object.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/kit/temp_dir.h"

namespace sutra {

// A safetensors file from a header (offsets included) and its data.
std::string SafetensorsBytes(const std::string& header, const std::string& data);

class TinyModel {
 public:
  struct Shape {
    uint32_t hidden = 64;
    uint32_t heads = 2;
    uint32_t intermediate = 128;
    uint32_t layers = 2;
    uint32_t positions = 40;
  };
  static constexpr uint32_t kVocabulary = 12;

  TinyModel() : TinyModel(Shape{}) {}
  explicit TinyModel(const Shape& shape);

  std::string path() const { return directory_.path(); }
  const test::TempDir& directory() const { return directory_; }
  nlohmann::json& config() { return config_; }
  std::map<std::string, std::vector<float>>& tensors() { return tensors_; }

  // Writes everything; `type` is F32, F16 or BF16, `prefix` goes before each tensor's name.
  void Save(const std::string& type = "F32", const std::string& prefix = "");

 private:
  test::TempDir directory_;
  nlohmann::json config_;
  std::map<std::string, std::vector<float>> tensors_;
  std::map<std::string, std::vector<uint32_t>> shapes_;
};

}  // namespace sutra
