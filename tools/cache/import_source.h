// What import reads: the entries of an export, one by one, from a file of JSON lines or from the two files of the NumPy
// form, whose vectors are checked as a whole before the first entry comes.
//
// Thread rule: one thread. Memory is bounded by the longest line; whatever the files hold, Next gives whole entries or
// says what is wrong with a line.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cache/cache_admin.h"
#include "shm/base/status.h"
#include "shm/base/unique_fd.h"
#include "tools/cache/export_format.h"
#include "tools/lib/text_input.h"

namespace sutra {

class ImportSource {
 public:
  // "-": standard input; a directory: the NumPy form.
  static Result<ImportSource> Open(const std::string& path);

  const ExportHeader& header() const { return header_; }
  // An entry, or what is wrong with its line (kBadOption, with the line's number); nothing at the end. Any other error
  // ends it: kCancelled is an interruption.
  std::optional<Result<CacheEntry>> Next();
  // Whether the last line was there, and said so many entries as there were lines.
  bool whole() const { return whole_; }
  uint64_t line_number() const { return lines_.line_number(); }  // of the last one
  uint64_t bytes_taken() const { return lines_.bytes_taken(); }
  uint64_t bytes_total() const { return lines_.bytes_total(); }

 private:
  struct Rows {
    UniqueFd file;
    uint64_t start = 0;  // of the first row
    uint64_t rows = 0;
  };
  ImportSource(LineReader lines, std::string path) : lines_(std::move(lines)), path_(std::move(path)) {}
  LineReader::Got NextLine(std::string* line);
  Status ReadHeader();
  Status OpenRows(const std::string& directory);
  Status CheckRows(const std::string& texts);
  Status ReadRow(std::vector<float>* vector);

  LineReader lines_;
  std::string path_;
  ExportHeader header_;
  std::optional<Rows> rows_;
  uint64_t taken_ = 0;  // lines with an entry
  bool whole_ = false;
  bool ended_ = false;
};

}  // namespace sutra
