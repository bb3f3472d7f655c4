// The file of --config: reads and writes its lines. A line is blank, a comment (its first character that is not a blank
// is '#'), a line of the engine's log, or a setting: name=value. A value is plain or quoted. A plain one has no blanks
// (those around it are not part of it), no quotes and no control characters, and is not empty. A quoted one stands
// between two '"' and has the escapes \\ \" \n \t and \xHH (a byte but zero); it has no other control characters.
// Anything else is an error that names the file and the line. Which names there are, and what they may be set to, is
// for config.cc to say.
//
// Stateless and thread-safe. Invariants:
// - What SettingLine writes is one line that ReadSettings reads back as the same name and value, whatever the value is,
//   if it has no zero bytes.
#pragma once

#include <cstddef>
#include <istream>
#include <string>
#include <string_view>
#include <vector>

#include "shm/base/status.h"

namespace sutra {

struct Setting {
  size_t line = 0;  // counted from 1
  std::string name;
  std::string value;
};

// The settings in the order of the file, each name once. Errors (kBadOption) begin with "PATH:LINE: ", or with "PATH: "
// where the file cannot be read.
Result<std::vector<Setting>> ReadSettings(std::istream& input, const std::string& path);
Result<std::vector<Setting>> ReadSettingsFile(const std::string& path);

// Without the newline. Numbers, true and false are plain, all other values quoted.
std::string SettingLine(std::string_view name, std::string_view value);

// The error that every line of the file can have; `why` is "cause; fix".
Status BadLine(const std::string& path, size_t line, const std::string& why);

}  // namespace sutra
