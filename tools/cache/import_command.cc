// import: batches of what is not there yet, each stored before the next one is read, so that a run that breaks off goes
// on where it was.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <unordered_set>

#include "cache/cache_shard.h"
#include "cache/key_digest.h"
#include "engine/control/cache_page.h"
#include "shm/base/time.h"
#include "tools/cache/cache_commands.h"
#include "tools/cache/command_support.h"
#include "tools/cache/import_source.h"
#include "tools/lib/program.h"

namespace sutra {

namespace {

constexpr size_t kBatchBytes = 1u << 20;

struct HashDigest {
  size_t operator()(const KeyDigest& digest) const { return digest.low; }
};

class Importer {
 public:
  Importer(const CacheOptions& options, CacheTarget* target, ImportSource* source, const CommandProgress& progress)
      : options_(options), target_(target), source_(source), progress_(progress) {}

  Status Run() {
    if (!options_.replace) {
      const auto note = [&](const CacheEntry& entry) -> Status {
        there_.insert(DigestOf(entry.text, entry.variant, 0));
        return {};
      };
      if (Status status = target_->Visit(CacheAdmin::Which::kAll, note); !status.ok()) return status;
    }
    const uint64_t now_s = WallNs() / kNsPerSecond;
    passed_s_ = now_s - std::min(now_s, source_->header().time_s);
    while (std::optional<Result<CacheEntry>> next = source_->Next()) {
      if (!next->ok() && next->code() != StatusCode::kBadOption) return next->status();
      next->ok() ? Take(std::move(**next)) : Refuse(next->status().message());
      if (batch_bytes_ < kBatchBytes) continue;
      if (Status status = StoreBatch(); !status.ok()) return status;
      if (InterruptedBy() != 0) return Status(StatusCode::kCancelled, "interrupted");
    }
    return StoreBatch();
  }

  nlohmann::json Json() const {
    return {{"stored", stored_},   {"skipped", skipped_},         {"expired", expired_},
            {"refused", refused_}, {"dry_run", options_.dry_run}, {"whole", source_->whole()}};
  }
  std::string Text() const {
    return fmt::format("{} {}, {} were there already, {} expired meanwhile, {} refused", stored_,
                       options_.dry_run ? "would be stored" : "stored", skipped_, expired_, refused_);
  }
  uint64_t refused() const { return refused_; }

 private:
  void Take(CacheEntry entry) {
    const Status right = CheckEntry(entry);
    if (!right.ok()) return Refuse(AtLine(source_->line_number(), right.message()));
    if (entry.left_s <= passed_s_) {
      ++expired_;
      return;
    }
    entry.left_s -= passed_s_;
    if (!options_.replace && !there_.insert(DigestOf(entry.text, entry.variant, 0)).second) {
      ++skipped_;
      return;
    }
    batch_bytes_ += CachePageWriter::EntryBytes(entry);
    batch_.push_back(std::move(entry));
  }

  void Refuse(const std::string& why) {
    progress_->Clear();
    if (refused_++ < options_.errors_shown) Say(kCacheName, why);
  }

  Status StoreBatch() {
    if (!batch_.empty() && !options_.dry_run) {
      const Result<CacheTarget::Imported> imported = target_->Import(batch_);
      if (!imported.ok()) return imported.status();
      stored_ += imported->stored;
      refused_ += imported->refused;
      if (imported->refused > 0) Say(kCacheName, imported->first);
    }
    if (options_.dry_run) stored_ += batch_.size();
    batch_.clear();
    batch_bytes_ = 0;
    progress_->Update({.texts = stored_ + skipped_,
                       .failed = refused_,
                       .done = source_->bytes_taken(),
                       .total = source_->bytes_total()});
    return {};
  }

  const CacheOptions& options_;
  CacheTarget* const target_;
  ImportSource* const source_;
  const CommandProgress& progress_;
  std::unordered_set<KeyDigest, HashDigest> there_;
  uint64_t passed_s_ = 0;  // since the export
  std::vector<CacheEntry> batch_;
  size_t batch_bytes_ = 0;
  uint64_t stored_ = 0, skipped_ = 0, expired_ = 0, refused_ = 0;
};

}  // namespace

int RunCacheImport(const CacheOptions& options) {
  const CommandProgress progress(options);
  Result<ImportSource> source = ImportSource::Open(options.input);
  if (!source.ok()) return CacheFail(source.status());
  // Without --identity, that of the file chooses among several.
  CacheOptions where = options;
  if (where.identity.empty() && !where.data.empty()) where.identity = source->header().identity;
  const Result<std::unique_ptr<CacheTarget>> target = OpenTarget(where, CacheAccess::kChange, progress);
  if (!target.ok()) return CacheFail(target.status());
  const CacheTarget::Info& info = (*target)->info();
  if (source->header().identity != info.identity || source->header().width != info.width) {
    return CacheFail(Status(StatusCode::kRefused,
                            fmt::format("{} has vectors of another model ({}, identity {}, {} floats) than {} ({}, "
                                        "identity {}, {} floats): they cannot be mixed, compute them anew",
                                        options.input, source->header().model, source->header().identity,
                                        source->header().width, info.place, info.model, info.identity, info.width)));
  }
  Importer importer(options, target->get(), &*source, progress);
  Status status = importer.Run();
  progress->Clear();
  const Status closed = (*target)->Close();
  if (status.ok()) status = closed;
  const int printed = PrintAndEnd(options.json ? importer.Json().dump() + "\n" : importer.Text() + "\n");
  if (!status.ok()) return CacheFail(status);
  if (printed != kCacheDone) return printed;
  if (!source->whole()) {
    return CacheFail(Status(StatusCode::kBadOption, options.input + " ends early: it is not a whole export"));
  }
  return importer.refused() > 0 ? kCacheError : kCacheDone;
}

}  // namespace sutra
