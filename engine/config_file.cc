#include "engine/config_file.h"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <fstream>
#include <map>
#include <optional>

#include "shm/base/printable.h"

namespace sutra {
namespace {

constexpr std::string_view kBlanks = " \t";
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr std::string_view kHexDigits = "0123456789abcdef";

std::string_view Trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlanks);
  return first == text.npos ? std::string_view() : text.substr(first, text.find_last_not_of(kBlanks) + 1 - first);
}

bool IsControl(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte < 0x20 || byte == 0x7f;
}

// "2026-01-31T12:00:00..." begins each line that the engine logs.
bool IsLogLine(std::string_view line) {
  constexpr std::string_view kForm = "0000-00-00T00:00:00";
  if (line.size() < kForm.size()) return false;
  return std::equal(kForm.begin(), kForm.end(), line.begin(),
                    [](char form, char is) { return form == '0' ? is >= '0' && is <= '9' : is == form; });
}

// The byte of the HH of \xHH, or nothing.
std::optional<char> EscapedByte(std::string_view digits) {
  if (digits.size() < 2) return std::nullopt;
  const size_t high = kHexDigits.find(digits[0]), low = kHexDigits.find(digits[1]);
  if (high == kHexDigits.npos || low == kHexDigits.npos || high + low == 0) return std::nullopt;
  return static_cast<char>(high << 4 | low);
}

// Each of the two returns "cause; fix", or nothing and the value.
std::string ReadPlain(std::string_view text, std::string* value) {
  if (text.empty()) return "the value is missing; write \"\" if it is to be empty";
  if (text.find_first_of("\"'") != text.npos)
    return "a quote in a plain value; put it in double quotes, as in \"a\\\"b\"";
  if (text.find_first_of(kBlanks) != text.npos) {
    return "a blank in a plain value; put it in double quotes (a comment has a line of its own)";
  }
  *value = text;
  return {};
}

std::string ReadQuoted(std::string_view text, std::string* value) {
  assert(text.front() == '"');
  value->clear();
  for (size_t at = 1; at < text.size(); ++at) {
    if (text[at] == '"')
      return at + 1 == text.size() ? "" : "text after the closing quote; leave it out, or escape the quote: \\\"";
    if (IsControl(text[at])) return "a tab in a quoted value; write \\t";
    if (text[at] != '\\') {
      value->push_back(text[at]);
      continue;
    }
    const char escape = ++at < text.size() ? text[at] : '\0';
    const std::optional<char> byte = escape == 'x' ? EscapedByte(text.substr(at + 1)) : std::nullopt;
    if (escape == '\\' || escape == '"') {
      value->push_back(escape);
    } else if (escape == 'n' || escape == 't') {
      value->push_back(escape == 'n' ? '\n' : '\t');
    } else if (byte) {
      value->push_back(*byte);
      at += 2;
    } else {
      return "an unknown escape; use \\\\ \\\" \\n \\t, or \\x and two of 0-9a-f (not 00), and write \\\\ for a "
             "backslash";
    }
  }
  return "the quote is not closed; end the value with \"";
}

// Reads a line that has a setting.
std::string ReadSetting(std::string_view line, Setting* setting) {
  if (line.back() == '\r') return "a carriage return at the end; save the file with Unix line ends";
  if (line.front() == '[') return "options are not in sections; leave the line out";
  if (std::any_of(line.begin(), line.end(), [](char c) { return c != '\t' && IsControl(c); })) {
    return "a control character; is this a text file? Write it as \\n, \\t or \\xHH in a quoted value";
  }
  const size_t equals = line.find('=');
  if (equals == line.npos) return "this is not name=value; begin a comment with #";
  setting->name = Trimmed(line.substr(0, equals));
  if (setting->name.empty()) return "the name before '=' is missing; write name=value";
  const std::string_view value = Trimmed(line.substr(equals + 1));
  const bool quoted = !value.empty() && value.front() == '"';
  const std::string why = quoted ? ReadQuoted(value, &setting->value) : ReadPlain(value, &setting->value);
  return why.empty() ? why : "'" + Printable(setting->name, HighBytes::kReplace) + "': " + why;
}

}  // namespace

Status BadLine(const std::string& path, size_t line, const std::string& why) {
  return Status(StatusCode::kBadOption, path + ":" + std::to_string(line) + ": " + why);
}

Result<std::vector<Setting>> ReadSettings(std::istream& input, const std::string& path) {
  std::vector<Setting> settings;
  std::map<std::string, size_t> lines;
  std::string text;
  for (size_t number = 1; std::getline(input, text); ++number) {
    std::string_view line = text;
    if (number == 1 && line.starts_with(kByteOrderMark)) line.remove_prefix(kByteOrderMark.size());
    if (IsLogLine(line)) continue;
    line = Trimmed(line);
    if (line.empty() || line.front() == '#') continue;
    Setting setting;
    setting.line = number;
    if (const std::string why = ReadSetting(line, &setting); !why.empty()) return BadLine(path, number, why);
    if (const auto [before, first] = lines.emplace(setting.name, number); !first) {
      return BadLine(path, number,
                     "'" + Printable(setting.name, HighBytes::kReplace) + "' was given in line " +
                         std::to_string(before->second) + " before; leave one of them out");
    }
    settings.push_back(std::move(setting));
  }
  if (input.bad()) return Status(StatusCode::kBadOption, path + ": cannot be read; is it a file?");
  return settings;
}

Result<std::vector<Setting>> ReadSettingsFile(const std::string& path) {
  errno = 0;
  std::ifstream input(path, std::ios::binary);
  if (!input) return Status::FromErrno(StatusCode::kBadOption, path + ": the file of --config cannot be opened", errno);
  return ReadSettings(input, path);
}

std::string SettingLine(std::string_view name, std::string_view value) {
  std::string line = std::string(name) + "=";
  const bool number = !value.empty() && value.find_first_not_of("0123456789") == value.npos;
  if (number || value == "true" || value == "false") return line.append(value);
  line += '"';
  for (const char c : value) {
    if (c == '\\' || c == '"') {
      line += {'\\', c};
    } else if (c == '\n' || c == '\t') {
      line += {'\\', c == '\n' ? 'n' : 't'};
    } else if (IsControl(c)) {
      line += {'\\', 'x', kHexDigits[static_cast<unsigned char>(c) >> 4], kHexDigits[c & 15]};
    } else {
      line += c;
    }
  }
  return line + '"';
}

}  // namespace sutra
