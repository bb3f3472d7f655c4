// Names decide what is ours; a removal is one unlink, which a crash cannot cut in two.
#include "cache/packed_files.h"

#include <sys/stat.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <string_view>
#include <utility>

#include "cache/mib_text.h"
#include "cache/shard_directory.h"
#include "shm/base/printable.h"
#include "shm/base/time.h"

namespace sutra {
namespace {

constexpr std::string_view kPacked = ".int8", kHalf = ".int8.tmp";
constexpr size_t kIdentityDigits = 64;
constexpr uint64_t kWritingNsMax = 3600 * kNsPerSecond;  // a writer is done in seconds

bool IsIdentity(std::string_view name) {
  return name.size() == kIdentityDigits && name.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// What follows the identity in the name; "": it is no name that an engine gives.
std::string_view EndingOf(std::string_view name) {
  if (!IsIdentity(name.substr(0, kIdentityDigits))) return {};
  const std::string_view ending = name.substr(kIdentityDigits);
  return ending == kPacked || ending == kHalf ? ending : std::string_view();
}

}  // namespace

Status PackedFiles::Survey(const OpenDirectory& data) {
  directory_.reset();
  files_.clear();
  foreign_.clear();
  Result<OpenDirectory> directory = data.OpenChild(kPackedDirectory);
  if (!directory.ok()) return directory.status().os_error() == ENOENT ? Status() : directory.status();
  const Result<std::vector<OpenDirectory::Item>> items = directory->List();
  if (!items.ok()) return items.status();
  for (const OpenDirectory::Item& item : items.value()) {
    const std::string_view ending = EndingOf(item.name);
    if (ending.empty() || !S_ISREG(item.mode)) {
      foreign_.push_back(std::string(FileTypeName(item.mode)) + " '" + Printable(item.name, HighBytes::kKeep) + "'");
      continue;
    }
    files_.push_back({.name = item.name,
                      .cache = ShardName(item.name),
                      .bytes = item.bytes,
                      .written_ns = item.changed_ns,
                      .half = ending == kHalf});
  }
  std::sort(files_.begin(), files_.end(), [](const File& a, const File& b) { return a.written_ns < b.written_ns; });
  directory_ = std::move(directory).value();
  return {};
}

// `choose` says why a file goes, if it does.
template <typename Choose>
Status PackedFiles::RemoveIf(const Choose& choose) {
  Status failed;
  std::erase_if(files_, [&](const File& file) {
    const std::optional<std::string> why = choose(file);
    if (!why.has_value() || !options_.may_go_on()) return false;
    assert(file.half || file.cache != options_.served);
    if (Status status = directory_->Unlink(file.name); !status.ok()) {
      failed = std::move(status);
      return false;
    }
    if (options_.log) {
      options_.log(LogLevel::kInfo, "removed the weights that were prepared for int8, " + directory_->path() + "/" +
                                        file.name + ", " + MiBText(file.bytes) + ": " + *why);
    }
    return true;
  });
  return failed;
}

Status PackedFiles::RemoveOrphans(const std::set<std::string>& caches, uint64_t wall_ns) {
  return RemoveIf([&](const File& file) -> std::optional<std::string> {
    if (file.half && wall_ns <= file.written_ns + kWritingNsMax) return std::nullopt;
    if (file.half) return "they were never finished";
    if (file.cache == options_.served || caches.count(file.cache) != 0) return std::nullopt;
    return "their model has no cache here";
  });
}

Status PackedFiles::RemoveBytes(uint64_t bytes, const std::string& why) {
  uint64_t gone = 0;
  return RemoveIf([&](const File& file) -> std::optional<std::string> {
    if (gone >= bytes || file.half || file.cache == options_.served) return std::nullopt;
    gone += file.bytes;
    return why;
  });
}

uint64_t PackedFiles::bytes() const {
  uint64_t bytes = 0;
  for (const File& file : files_) bytes += file.bytes;
  return bytes;
}

uint64_t PackedFiles::bytes_of_others() const {
  uint64_t bytes = 0;
  for (const File& file : files_) bytes += file.cache == options_.served ? 0 : file.bytes;
  return bytes;
}

}  // namespace sutra
