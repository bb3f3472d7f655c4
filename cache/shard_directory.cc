// The MODEL file, and what is created and removed before recovery reads.
#include "cache/shard_directory.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <string_view>
#include <vector>

#include "cache/disk/disk_io.h"
#include "cache/wal/wal_format.h"
#include "shm/base/hex.h"

namespace sutra {
namespace {

constexpr size_t kDirectoryDigits = 16;
constexpr uint64_t kMiB = 1u << 20;
constexpr std::string_view kAside = ".quarantined";

std::string ModelText(const ShardDirectory& directory) {
  std::string name = directory.model_name;
  std::replace(name.begin(), name.end(), '\n', ' ');
  return "identity " + directory.model_identity + "\nwidth " + std::to_string(directory.width) + "\nname " + name +
         "\n";
}

// The value of the field's line, or "".
std::string Field(const std::string& text, const std::string& field) {
  const size_t at = text.rfind(field + " ", 0) == 0 ? 0 : text.find("\n" + field + " ");
  if (at == std::string::npos) return "";
  const size_t start = at + field.size() + (at == 0 ? 1 : 2);
  return text.substr(start, text.find('\n', start) - start);
}

Result<std::string> ReadText(DiskIo* io, const std::string& path) {
  Result<FileHandle> file = io->Open(path, OpenMode::kRead);
  if (!file.ok()) return file.status();
  const Result<uint64_t> size = io->Size(*file);
  std::string text(size.ok() ? std::min(size.value(), kModelFileBytesMax) : 0, '\0');
  const Result<size_t> read = io->Read(*file, 0, std::as_writable_bytes(std::span<char>(text)));
  io->Close(*file);
  if (!size.ok()) return size.status();
  if (!read.ok()) return read.status();
  return text;
}

Status WriteModel(DiskIo* io, const ShardDirectory& directory, const std::string& path) {
  const std::string text = ModelText(directory);
  const std::string temporary = path + "/MODEL.tmp";
  Result<FileHandle> file = io->Open(temporary, OpenMode::kCreate);
  if (!file.ok()) return file.status();
  // P2: content before name, name before use.
  const Status status = io->Write(*file, 0, std::as_bytes(std::span<const char>(text)), true);
  io->Close(*file);
  if (!status.ok()) return status;
  if (Status renamed = io->Rename(temporary, path + "/MODEL"); !renamed.ok()) return renamed;
  return io->SyncDirectory(path);
}

Status CheckModel(DiskIo* io, const ShardDirectory& directory, const std::string& path) {
  const Result<std::string> text = ReadText(io, path + "/MODEL");
  if (!text.ok()) return text.status();
  const std::string identity = Field(text.value(), "identity");
  const std::string width = Field(text.value(), "width");
  if (identity == directory.model_identity && width == std::to_string(directory.width)) return {};
  return Status(StatusCode::kRefused, path + "/MODEL says model " + identity + ", width " + width + " (" +
                                          Field(text.value(), "name") + "), but this engine has " +
                                          directory.model_identity + ", width " + std::to_string(directory.width) +
                                          "; name another data directory, or move " + path + " away");
}

bool IsSetAside(std::string_view name) { return name.starts_with("wal-") && name.ends_with(kAside); }

uint64_t BytesSetAside(DiskIo* io, const std::string& path) {
  const Result<std::vector<std::string>> names = io->List(path);
  if (!names.ok()) return 0;
  uint64_t bytes = 0;
  for (const std::string& name : names.value()) {
    if (!IsSetAside(name)) continue;
    const Result<FileHandle> file = io->Open(path + "/" + name, OpenMode::kRead);
    if (!file.ok()) continue;
    const Result<uint64_t> size = io->Size(file.value());
    if (size.ok()) bytes += size.value();
    io->Close(file.value());
  }
  return bytes;
}

// What damage left behind: nothing reads, bounds or removes these files.
std::string SetAside(DiskIo* io, const std::string& path, uint64_t count) {
  return std::to_string(count) + " damaged segment" + (count == 1 ? "" : "s") + " of earlier starts take up " +
         std::to_string((BytesSetAside(io, path) + kMiB - 1) / kMiB) + " MiB in " + path +
         ", which nothing reads or bounds. If you do not need them any more: rm " + path + "/*.quarantined";
}

}  // namespace

std::string ShardName(const std::string& model_identity) { return model_identity.substr(0, kDirectoryDigits); }

std::string ShardPath(const std::string& data, const std::string& model_identity) {
  return data + "/" + ShardName(model_identity);
}

bool IsShardName(std::string_view name) {
  return name.size() == kDirectoryDigits && name.find_first_not_of(kHexDigits) == std::string_view::npos;
}

bool IsShardFile(std::string_view name) {
  return name == "MODEL" || name == "MODEL.tmp" || name == "reserve.tmp" || name == "heat" || name == "heat.tmp" ||
         SegmentNumber(name) != 0 || IsSetAside(name);
}

ShardDirectory ParseModelFile(const std::string& text) {
  ShardDirectory directory;
  directory.model_identity = Field(text, "identity");
  directory.model_name = Field(text, "name");
  const std::string width = Field(text, "width");
  const char* const end = width.data() + width.size();
  uint32_t floats = 0;
  if (std::from_chars(width.data(), end, floats).ptr == end) directory.width = floats;
  return directory;
}

Result<ShardFiles> PrepareShardDirectory(DiskIo* io, const ShardDirectory& directory, const LogLine& log) {
  ShardFiles files;
  files.path = ShardPath(directory.data, directory.model_identity);
  if (Status status = io->MakeDirectory(files.path); !status.ok()) {
    if (IsDiskFull(status)) {
      files.disk_full = status;
      return files;
    }
    return Status(status.code(), status.message() + "; the engine's user must be able to write in " + directory.data,
                  status.os_error());
  }
  if (Status status = io->SyncDirectory(directory.data); !status.ok()) return status;

  Result<std::vector<std::string>> names = io->List(files.path);
  if (!names.ok()) return names.status();
  bool has_model = false;
  for (const std::string& name : *names) {
    if (name == "MODEL") has_model = true;
    if (SegmentNumber(name) != 0) ++files.segments;
    if (IsSetAside(name)) ++files.quarantined;
    // Unfinished work of an engine that died: the file was never in use.
    if (name == "MODEL.tmp") {
      if (Status status = io->Unlink(files.path + "/" + name); !status.ok()) return status;
    }
  }
  if (files.quarantined > 0 && log) log(LogLevel::kWarn, SetAside(io, files.path, files.quarantined));
  const Status status = has_model ? CheckModel(io, directory, files.path) : WriteModel(io, directory, files.path);
  if (IsDiskFull(status) && files.segments == 0) {
    files.disk_full = status;
    return files;
  }
  if (!status.ok()) return status;
  return files;
}

}  // namespace sutra
