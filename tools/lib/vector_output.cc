// The two writers of sutra-embed's results: JSON lines as they come, and a NumPy file as a whole.
#include "tools/lib/vector_output.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cassert>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "shm/base/unique_fd.h"

namespace sutra {

namespace {

static_assert(std::endian::native == std::endian::little, "the NumPy header says little endian");

constexpr size_t kFlushBytes = 1 << 20;

// A buffered descriptor. Standard output is not closed.
class OutputFile {
 public:
  OutputFile(UniqueFd fd, std::string path) : fd_(fd.get()), owned_(std::move(fd)), path_(std::move(path)) {}
  static OutputFile StandardOutput() {
    OutputFile file(UniqueFd(), "standard output");
    file.fd_ = STDOUT_FILENO;
    return file;
  }

  std::string& buffer() { return buffer_; }
  int fd() const { return fd_; }
  Status Spill() { return buffer_.size() < kFlushBytes ? Status() : Flush(); }
  Status Flush() {
    size_t done = 0;
    while (done < buffer_.size()) {
      const ssize_t written = write(fd_, buffer_.data() + done, buffer_.size() - done);
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return Status::FromErrno(StatusCode::kStorageError, "writing " + path_, errno);
      done += static_cast<size_t>(written);
    }
    buffer_.clear();
    return Status();
  }

 private:
  int fd_;
  UniqueFd owned_;  // fd_, unless that is standard output
  std::string path_;
  std::string buffer_;
};

Result<OutputFile> OpenOutput(const std::string& path) {
  if (path == "-") return OutputFile::StandardOutput();
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (!fd) return Status::FromErrno(StatusCode::kBadOption, "opening output " + path, errno);
  return OutputFile(std::move(fd), path);
}

class JsonlWriter final : public ResultWriter {
 public:
  explicit JsonlWriter(OutputFile file) : file_(std::move(file)) {}

  Status Vector(const InputItem& item, std::span<const float> vector) override {
    std::string& out = file_.buffer();
    out += "{\"text\":" + JsonText(item.text) + ",\"vector\":";
    AppendVector(vector, &out);
    out += "}\n";
    return file_.Spill();
  }

  Status Ids(const InputItem& item, std::span<const int32_t> ids) override {
    std::string& out = file_.buffer();
    out += "{\"text\":" + JsonText(item.text) + ",\"ids\":[";
    for (size_t i = 0; i < ids.size(); ++i) fmt::format_to(std::back_inserter(out), "{}{}", i == 0 ? "" : ",", ids[i]);
    out += "]}\n";
    return file_.Spill();
  }

  Status Error(const InputItem& item, const std::string& error) override {
    file_.buffer() += "{\"text\":" + (item.has_text ? JsonText(item.text) : std::string("null")) +
                      ",\"error\":" + JsonText(error) + "}\n";
    return file_.Spill();
  }

  Status Flush() override { return file_.Flush(); }
  Status Finish() override { return file_.Flush(); }

 private:
  OutputFile file_;
};

// Rows go to a file beside the target (or an unnamed one for standard output); the header is written last, when the
// number of rows is known, and then the file gets its name.
class NpyWriter final : public ResultWriter {
 public:
  NpyWriter(OutputFile file, std::string temporary, std::string target, uint32_t width)
      : file_(std::move(file)), temporary_(std::move(temporary)), target_(std::move(target)), width_(width) {
    file_.buffer().assign(kHeaderBytes, ' ');
  }
  ~NpyWriter() override {
    if (!temporary_.empty()) unlink(temporary_.c_str());
  }

  Status Vector(const InputItem&, std::span<const float> vector) override {
    assert(vector.size() == width_);
    const auto bytes = std::as_bytes(vector);
    file_.buffer().append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    ++rows_;
    return file_.Spill();
  }

  Status Ids(const InputItem&, std::span<const int32_t>) override {
    return Status(StatusCode::kBadOption, "token ids have no NumPy form: use --output-format jsonl");
  }

