// The MODEL file, and what is created and removed before recovery reads.
#include "cache/shard_directory.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <vector>

#include "cache/disk/disk_io.h"
#include "cache/wal/wal_format.h"
#include "shm/base/hex.h"

namespace sutra {
namespace {

constexpr size_t kDirectoryDigits = 16;
constexpr uint64_t kModelFileBytesMax = 64u << 10;
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

bool IsShardName(const std::string& name) {
  return name.size() == kDirectoryDigits && name.find_first_not_of(kHexDigits) == std::string::npos;
}

bool IsAnyName(const std::string&) { return true; }

uint64_t BytesIn(DiskIo* io, const std::string& path, bool (*counts)(const std::string& name)) {
  const Result<std::vector<std::string>> names = io->List(path);
  if (!names.ok()) return 0;
  uint64_t bytes = 0;
  for (const std::string& name : names.value()) {
    if (!counts(name)) continue;
    const Result<FileHandle> file = io->Open(path + "/" + name, OpenMode::kRead);
    if (!file.ok()) continue;
    const Result<uint64_t> size = io->Size(file.value());
    if (size.ok()) bytes += size.value();
    io->Close(file.value());
  }
  return bytes;
}

bool IsSetAside(const std::string& name) {
  return name.rfind("wal-", 0) == 0 && name.size() > kAside.size() &&
         name.compare(name.size() - kAside.size(), kAside.size(), kAside) == 0;
}

// What damage left behind: nothing reads, bounds or removes these files.
std::string SetAside(DiskIo* io, const std::string& path, uint64_t count) {
  return std::to_string(count) + " damaged segment" + (count == 1 ? "" : "s") + " of earlier starts take up " +
         std::to_string((BytesIn(io, path, IsSetAside) + kMiB - 1) / kMiB) + " MiB in " + path +
         ", which nothing reads or bounds. If you do not need them any more: rm " + path + "/*.quarantined";
}

// Each model's cache has a bound of its own, so changes of the model fill the disk unless somebody removes old ones. No
// engine serves them: this one holds the lock on the data directory.
std::string OtherShards(DiskIo* io, const std::string& data, const std::vector<std::string>& others,
                        const std::string& own_path) {
  constexpr size_t kNamedMax = 8;
  uint64_t bytes = 0;
  std::string remove = "rm -r";
  for (size_t i = 0; i < others.size(); ++i) {
    const std::string path = data + "/" + others[i];
    bytes += BytesIn(io, path, IsAnyName);
    if (i < kNamedMax) remove += " " + path;
  }
  return "this data directory also holds the caches of " + std::to_string(others.size()) + " other model(s), " +
         std::to_string((bytes + kMiB - 1) / kMiB) + " MiB, which nothing bounds or removes; this model uses " +
         own_path + ". If the others are not needed any more: " + remove;
}

}  // namespace

std::string ShardPath(const std::string& data, const std::string& model_identity) {
  return data + "/" + model_identity.substr(0, kDirectoryDigits);
}

Result<ShardFiles> PrepareShardDirectory(DiskIo* io, const ShardDirectory& directory, const LogLine& log) {
  ShardFiles files;
  const std::string own = directory.model_identity.substr(0, kDirectoryDigits);
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
  Result<std::vector<std::string>> shards = io->List(directory.data);
  if (!shards.ok()) return shards.status();
  std::erase_if(*shards, [&](const std::string& name) { return !IsShardName(name) || name == own; });
  if (!shards->empty() && log) log(LogLevel::kInfo, OtherShards(io, directory.data, *shards, files.path));

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
