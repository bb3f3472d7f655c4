// Reads the tokenizer's files, with bounded sizes.
#include "engine/tokenizer/tokenizer_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "engine/tokenizer/wordpiece_config.h"
#include "shm/base/unique_fd.h"

namespace sutra {
namespace {

constexpr size_t kFileBytesMax = size_t{32} << 20;

// The file's bytes; empty if there is no such file.
Result<std::optional<std::string>> ReadFile(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) {
    if (errno == ENOENT || errno == ENOTDIR) return std::optional<std::string>();
    return Status::FromErrno(StatusCode::kModelError, "opening " + path, errno);
  }
  struct stat about {};
  if (::fstat(file.get(), &about) != 0) return Status::FromErrno(StatusCode::kModelError, "reading " + path, errno);
  if (!S_ISREG(about.st_mode)) return BadFile(path, "is not a regular file");
  if (static_cast<uint64_t>(about.st_size) > kFileBytesMax) {
    return BadFile(path, "has " + std::to_string(about.st_size) + " bytes, more than the " +
                             std::to_string(kFileBytesMax) + " that a tokenizer file may have");
  }
  std::string bytes(static_cast<size_t>(about.st_size), '\0');
  size_t filled = 0;
  while (filled < bytes.size()) {
    const ssize_t got = ::read(file.get(), bytes.data() + filled, bytes.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Status::FromErrno(StatusCode::kModelError, "reading " + path, errno);
    if (got == 0) break;  // the file shrank meanwhile; the parser will see that it is cut
    filled += static_cast<size_t>(got);
  }
  bytes.resize(filled);
  return std::optional<std::string>(std::move(bytes));
}

}  // namespace

Result<TokenizerFiles> ReadTokenizerFiles(const std::string& model_dir) {
  TokenizerFiles files;
  files.directory = model_dir;
  struct Part {
    const char* name;
    std::optional<std::string>* bytes;
  };
  for (const Part& part :
       {Part{"tokenizer.json", &files.tokenizer_json}, Part{"vocab.txt", &files.vocab_txt},
        Part{"tokenizer_config.json", &files.tokenizer_config},
        Part{"special_tokens_map.json", &files.special_tokens_map}, Part{"added_tokens.json", &files.added_tokens}}) {
    auto bytes = ReadFile(model_dir + "/" + part.name);
    if (!bytes.ok()) return bytes.status();
    *part.bytes = std::move(bytes).value();
  }
  return files;
}

}  // namespace sutra
