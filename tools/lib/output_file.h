// Where a tool writes its results: a buffered output, and a file that appears under its name only as a whole.
//
// Thread rule: one thread owns an output. Invariants: no output is the file that the input is read from; a device, FIFO
// or socket is written, never replaced or removed; after a failed write nothing more is written.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "shm/base/status.h"
#include "shm/base/unique_fd.h"

namespace sutra {

// A buffered descriptor. Standard output is not closed.
class OutputFile {
 public:
  // "-" is standard output; a file is emptied. `input_fd`: refuse the file that is read there (-1: there is none).
  // kCancelled: interrupted while a FIFO had no reader.
  static Result<OutputFile> Open(const std::string& path, int input_fd = -1);
  OutputFile(UniqueFd fd, std::string name) : fd_(fd.get()), owned_(std::move(fd)), name_(std::move(name)) {}

  std::string& buffer() { return buffer_; }
  const std::string& buffer() const { return buffer_; }
  int fd() const { return fd_; }
  uint64_t written() const { return written_; }  // bytes
  Status Spill() { return buffer_.size() < kFlushBytes ? Status() : Flush(); }
  // kCancelled: interrupted while the output took nothing; the buffer holds what was not written.
  Status Flush();

  static constexpr size_t kFlushBytes = 1 << 20;

 private:
  int fd_;
  UniqueFd owned_;  // fd_, unless that is standard output
  std::string name_;
  std::string buffer_;
  uint64_t written_ = 0;
  Status failed_;
};

// Written beside its place, or where nothing sees it, and then renamed over nothing or over a regular file, whose mode
// it takes and whose links it follows. What cannot be replaced (standard output, a device, a FIFO) gets a copy.
class WholeFile {
 public:
  static Result<std::unique_ptr<WholeFile>> Open(const std::string& path, int input_fd = -1);
  ~WholeFile();
  WholeFile(const WholeFile&) = delete;
  WholeFile& operator=(const WholeFile&) = delete;

  OutputFile& file() { return file_; }
  Status Publish();  // the file has to be flushed
  // Bytes that were copied, where there is no name to appear under.
  std::optional<uint64_t> copied() const;

 private:
  WholeFile(OutputFile file, std::string temporary, std::string place, std::optional<OutputFile> copy)
      : file_(std::move(file)), temporary_(std::move(temporary)), place_(std::move(place)), copy_(std::move(copy)) {}
  static Result<std::unique_ptr<WholeFile>> OpenBeside(const std::string& place, const struct stat* old);
  static Result<std::unique_ptr<WholeFile>> OpenUnseen(OutputFile copy);
  Status Copy();

  OutputFile file_;
  std::string temporary_;  // its name, while it has one of its own
  std::string place_;      // the name that it gets
  std::optional<OutputFile> copy_;
};

}  // namespace sutra
