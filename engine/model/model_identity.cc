// SHA-256 over everything that determines a vector.
#include "engine/model/model_identity.h"

#include <filesystem>
#include <fstream>
#include <span>
#include <string_view>

#include "shm/base/sha256.h"

namespace sutra {
namespace {

// Name and length are hashed with the contents, so that no two models share an input.
void AddPart(std::string_view name, std::span<const std::byte> contents, Sha256* hash) {
  hash->Add(std::string(name) + '\n' + std::to_string(contents.size()) + '\n');
  hash->Add(contents);
}

}  // namespace

Result<std::string> ComputeModelIdentity(const ModelConfig& config, const std::string& weights_digest,
                                         const std::string& precision, const std::string& device_class) {
  Sha256 hash;
  AddPart("weights", std::as_bytes(std::span(weights_digest)), &hash);
  for (const std::string& path : config.identity_files) {
    std::ifstream in(path, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    if (in.bad() || !in.is_open()) {
      return Status(StatusCode::kModelError, "the model's " + path + " cannot be read; check its permissions");
    }
    // The path within the model counts, not the model's location on this host.
    const std::string name = std::filesystem::path(path).lexically_relative(config.directory).string();
    AddPart(name, std::as_bytes(std::span(text)), &hash);
  }
  AddPart("precision", std::as_bytes(std::span(precision)), &hash);
  AddPart("device", std::as_bytes(std::span(device_class)), &hash);
  return hash.FinishHex();
}

}  // namespace sutra
