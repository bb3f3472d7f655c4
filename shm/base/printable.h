// Text from a peer, a file or another process, made safe for a log line or a terminal. Header-only; stateless.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "shm/base/utf8.h"

namespace sutra {

// What becomes of bytes from 0x80 on: kReplace leaves printable ASCII only; kKeep is for UTF-8 that people should read.
enum class HighBytes { kReplace, kKeep };

// `text` with '?' for every control character (U+0000 to U+001F, U+007F to U+009F), and with kKeep for every byte that
// is no UTF-8, so that nothing in it can steer a terminal or forge a second log line.
inline std::string Printable(std::string_view text, HighBytes high_bytes) {
  std::string shown(text);
  for (size_t i = 0; i < shown.size();) {
    char32_t code_point = 0;
    size_t length = 1;
    if (static_cast<unsigned char>(shown[i]) < 0x80) {
      code_point = static_cast<unsigned char>(shown[i]);
    } else if (high_bytes == HighBytes::kKeep) {
      length = Utf8SequenceLength(&shown[i], shown.size() - i, &code_point);  // 0: the code point stays 0
    }
    const bool control = code_point < 0x20 || (code_point >= 0x7f && code_point < 0xa0);
    const size_t end = i + (length == 0 ? 1 : length);
    for (; i < end; ++i) {
      if (control) shown[i] = '?';
    }
  }
  return shown;
}

// The contents of a character field: up to its first zero, or all of it.
inline std::string_view FieldView(std::span<const char> field) {
  const std::string_view whole(field.data(), field.size());
  return whole.substr(0, whole.find('\0'));
}

}  // namespace sutra
