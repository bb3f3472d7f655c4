// Reads and checks a model's JSON files without exceptions.
#include "engine/model/json_file.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "shm/base/printable.h"

namespace sutra {

using nlohmann::json;

constexpr uintmax_t kConfigBytesMax = 1U << 20;

Status ModelFileError(const std::string& path, const std::string& what) {
  return Status(StatusCode::kModelError, "the model's " + path + ": " + what);
}

Result<json> ReadJsonFile(const std::string& path) {
  std::error_code error;
  const uintmax_t bytes = std::filesystem::file_size(path, error);
  if (error) {
    return ModelFileError(path, error.message() +
                                    "; expected a model directory in Hugging Face layout (config.json, "
                                    "model.safetensors, tokenizer files); check --model or fetch it again");
  }
  if (bytes > kConfigBytesMax) {
    return ModelFileError(path, "larger than 1 MiB, so not a configuration; fetch the model again");
  }
  std::ifstream in(path, std::ios::binary);
  std::string text(static_cast<size_t>(bytes), '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!in) return ModelFileError(path, "cannot be read; check its permissions");
  json parsed = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (parsed.is_discarded()) return ModelFileError(path, "is not valid JSON; fetch the model again");
  return parsed;
}

Status ReadNumber(const json& object, const std::string& path, const char* key, uint32_t low, uint32_t high,
                  uint32_t* out) {
  const auto found = object.find(key);
  if (found == object.end()) return ModelFileError(path, std::string("lacks ") + key);
  if (!found->is_number_unsigned() || found->get<uint64_t>() < low || found->get<uint64_t>() > high) {
    return ModelFileError(
        path, std::string(key) + " must be a whole number from " + std::to_string(low) + " to " + std::to_string(high));
  }
  *out = found->get<uint32_t>();
  return {};
}

Result<json> ReadJsonObject(const std::string& path) {
  Result<json> read = ReadJsonFile(path);
  if (read.ok() && !read->is_object()) return ModelFileError(path, "is not a JSON object");
  return read;
}

Status OnlyKeys(const json& object, const std::string& path, std::initializer_list<std::string_view> known) {
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    return ModelFileError(path,
                          "has the setting '" + Printable(key, HighBytes::kReplace) +
                              "', which is not known here and could change the vectors; remove it if it does not");
  }
  return {};
}

std::string StringOr(const json& object, const char* key, const std::string& otherwise) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : otherwise;
}

bool IsTrue(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_boolean() && found->get<bool>();
}

}  // namespace sutra