  Status Error(const InputItem& item, const std::string&) override {
    return Vector(item, std::vector<float>(width_, std::numeric_limits<float>::quiet_NaN()));
  }

  Status Flush() override { return Status(); }

  Status Finish() override {
    if (Status status = file_.Flush(); !status.ok()) return status;
    std::string header("\x93NUMPY\x01\x00", 8);
    const std::string shape =
        fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows_, width_);
    header += static_cast<char>((kHeaderBytes - 10) & 0xff);
    header += static_cast<char>((kHeaderBytes - 10) >> 8);
    header += shape;
    header.resize(kHeaderBytes - 1, ' ');
    header += '\n';
    if (pwrite(file_.fd(), header.data(), header.size(), 0) != static_cast<ssize_t>(header.size())) {
      return Status::FromErrno(StatusCode::kStorageError, "writing " + target_, errno);
    }
    if (target_ == "-") return CopyToStandardOutput();
    if (rename(temporary_.c_str(), target_.c_str()) != 0) {
      return Status::FromErrno(StatusCode::kStorageError, "renaming " + temporary_ + " to " + target_, errno);
    }
    temporary_.clear();
    return Status();
  }

 private:
  static constexpr size_t kHeaderBytes = 128;  // a multiple of 64, as the format asks

  Status CopyToStandardOutput() {
    OutputFile out = OutputFile::StandardOutput();
    off_t offset = 0;
    for (;;) {
      out.buffer().resize(kFlushBytes);
      const ssize_t bytes = pread(file_.fd(), out.buffer().data(), kFlushBytes, offset);
      if (bytes < 0) return Status::FromErrno(StatusCode::kStorageError, "reading back the vectors", errno);
      out.buffer().resize(static_cast<size_t>(bytes));
      if (Status status = out.Flush(); !status.ok() || bytes == 0) return status;
      offset += bytes;
    }
  }

  OutputFile file_;
  std::string temporary_;
  std::string target_;
  size_t rows_ = 0;
  const size_t width_;
};

}  // namespace

std::string JsonText(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void AppendVector(std::span<const float> vector, std::string* out) {
  out->reserve(out->size() + vector.size() * 14);
  *out += '[';
  char number[32];
  for (size_t i = 0; i < vector.size(); ++i) {
    if (i != 0) *out += ',';
    if (vector[i] == 0 && std::signbit(vector[i])) {
      *out += "-0.0";  // "-0" would be read as an integer and lose its sign
      continue;
    }
    const char* end = fmt::format_to(number, "{}", vector[i]);  // one field: twice as fast as two
    out->append(number, static_cast<size_t>(end - number));
  }
  *out += ']';
}

Result<std::unique_ptr<ResultWriter>> OpenJsonlWriter(const std::string& path) {
  Result<OutputFile> file = OpenOutput(path);
  if (!file.ok()) return file.status();
  return std::unique_ptr<ResultWriter>(new JsonlWriter(std::move(file).value()));
}

Result<std::unique_ptr<ResultWriter>> OpenNpyWriter(const std::string& path, uint32_t width) {
  const char* const shared_tmp = getenv("TMPDIR");
  std::string temporary = path != "-"
                              ? path + ".XXXXXX"
                              : std::string(shared_tmp != nullptr ? shared_tmp : P_tmpdir) + "/sutra-embed.XXXXXX";
  UniqueFd fd(mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd) return Status::FromErrno(StatusCode::kBadOption, "opening output " + temporary, errno);
  if (path == "-") {
    unlink(temporary.c_str());
    temporary.clear();
  } else {
    const mode_t mask = umask(0);  // mkostemp makes 0600; give the file the mode that open would have given
    umask(mask);
    if (fchmod(fd.get(), 0666 & ~mask) != 0)
      return Status::FromErrno(StatusCode::kStorageError, "mode of " + temporary, errno);
  }
  return std::unique_ptr<ResultWriter>(new NpyWriter(OutputFile(std::move(fd), path), temporary, path, width));
}

}  // namespace sutra
