// A file is opened first and emptied only when it is known not to be the input.
#include "tools/lib/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "tools/lib/program.h"

namespace sutra {

namespace {

constexpr int kLinksMax = 40;  // as the kernel follows

bool Same(const struct stat& a, const struct stat& b) { return a.st_dev == b.st_dev && a.st_ino == b.st_ino; }

// A terminal, /dev/null or a socket may well be both; what is stored may not.
bool IsInput(const struct stat& output, int input_fd) {
  struct stat input = {};
  if (input_fd < 0 || fstat(input_fd, &input) != 0 || !Same(input, output)) return false;
  return S_ISREG(input.st_mode) || S_ISBLK(input.st_mode) || S_ISFIFO(input.st_mode);
}

Status RefuseInput(const std::string& name) {
  return Status(StatusCode::kBadOption, "the output " + name +
                                            " is the input: writing it would destroy what is read; "
                                            "name another file with --output");
}

Status CannotOpen(const std::string& name, int error) {
  return Status::FromErrno(StatusCode::kBadOption, "opening output " + name, error);
}

// Blocks while `path` is a FIFO without a reader.
int OpenInterruptibly(const std::string& path) {
  for (;;) {
    const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd >= 0 || errno != EINTR || InterruptedBy() != 0) return fd;
  }
}

// The name behind all links, which may be that of nothing.
Result<std::string> FollowLinks(const std::string& path) {
  std::filesystem::path name = path;
  std::error_code error;
  for (int links = 0; std::filesystem::is_symlink(std::filesystem::symlink_status(name, error)); ++links) {
    if (links == kLinksMax) return CannotOpen(path, ELOOP);
    const std::filesystem::path to = std::filesystem::read_symlink(name, error);
    if (error) return CannotOpen(path, error.value());
    name = name.parent_path() / to;  // an absolute one takes the place of the whole
  }
  return name.string();
}

mode_t ModeOfNewFiles() {
  const mode_t mask = umask(0);
  umask(mask);
  return 0666 & ~mask;
}

}  // namespace

Result<OutputFile> OutputFile::Open(const std::string& path, int input_fd) {
  struct stat info = {};
  if (path == "-") {
    OutputFile file(UniqueFd(), "standard output");
    file.fd_ = STDOUT_FILENO;
    if (fstat(file.fd_, &info) == 0 && IsInput(info, input_fd)) return RefuseInput(file.name_);
    return file;
  }
  UniqueFd fd(OpenInterruptibly(path));
  if (!fd && errno == EINTR) return Status(StatusCode::kCancelled, "nothing reads the output " + path);
  if (!fd || fstat(fd.get(), &info) != 0) return CannotOpen(path, errno);
  if (IsInput(info, input_fd)) return RefuseInput(path);
  if (S_ISREG(info.st_mode) && ftruncate(fd.get(), 0) != 0) return CannotOpen(path, errno);
  return OutputFile(std::move(fd), path);
}

Status OutputFile::Flush() {
  if (!failed_.ok()) return failed_;
  std::string_view rest = buffer_;
  const int error = WriteAll(fd_, &rest);
  written_ += buffer_.size() - rest.size();
  buffer_.erase(0, buffer_.size() - rest.size());
  assert(error != 0 || buffer_.empty());
  if (error != 0) {
    failed_ = Status::FromErrno(error == ECANCELED ? StatusCode::kCancelled : StatusCode::kStorageError,
                                "writing " + name_, error);
  }
  return failed_;
}

Result<std::unique_ptr<WholeFile>> WholeFile::Open(const std::string& path, int input_fd) {
  struct stat old = {};
  const bool exists = path != "-" && stat(path.c_str(), &old) == 0;
  if (path != "-" && !exists && errno != ENOENT) return CannotOpen(path, errno);
  if (path == "-" || (exists && !S_ISREG(old.st_mode))) {
    Result<OutputFile> copy = OutputFile::Open(path, input_fd);
    if (!copy.ok()) return copy.status();
    return OpenUnseen(std::move(copy).value());
  }
  if (exists && IsInput(old, input_fd)) return RefuseInput(path);
  const Result<std::string> place = FollowLinks(path);
  if (!place.ok()) return place.status();
  struct stat named = {};
  // A link of /proc leads to a file without being its name.
  if (exists && (lstat(place->c_str(), &named) != 0 || !Same(named, old))) {
    return Status(StatusCode::kBadOption, "opening output " + path + ": the file it leads to has no name any more");
  }
  if (exists && faccessat(AT_FDCWD, place->c_str(), W_OK, AT_EACCESS) != 0) return CannotOpen(path, errno);
  return OpenBeside(*place, exists ? &old : nullptr);
}

Result<std::unique_ptr<WholeFile>> WholeFile::OpenBeside(const std::string& place, const struct stat* old) {
  std::string temporary = place + ".XXXXXX";
  UniqueFd fd(mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd) return CannotOpen(temporary, errno);
  std::unique_ptr<WholeFile> whole(new WholeFile(OutputFile(std::move(fd), temporary), temporary, place, std::nullopt));
  const int made = whole->file_.fd();
  // Only root can give it to its owner; anybody's own group is possible. Else it is as any new file of this user.
  if (old != nullptr && fchown(made, old->st_uid, old->st_gid) != 0) (void)!fchown(made, -1, old->st_gid);
  if (fchmod(made, old != nullptr ? old->st_mode & 0777 : ModeOfNewFiles()) != 0) {  // mkostemp makes 0600
    return Status::FromErrno(StatusCode::kStorageError, "mode of " + temporary, errno);
  }
  return whole;
}

Result<std::unique_ptr<WholeFile>> WholeFile::OpenUnseen(OutputFile copy) {
  const char* const shared_tmp = getenv("TMPDIR");
  std::string temporary = std::string(shared_tmp != nullptr ? shared_tmp : P_tmpdir) + "/sutra-embed.XXXXXX";
  UniqueFd fd(mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd) return CannotOpen(temporary, errno);
  unlink(temporary.c_str());
  return std::unique_ptr<WholeFile>(new WholeFile(OutputFile(std::move(fd), temporary), "", "", std::move(copy)));
}

WholeFile::~WholeFile() {
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

Status WholeFile::Publish() {
  assert(file_.buffer().empty());
  if (copy_) return Copy();
  struct stat there = {};
  if (lstat(place_.c_str(), &there) == 0 && !S_ISREG(there.st_mode)) {
    return Status(StatusCode::kStorageError, place_ + " is no regular file any more and is not replaced");
  }
  if (rename(temporary_.c_str(), place_.c_str()) != 0) {
    return Status::FromErrno(StatusCode::kStorageError, "renaming " + temporary_ + " to " + place_, errno);
  }
  temporary_.clear();
  return Status();
}

Status WholeFile::Copy() {
  off_t offset = 0;
  for (;;) {
    copy_->buffer().resize(OutputFile::kFlushBytes);
    const ssize_t bytes = pread(file_.fd(), copy_->buffer().data(), OutputFile::kFlushBytes, offset);
    if (bytes < 0) return Status::FromErrno(StatusCode::kStorageError, "reading back the vectors", errno);
    copy_->buffer().resize(static_cast<size_t>(bytes));
    if (Status status = copy_->Flush(); !status.ok() || bytes == 0) return status;
    offset += bytes;
  }
}

std::optional<uint64_t> WholeFile::copied() const { return copy_ ? std::optional(copy_->written()) : std::nullopt; }

}  // namespace sutra
