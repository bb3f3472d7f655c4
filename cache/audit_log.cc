// The file is opened for each line: an operator may move it away at any time.
#include "cache/audit_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <ctime>

#include "shm/base/json_object.h"
#include "shm/base/sha256.h"
#include "shm/base/time.h"
#include "shm/base/unique_fd.h"

namespace sutra {
namespace {

constexpr char kName[] = "audit.log";
constexpr char kOlder[] = "audit.log.1";
constexpr size_t kDigestDigits = 16;

std::string TimeText(uint64_t wall_ns) {
  const auto seconds = static_cast<time_t>(wall_ns / kNsPerSecond);
  tm parts = {};
  char text[32] = "";
  if (gmtime_r(&seconds, &parts) != nullptr) std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

std::string LineText(const char* phase, const AuditLine& line) {
  JsonObject object;
  object.Text("time", TimeText(WallNs()));
  object.Text("phase", phase);
  object.Text("command", line.command);
  object.Number("uid", line.uid);
  object.Number("pid", line.pid);
  object.Text("what", line.what);
  object.Text("result", line.result);
  std::string text = std::move(object).Take() + "\n";
  assert(text.find('\n') == text.size() - 1);
  return text;
}

// Writes all of it. A write that was cut short leaves a torn line, which the next one ends.
bool WriteAll(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = write(fd, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    text.remove_prefix(static_cast<size_t>(count));
  }
  return true;
}

}  // namespace

std::string AuditLog::Words(const char* kind, std::string_view text) {
  const Result<std::string> digest = Sha256Hex(text);
  return std::string(kind) + " of " + std::to_string(text.size()) + " bytes, sha256 " +
         (digest.ok() ? digest->substr(0, kDigestDigits) : "unknown");
}

std::string AuditLog::Words(const CacheFilter& filter) {
  std::string words = filter.everything ? "everything" : "";
  const auto add = [&words](const std::string& condition) { words += (words.empty() ? "" : ", ") + condition; };
  if (!filter.contains.empty()) add(Words("texts that contain a text", filter.contains));
  if (filter.older_than_s > 0) add("older than " + std::to_string(filter.older_than_s) + " s");
  if (filter.never_hit) add("never hit");
  return words;
}

Status AuditLog::Append(const char* phase, const AuditLine& line) {
  const auto failed = [this](const char* what) {
    return Status::FromErrno(StatusCode::kStorageError,
                             std::string(what) + " " + data_ + "/" + kName + ", without which nothing is removed",
                             errno);
  };
  const UniqueFd directory(open(data_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return failed("opening the directory of");
  // O_NONBLOCK: opening must not wait for the other end of a FIFO.
  constexpr int kFlags = O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  for (bool rotated = false;; rotated = true) {
    const UniqueFd file(openat(directory.get(), kName, kFlags, 0640));
    if (!file) return failed("opening");
    struct stat info;
    if (fstat(file.get(), &info) != 0) return failed("looking at");
    if (!S_ISREG(info.st_mode) || info.st_nlink != 1) {
      return Status(StatusCode::kRefused, data_ + "/" + kName + " is no plain file with one name: move it away");
    }
    if (static_cast<uint64_t>(info.st_size) >= kAuditBytesMax && !rotated) {
      if (renameat(directory.get(), kName, directory.get(), kOlder) != 0) return failed("rotating");
      continue;
    }
    char last = '\n';
    if (info.st_size > 0 && pread(file.get(), &last, 1, info.st_size - 1) != 1) return failed("reading");
    if (!WriteAll(file.get(), (last == '\n' ? "" : "\n") + LineText(phase, line))) return failed("writing");
    if (fdatasync(file.get()) != 0) return failed("syncing");
    if ((info.st_size == 0 || rotated) && fsync(directory.get()) != 0) return failed("syncing the directory of");
    return {};
  }
}

}  // namespace sutra
