// SHA-256 from libcrypto, whose headers only sha256.cc includes. Thread rule: one thread per object.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "shm/base/status.h"

namespace sutra {

using Sha256Digest = std::array<uint8_t, 32>;

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Add(std::span<const std::byte> bytes);
  void Add(std::string_view text) { Add(std::as_bytes(std::span(text))); }

  // The digest of everything added; call it once, last. kModelError if the library failed at any step (out of memory, a
  // provider that forbids SHA-256).
  Result<Sha256Digest> Finish();
  // The same as 64 hexadecimal digits.
  Result<std::string> FinishHex();

 private:
  struct Context;
  std::unique_ptr<Context> context_;  // empty after a failure
};

Result<std::string> Sha256Hex(std::string_view text);

}  // namespace sutra
