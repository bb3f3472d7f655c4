// The two writers of sutra-embed's results: JSON lines as they come, and a NumPy file as a whole.
#include "tools/lib/vector_output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cerrno>
#include <cmath>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "tools/lib/output_file.h"
#include "tools/lib/program.h"

namespace sutra {

namespace {

static_assert(std::endian::native == std::endian::little, "the NumPy header says little endian");

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

  std::string Unwritten() const override {
    const std::string& rest = file_.buffer();
    if (rest.empty()) return "";
    return fmt::format("; the output took nothing more: its last {} lines ({} bytes) are not written",
                       std::count(rest.begin(), rest.end(), '\n'), rest.size());
  }

 private:
  OutputFile file_;
};

// The header is written last, when the number of rows is known, and then the file gets its name.
class NpyWriter final : public ResultWriter {
 public:
  NpyWriter(std::unique_ptr<WholeFile> whole, uint32_t width)
      : whole_(std::move(whole)), file_(whole_->file()), width_(width) {
    file_.buffer().assign(kHeaderBytes, ' ');
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
      return Status::FromErrno(StatusCode::kStorageError, "writing the header of the NumPy file", errno);
    }
    return whole_->Publish();
  }

  std::string Unwritten() const override {
    const std::optional<uint64_t> copied = whole_->copied();
    if (!copied) return "";
    return fmt::format("; the output took {} of the {} bytes of the NumPy file", *copied, file_.written());
  }

 private:
  static constexpr size_t kHeaderBytes = 128;  // a multiple of 64, as the format asks

  const std::unique_ptr<WholeFile> whole_;
  OutputFile& file_;
  size_t rows_ = 0;
  const size_t width_;
};

class NoWriter final : public ResultWriter {
 public:
  Status Vector(const InputItem&, std::span<const float>) override { return {}; }
  Status Ids(const InputItem&, std::span<const int32_t>) override { return {}; }
  Status Error(const InputItem&, const std::string& error) override {
    if (shown_ < kShownMax) SayAsIs(error + "\n");
    if (shown_++ == kShownMax) SayAsIs("...\n");
    return {};
  }
  Status Flush() override { return {}; }
  Status Finish() override { return {}; }
  std::string Unwritten() const override { return ""; }

 private:
  static constexpr uint64_t kShownMax = 10;
  uint64_t shown_ = 0;
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

Result<std::unique_ptr<ResultWriter>> OpenNoWriter() { return std::unique_ptr<ResultWriter>(new NoWriter()); }

Result<std::unique_ptr<ResultWriter>> OpenJsonlWriter(const std::string& path, int input_fd) {
  Result<OutputFile> file = OutputFile::Open(path, input_fd);
  if (!file.ok()) return file.status();
  return std::unique_ptr<ResultWriter>(new JsonlWriter(std::move(file).value()));
}

Result<std::unique_ptr<ResultWriter>> OpenNpyWriter(const std::string& path, uint32_t width, int input_fd) {
  Result<std::unique_ptr<WholeFile>> file = WholeFile::Open(path, input_fd);
  if (!file.ok()) return file.status();
  return std::unique_ptr<ResultWriter>(new NpyWriter(std::move(file).value(), width));
}

}  // namespace sutra
