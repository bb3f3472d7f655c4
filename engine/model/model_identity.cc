#include "engine/model/model_identity.h"

#include <openssl/evp.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string_view>

namespace sutra {
namespace {

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    good_ = context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1;
  }
  void Add(const void* data, size_t bytes) { good_ = good_ && EVP_DigestUpdate(context_.get(), data, bytes) == 1; }
  void AddPart(std::string_view name, std::span<const std::byte> contents) {
    const std::string head = std::string(name) + '\n' + std::to_string(contents.size()) + '\n';
    Add(head.data(), head.size());
    Add(contents.data(), contents.size());
  }
  // Empty if the library failed anywhere (out of memory, a provider that forbids SHA-256).
  std::string Hex() {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned bytes = 0;
    if (!good_ || EVP_DigestFinal_ex(context_.get(), digest, &bytes) != 1) return "";
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string hex;
    for (unsigned i = 0; i < bytes; ++i) {
      hex += kDigits[digest[i] >> 4];
      hex += kDigits[digest[i] & 15];
    }
    return hex;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
  bool good_ = false;
};

}  // namespace

Result<std::string> ComputeModelIdentity(const ModelConfig& config, std::span<const std::byte> weights,
                                         const std::string& precision, const std::string& device_class) {
  Sha256 hash;
  hash.AddPart("weights", weights);
  for (const std::string& path : config.identity_files) {
    std::ifstream in(path, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    if (in.bad() || !in.is_open()) {
      return Status(StatusCode::kModelError, "the model's " + path + " cannot be read; check its permissions");
    }
    // The place within the model counts, not where the model lies on this host.
    const std::string name = std::filesystem::path(path).lexically_relative(config.directory).string();
    hash.AddPart(name, std::as_bytes(std::span(text)));
  }
  hash.AddPart("precision", std::as_bytes(std::span(precision)));
  hash.AddPart("device", std::as_bytes(std::span(device_class)));
  std::string hex = hash.Hex();
  if (hex.empty()) return Status(StatusCode::kModelError, "libcrypto could not compute SHA-256 of the model's files");
  return hex;
}

}  // namespace sutra
