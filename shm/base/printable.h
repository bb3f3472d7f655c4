// Text from a peer, a file or another process, made safe for a log line or a terminal. Header-only; stateless.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace sutra {

// What becomes of bytes from 0x80 on: kReplace leaves printable ASCII only; kKeep is for UTF-8 that people should read.
enum class HighBytes { kReplace, kKeep };

// `text` with '?' for every control character (0x00 to 0x1f, 0x7f), so that nothing in it can steer a terminal or forge
// a second log line.
inline std::string Printable(std::string_view text, HighBytes high_bytes) {
  std::string shown(text);
  for (char& c : shown) {
    const auto byte = static_cast<unsigned char>(c);
    const bool high = byte >= 0x80;
    if (byte < 0x20 || byte == 0x7f || (high && high_bytes == HighBytes::kReplace)) c = '?';
  }
  return shown;
}

// The contents of a character field: up to its first zero, or all of it.
inline std::string_view FieldView(std::span<const char> field) {
  const std::string_view whole(field.data(), field.size());
  return whole.substr(0, whole.find('\0'));
}

}  // namespace sutra
