// Hexadecimal digits, lower case. Header-only; stateless.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace sutra {

inline constexpr char kHexDigits[] = "0123456789abcdef";

// The digit's value, or -1 for a character that is not one of kHexDigits.
constexpr int HexDigitValue(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  return -1;
}

// Two digits per byte.
inline std::string ToHex(std::span<const uint8_t> bytes) {
  std::string hex;
  hex.reserve(bytes.size() * 2);
  for (const uint8_t byte : bytes) {
    hex += kHexDigits[byte >> 4];
    hex += kHexDigits[byte & 15];
  }
  return hex;
}

}  // namespace sutra
