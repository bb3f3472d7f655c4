// Splits a descriptor's bytes into lines, and parses a line into an item.
#include "tools/lib/text_input.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "shm/base/utf8.h"

namespace sutra {

namespace {

constexpr size_t kReadBytes = 256 << 10;
constexpr const char* kNotUtf8 = "invalid UTF-8; if the input is Latin-1 or UTF-16, convert it first (iconv -t UTF-8)";

// Why a line is not JSON, as the parser says it: "at byte 17: invalid literal". The parser's own text names a kind, a
// number and its last token around that.
std::string WhyNotJson(std::string_view line) {
  if (line.find_first_not_of(" \t") == std::string_view::npos) return "blank line; expected a JSON string or object";
  if (!IsValidUtf8(line)) return kNotUtf8;
  try {
    [[maybe_unused]] const auto json = nlohmann::json::parse(line);
  } catch (const nlohmann::json::parse_error& error) {
    const std::string what = error.what();
    const std::string at = "invalid JSON at byte " + std::to_string(error.byte);
    if (what.find("surrogate") != std::string::npos) {
      return at +
             ": half of a surrogate pair (\\ud800 to \\udfff come as two, high then low); it names no character, "
             "and no text in UTF-8 can hold it";
    }
    const size_t detail =
        what.find(" - ");  // behind "[json.exception...] parse error at line 1, column 9: syntax error ..."
    const size_t last = what.find("; last read");
    if (detail == std::string::npos) return at;
    return at + ": " + what.substr(detail + 3, last == std::string::npos ? last : last - detail - 3);
  }
  return "invalid JSON";
}

InputItem ParseJsonLine(std::string_view line, uint64_t number) {
  InputItem item;
  item.line = number;
  const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  const nlohmann::json* text = nullptr;
  if (json.is_string()) text = &json;
  if (json.is_object() && json.contains("text") && json["text"].is_string()) text = &json["text"];
  if (text != nullptr) {
    item.text = text->get<std::string>();
    item.has_text = true;
  } else if (json.is_discarded()) {
    item.error = AtLine(number, WhyNotJson(line));
  } else {
    item.error = AtLine(number, "expected a JSON string or an object with a string member \"text\"");
  }
  return item;
}

}  // namespace

std::string AtLine(uint64_t number, const std::string& what) { return "line " + std::to_string(number) + ": " + what; }

InputItem ParseInputLine(InputFormat format, std::string_view line, uint64_t number) {
  if (format == InputFormat::kJsonl) return ParseJsonLine(line, number);
  InputItem item;
  item.line = number;
  item.text = line;
  item.has_text = true;
  if (!IsValidUtf8(line)) item.error = AtLine(number, kNotUtf8);
  return item;
}

Result<LineReader> LineReader::Open(const std::string& path, char line_end) {
  if (path == "-") return LineReader(STDIN_FILENO, line_end);
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return Status::FromErrno(StatusCode::kBadOption, "opening input " + path, errno);
  struct stat info {};
  if (fstat(fd.get(), &info) == 0 && S_ISDIR(info.st_mode)) {
    return Status(StatusCode::kBadOption, "input " + path + " is a directory");
  }
  LineReader reader(fd.get(), line_end);
  reader.owned_ = std::move(fd);
  if (S_ISREG(info.st_mode)) reader.bytes_total_ = static_cast<uint64_t>(info.st_size);
  return reader;
}

// Takes a line that is complete in the buffer; false when more bytes are needed first.
bool LineReader::TakeBuffered(std::string* line, Got* got) {
  const size_t found = buffer_.find(line_end_, scanned_);
  const bool whole = found != std::string::npos;
  if (!whole && !(at_end_ && (start_ < buffer_.size() || skipping_))) {
    scanned_ = buffer_.size();
    if (buffer_.size() - start_ > kLineBytesMax) {
      bytes_taken_ += buffer_.size() - start_;
      buffer_.clear();
      start_ = scanned_ = 0;
      skipping_ = true;
    }
    return false;
  }
  const size_t end = whole ? found : buffer_.size();
  line->assign(buffer_, start_, end - start_);
  if (line_end_ == '\n' && !line->empty() && line->back() == '\r') line->pop_back();
  const size_t next = whole ? end + 1 : end;
  bytes_taken_ += next - start_;
  start_ = scanned_ = next;
  ++line_number_;
  *got = std::exchange(skipping_, false) ? Got::kTooLong : Got::kLine;
  if (*got == Got::kTooLong) line->clear();
  return true;
}

LineReader::Got LineReader::Next(std::string* line, int timeout_ms) {
  for (;;) {
    Got got;
    if (TakeBuffered(line, &got)) return got;
    if (at_end_) return Got::kEnd;
    pollfd ready{fd_, POLLIN, 0};
    const int polled = poll(&ready, 1, timeout_ms);
    if (polled == 0 || (polled < 0 && errno == EINTR)) return Got::kNotYet;  // a signal lets the caller look around
    buffer_.erase(0, start_);
    scanned_ -= start_;
    start_ = 0;
    const size_t filled = buffer_.size();
    assert(filled <= kLineBytesMax + kReadBytes);
    buffer_.resize(filled + kReadBytes);
    const ssize_t bytes = read(fd_, buffer_.data() + filled, kReadBytes);
    const int read_error = errno;
    buffer_.resize(filled + static_cast<size_t>(bytes > 0 ? bytes : 0));
    if (bytes < 0 && (read_error == EINTR || read_error == EAGAIN)) continue;
    if (bytes < 0) {
      error_ = read_error;
      return Got::kError;
    }
    if (bytes == 0) at_end_ = true;
  }
}

}  // namespace sutra
