// One JSON object as text, field by field. Not a library's: nlohmann's allocates in its destructors, so memory that is
// short would end the engine. Header-only. Thread rule: one thread per object.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "shm/base/printable.h"

namespace sutra {

class JsonObject {
 public:
  // `value` is JSON already.
  void Raw(const char* name, std::string_view value) {
    text_.append(text_.size() == 1 ? "\"" : ",\"").append(name).append("\":").append(value);
  }
  void Number(const char* name, uint64_t value) { Raw(name, std::to_string(value)); }
  void Flag(const char* name, bool value) { Raw(name, value ? "true" : "false"); }
  // Control characters, and what is no UTF-8, become '?'.
  void Text(const char* name, std::string_view value) {
    std::string quoted = "\"";
    for (const char c : Printable(value, HighBytes::kKeep)) {
      if (c == '"' || c == '\\') quoted += '\\';
      quoted += c;
    }
    Raw(name, quoted + "\"");
  }
  std::string Take() && { return std::move(text_) + "}"; }

 private:
  std::string text_ = "{";
};

}  // namespace sutra
