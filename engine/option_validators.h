// What options accept beyond CLI11's own checks. Thread rule: as CLI11, one thread per parse.
#pragma once

#include <CLI/CLI.hpp>
#include <cmath>
#include <string>

namespace sutra {

// Accepts 0 to 0777 in octal, as chmod does.
struct OctalMode : CLI::Validator {
  OctalMode() {
    name_ = "MODE";
    func_ = [](std::string& text) -> std::string {
      const bool digits = !text.empty() && text.find_first_not_of("01234567") == std::string::npos;
      if (!digits || text.size() > 4 || std::stoul(text, nullptr, 8) > 0777) {
        return "'" + text + "' is not an octal mode from 0 to 0777";
      }
      return {};
    };
  }
};

struct PowerOfTwo : CLI::Validator {
  PowerOfTwo() {
    name_ = "POWER OF 2";
    func_ = [](std::string& text) -> std::string {
      uint64_t value = 0;
      if (!CLI::detail::lexical_cast(text, value) || value == 0 || (value & (value - 1)) != 0) {
        return "'" + text + "' is not a power of two";
      }
      return {};
    };
  }
};

// CLI::Range lets it pass: it is neither below nor above.
struct NotNan : CLI::Validator {
  NotNan() {
    func_ = [](std::string& text) -> std::string {
      double value = 0;
      const bool number = CLI::detail::lexical_cast(text, value) && !std::isnan(value);
      return number ? "" : "'" + text + "' is not a number";
    };
  }
};

}  // namespace sutra
