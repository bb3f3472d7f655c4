// The NumPy header is the one that export writes, and what numpy.save writes for such an array.
#include "tools/cache/import_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "shm/base/crc32c.h"
#include "tools/lib/program.h"

namespace sutra {

namespace {

constexpr int kLookAroundMs = 50;  // a blocked read of input looks this often for an interruption
constexpr size_t kMagicBytes = 10;
constexpr size_t kNpyHeaderBytesMax = 4096;
constexpr size_t kChunkBytes = 1u << 20;

bool IsDirectory(const std::string& path) {
  struct stat info = {};
  return path != "-" && stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

// False at the end of the file, or where it cannot be read.
bool ReadAt(int file, uint64_t offset, void* into, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t got = pread(file, static_cast<char*>(into) + done, bytes - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    done += static_cast<size_t>(got);
  }
  return true;
}

// Where the first row is, and how many there are.
Status ParseNpyHeader(int file, uint32_t width, uint64_t* start, uint64_t* rows) {
  const Status wrong(StatusCode::kBadOption, "it is no NumPy file of float32 (little-endian, C order) with " +
                                                 std::to_string(width) + " columns");
  char magic[kMagicBytes];
  if (!ReadAt(file, 0, magic, sizeof(magic)) || std::memcmp(magic, "\x93NUMPY\x01\x00", 8) != 0) return wrong;
  const size_t bytes = static_cast<unsigned char>(magic[8]) | static_cast<size_t>(static_cast<unsigned char>(magic[9]))
                                                                  << 8;
  if (bytes > kNpyHeaderBytesMax) return wrong;
  std::string text(bytes, '\0');
  if (!ReadAt(file, kMagicBytes, text.data(), bytes)) return wrong;
  std::erase(text, ' ');
  const size_t shape = text.find("'shape':(");
  if (text.find("'descr':'<f4'") == std::string::npos || text.find("'fortran_order':False") == std::string::npos ||
      shape == std::string::npos) {
    return wrong;
  }
  unsigned long long height = 0, floats = 0;
  if (std::sscanf(text.c_str() + shape, "'shape':(%llu,%llu)", &height, &floats) != 2 || floats != width) return wrong;
  *start = kMagicBytes + bytes;
  *rows = height;
  return {};
}

}  // namespace

Result<ImportSource> ImportSource::Open(const std::string& path) {
  const bool npy = IsDirectory(path);
  const std::string texts = npy ? path + "/texts.jsonl" : path;
  Result<LineReader> lines = LineReader::Open(texts);
  if (!lines.ok()) return lines.status();
  ImportSource source(std::move(*lines), texts);
  if (Status status = source.ReadHeader(); !status.ok()) return status;
  if (!npy) return source;
  if (Status status = source.OpenRows(path); !status.ok()) return status;
  if (Status status = source.CheckRows(texts); !status.ok()) return status;
  return source;
}

LineReader::Got ImportSource::NextLine(std::string* line) {
  for (;;) {
    const LineReader::Got got = lines_.Next(line, kLookAroundMs);
    if (got != LineReader::Got::kNotYet || InterruptedBy() != 0) return got;
  }
}

Status ImportSource::ReadHeader() {
  std::string line;
  const LineReader::Got got = NextLine(&line);
  if (got == LineReader::Got::kNotYet) return Status(StatusCode::kCancelled, "interrupted");
  if (got == LineReader::Got::kError) {
    return Status::FromErrno(StatusCode::kStorageError, "reading " + path_, lines_.error());
  }
  const Result<ExportHeader> header = ParseExportHeader(got == LineReader::Got::kLine ? line : "");
  if (!header.ok()) return Status(header.code(), path_ + ": " + header.status().message());
  header_ = *header;
  return {};
}

Status ImportSource::OpenRows(const std::string& directory) {
  const std::string path = directory + "/vectors.npy";
  Rows rows;
  rows.file.reset(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!rows.file) return Status::FromErrno(StatusCode::kBadOption, "opening " + path, errno);
  const Status status = ParseNpyHeader(rows.file.get(), header_.width, &rows.start, &rows.rows);
  if (!status.ok()) return Status(status.code(), path + ": " + status.message());
  rows_ = std::move(rows);
  return {};
}

// The two files could be of two exports, or one of them half a copy.
Status ImportSource::CheckRows(const std::string& texts) {
  Result<LineReader> lines = LineReader::Open(texts);
  if (!lines.ok()) return lines.status();
  std::string line;
  std::optional<ExportEnd> end;
  for (LineReader::Got got; (got = lines->Next(&line, -1)) != LineReader::Got::kEnd;) {
    if (InterruptedBy() != 0) return Status(StatusCode::kCancelled, "interrupted");
    if (got == LineReader::Got::kError) {
      return Status::FromErrno(StatusCode::kStorageError, "reading " + texts, lines->error());
    }
    if (got == LineReader::Got::kLine) end = ParseExportEnd(line);
  }
  uint32_t crc = 0;
  std::vector<char> chunk(kChunkBytes);
  const uint64_t total = rows_->rows * header_.width * sizeof(float);
  for (uint64_t done = 0; done < total;) {
    const size_t bytes = std::min<uint64_t>(chunk.size(), total - done);
    if (InterruptedBy() != 0) return Status(StatusCode::kCancelled, "interrupted");
    if (!ReadAt(rows_->file.get(), rows_->start + done, chunk.data(), bytes)) break;
    crc = Crc32c(chunk.data(), bytes, crc);
    done += bytes;
  }
  if (end && end->entries == rows_->rows && end->vectors_crc32c == crc) return {};
  return Status(StatusCode::kBadOption,
                texts + " and the vectors.npy beside it do not belong together, or one of them is damaged");
}

Status ImportSource::ReadRow(std::vector<float>* vector) {
  const uint64_t bytes = uint64_t{header_.width} * sizeof(float);
  vector->resize(header_.width);
  if (taken_ <= rows_->rows && ReadAt(rows_->file.get(), rows_->start + (taken_ - 1) * bytes, vector->data(), bytes)) {
    return {};
  }
  return Status(StatusCode::kBadOption, "there is no row for it in vectors.npy");
}

std::optional<Result<CacheEntry>> ImportSource::Next() {
  if (ended_) return std::nullopt;
  std::string line;
  switch (NextLine(&line)) {
    case LineReader::Got::kNotYet: return Result<CacheEntry>(Status(StatusCode::kCancelled, "interrupted"));
    case LineReader::Got::kEnd: ended_ = true; return std::nullopt;
    case LineReader::Got::kError:
      ended_ = true;
      return Result<CacheEntry>(Status::FromErrno(StatusCode::kStorageError, "reading " + path_, lines_.error()));
    case LineReader::Got::kTooLong:
      ++taken_;
      return Result<CacheEntry>(Status(StatusCode::kBadOption, AtLine(lines_.line_number(), "it is too long")));
    case LineReader::Got::kLine: break;
  }
  if (const std::optional<ExportEnd> end = ParseExportEnd(line)) {
    ended_ = true;
    whole_ = end->entries == taken_;
    return std::nullopt;
  }
  ++taken_;
  Result<CacheEntry> entry = ParseExportLine(line, rows_ ? 0 : header_.width);
  if (entry.ok() && rows_) {
    if (Status status = ReadRow(&entry->vector); !status.ok()) entry = status;
  }
  if (entry.ok()) return entry;
  return Result<CacheEntry>(Status(StatusCode::kBadOption, AtLine(lines_.line_number(), entry.status().message())));
}

}  // namespace sutra
