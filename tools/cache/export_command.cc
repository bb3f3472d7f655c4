// export: every entry in a file, or in the two files of the NumPy form. What exists under its name is whole.
#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "shm/base/crc32c.h"
#include "shm/base/time.h"
#include "tools/cache/cache_commands.h"
#include "tools/cache/command_support.h"
#include "tools/cache/export_format.h"
#include "tools/lib/output_file.h"
#include "tools/lib/program.h"
#include "tools/lib/vector_output.h"

namespace sutra {

namespace {

Status MakeDirectory(const std::string& path) {
  if (mkdir(path.c_str(), 0777) == 0 || errno == EEXIST) return {};
  return Status::FromErrno(StatusCode::kStorageError, "creating the directory " + path, errno);
}

class Exporter {
 public:
  explicit Exporter(const CacheOptions& options) : options_(options), npy_(options.format == "npy") {}

  Status Run(CacheTarget* target) {
    const CacheTarget::Info& info = target->info();
    const std::string lines = npy_ ? options_.output + "/texts.jsonl" : options_.output;
    if (npy_) {
      if (Status status = MakeDirectory(options_.output); !status.ok()) return status;
      auto vectors = OpenNpyWriter(options_.output + "/vectors.npy", info.width);
      if (!vectors.ok()) return vectors.status();
      vectors_ = std::move(*vectors);
    }
    if (Status status = OpenLines(lines); !status.ok()) return status;
    *out_ += ExportHeaderLine({info.identity, info.model, info.width, WallNs() / kNsPerSecond}) + "\n";
    const auto which = options_.hot ? CacheAdmin::Which::kHot : CacheAdmin::Which::kAll;
    const Status visited = target->Visit(which, [&](const CacheEntry& entry) { return Write(entry); });
    return visited.ok() ? Finish() : visited;
  }
  uint64_t entries() const { return entries_; }

 private:
  // Standard output takes lines as they come; a pipe would otherwise get nothing before the end.
  Status OpenLines(const std::string& path) {
    if (path == "-") {
      Result<OutputFile> file = OutputFile::Open(path);
      if (!file.ok()) return file.status();
      stream_ = std::move(*file);
    } else {
      Result<std::unique_ptr<WholeFile>> whole = WholeFile::Open(path);
      if (!whole.ok()) return whole.status();
      whole_ = std::move(*whole);
    }
    out_ = &file().buffer();
    return {};
  }
  OutputFile& file() { return stream_ ? *stream_ : whole_->file(); }

  Status Write(const CacheEntry& entry) {
    ++entries_;
    AppendExportLine(entry, !npy_, out_);
    if (npy_) {
      crc_ = Crc32c(entry.vector.data(), entry.vector.size() * sizeof(float), crc_);
      if (Status status = vectors_->Vector({}, entry.vector); !status.ok()) return status;
    }
    return file().Spill();
  }

  Status Finish() {
    *out_ += ExportEndLine({entries_, npy_ ? std::optional(crc_) : std::nullopt}) + "\n";
    if (Status status = file().Flush(); !status.ok()) return status;
    if (npy_) {
      if (Status status = vectors_->Finish(); !status.ok()) return status;
    }
    return whole_ != nullptr ? whole_->Publish() : Status();
  }

  const CacheOptions& options_;
  const bool npy_;
  std::unique_ptr<ResultWriter> vectors_;
  std::optional<OutputFile> stream_;
  std::unique_ptr<WholeFile> whole_;
  std::string* out_ = nullptr;
  uint64_t entries_ = 0;
  uint32_t crc_ = 0;
};

}  // namespace

int RunCacheExport(const CacheOptions& options) {
  const CommandProgress progress(options);
  const Result<std::unique_ptr<CacheTarget>> target = OpenTarget(options, CacheAccess::kRead, progress);
  if (!target.ok()) return CacheFail(target.status());
  Exporter exporter(options);
  const Status status = exporter.Run(target->get());
  progress->Clear();
  if (!status.ok()) return CacheFail(status);
  const bool standard_output = options.output == "-";
  if (options.json && !standard_output) {
    const nlohmann::json json = {{"entries", exporter.entries()}, {"output", options.output}};
    return PrintAndEnd(json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  }
  if (!options.quiet) {
    Say(kCacheName, fmt::format("{} entries of {} exported{}", exporter.entries(), (*target)->info().place,
                                standard_output ? "" : " to " + options.output));
  }
  return kCacheDone;
}

}  // namespace sutra
