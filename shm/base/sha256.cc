#include "shm/base/sha256.h"

#include <openssl/evp.h>

#include "shm/base/hex.h"

namespace sutra {

struct Sha256::Context {
  EVP_MD_CTX* evp = EVP_MD_CTX_new();
  Context() = default;
  Context(const Context&) = delete;
  ~Context() { EVP_MD_CTX_free(evp); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  if (context_->evp == nullptr || EVP_DigestInit_ex(context_->evp, EVP_sha256(), nullptr) != 1) context_.reset();
}

Sha256::~Sha256() = default;

void Sha256::Add(std::span<const std::byte> bytes) {
  if (context_ != nullptr && EVP_DigestUpdate(context_->evp, bytes.data(), bytes.size()) != 1) context_.reset();
}

Result<Sha256Digest> Sha256::Finish() {
  Sha256Digest digest;
  unsigned int size = 0;
  const bool good = context_ != nullptr && EVP_DigestFinal_ex(context_->evp, digest.data(), &size) == 1;
  context_.reset();
  if (!good || size != digest.size())
    return Status(StatusCode::kModelError,
                  "libcrypto could not compute SHA-256: out of memory, or a provider that forbids it");
  return digest;
}

Result<std::string> Sha256::FinishHex() {
  const Result<Sha256Digest> digest = Finish();
  if (!digest.ok()) return digest.status();
  return ToHex(digest.value());
}

Result<std::string> Sha256Hex(std::string_view text) {
  Sha256 hash;
  hash.Add(text);
  return hash.FinishHex();
}

}  // namespace sutra
