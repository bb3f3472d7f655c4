// Input of sutra-embed: a stream of lines, each a plain text or a JSON string or object, turned into texts one by one.
//
// Thread rule: one thread owns a reader. Invariants: memory is bounded by kLineBytesMax whatever the input holds; an
// invalid line becomes an item with an error that names its line number, never a failure of the run; every line yields
// exactly one item, so outputs can be matched to inputs by position.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "shm/base/status.h"
#include "shm/base/unique_fd.h"

namespace sutra {

enum class InputFormat {
  kLines,
  kJsonl,
  kNul,  // texts that end in NUL, and may hold everything else
};
// "lines", "jsonl", "nul".
inline InputFormat InputFormatOf(std::string_view name) {
  return name == "jsonl" ? InputFormat::kJsonl : name == "nul" ? InputFormat::kNul : InputFormat::kLines;
}
// What ends a line of it.
constexpr char LineEndOf(InputFormat format) { return format == InputFormat::kNul ? '\0' : '\n'; }

struct InputItem {
  std::string text;
  uint64_t line = 0;      // counted from 1
  std::string error;      // not empty: this line has no valid text
  bool has_text = false;  // `text` is worth showing even if there is an error
};

// "line 3: WHAT", as every error of an item begins.
std::string AtLine(uint64_t number, const std::string& what);

// One line, without its newline, as an item. Lines: the text is the line's bytes. Jsonl: a JSON string, or an object
// with a string member "text"; other members are ignored. A blank line is an error there, not skipped: results are
// matched to lines by position.
InputItem ParseInputLine(InputFormat format, std::string_view line, uint64_t number);

class LineReader {
 public:
  static constexpr size_t kLineBytesMax = 64u << 20;

  // "-" reads standard input. Lines end in \n or \r\n, or in `line_end` if that is another one; a last line without
  // one counts.
  static Result<LineReader> Open(const std::string& path, char line_end = '\n');

  enum class Got { kLine, kTooLong, kNotYet, kEnd, kError };
  // Waits at most timeout_ms for a whole line (-1 = forever, 0 = takes what is there). kTooLong: the line was over
  // kLineBytesMax and is skipped as a whole. kError: `error()` has errno.
  Got Next(std::string* line, int timeout_ms);
  uint64_t line_number() const { return line_number_; }  // of the line returned last
  uint64_t bytes_taken() const { return bytes_taken_; }
  uint64_t bytes_total() const { return bytes_total_; }  // 0 when not a regular file
  int error() const { return error_; }
  int fd() const { return fd_; }

 private:
  LineReader(int fd, char line_end) : fd_(fd), line_end_(line_end) {}
  bool TakeBuffered(std::string* line, Got* got);

  int fd_;
  char line_end_;
  UniqueFd owned_;  // fd_, unless that is standard input
  bool at_end_ = false;
  bool skipping_ = false;  // inside a line that is too long
  int error_ = 0;
  std::string buffer_;
  size_t start_ = 0;    // of the first unread byte in buffer_
  size_t scanned_ = 0;  // no line end before this offset
  uint64_t line_number_ = 0;
  uint64_t bytes_taken_ = 0;
  uint64_t bytes_total_ = 0;
};

}  // namespace sutra
