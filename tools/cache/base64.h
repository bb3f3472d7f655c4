// Base64 (RFC 4648, with padding). Header-only; stateless.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sutra {

inline constexpr char kBase64Digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

inline std::string ToBase64(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t at = 0; at < bytes.size(); at += 3) {
    const auto byte = [&](size_t i) -> uint32_t {
      return at + i < bytes.size() ? static_cast<unsigned char>(bytes[at + i]) : 0;
    };
    const uint32_t bits = byte(0) << 16 | byte(1) << 8 | byte(2);
    for (size_t i = 0; i < 4; ++i) {
      text += at + i > bytes.size() ? '=' : kBase64Digits[bits >> (18 - 6 * i) & 63];
    }
  }
  return text;
}

// Nothing if `text` is not what ToBase64 makes of some bytes.
inline std::optional<std::string> FromBase64(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  const auto value = [](char c) -> int {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
  };
  size_t padding = 0;
  while (padding < 2 && padding < text.size() && text[text.size() - 1 - padding] == '=') ++padding;
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3);
  for (size_t at = 0; at < text.size(); at += 4) {
    uint32_t bits = 0;
    for (size_t i = 0; i < 4; ++i) {
      const bool padded = at + i >= text.size() - padding;
      const int digit = padded ? 0 : value(text[at + i]);
      if (digit < 0) return std::nullopt;
      bits = bits << 6 | static_cast<uint32_t>(digit);
    }
    for (int i = 16; i >= 0; i -= 8) bytes += static_cast<char>(bits >> i & 255);
  }
  bytes.resize(bytes.size() - padding);
  if (ToBase64(bytes) != text) return std::nullopt;  // bits under the padding
  return bytes;
}

}  // namespace sutra
