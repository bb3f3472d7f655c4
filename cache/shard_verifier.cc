// The chain is walked as recovery does, from the newest segment back; then its segments are read from the oldest on.
#include "cache/shard_verifier.h"

#include <sys/stat.h>

#include <algorithm>

#include "cache/disk/disk_io.h"
#include "cache/heat_file.h"
#include "cache/segment_verifier.h"
#include "cache/shard_at_rest.h"
#include "cache/wal/recovery.h"

namespace sutra {
namespace {

using Kind = VerifyFinding::Kind;

class NoSink final : public RecoverySink {
 public:
  void Begin(uint64_t) override {}
  void Insert(const WalRecord&, uint64_t) override { ++entries_; }
  void InsertIndexed(const IndexEntry&, uint64_t) override { ++entries_; }
  void Clear(uint32_t) override {}
  void Erase(const EraseBody&) override {}
  uint64_t DropAll() override { return std::exchange(entries_, 0); }

 private:
  uint64_t entries_ = 0;
};

class ShardVerifier {
 public:
  ShardVerifier(DiskIo* io, const IdentitySurvey& survey, const std::function<bool(uint64_t, uint64_t)>& go_on)
      : io_(io), survey_(survey), go_on_(go_on) {}

  Result<VerifyReport> Run() {
    if (Status status = LookAtFiles(); !status.ok()) return status;
    const Result<ShardDirectory> model = ModelAtRest(io_, survey_);
    if (model.ok()) {
      expected_.width = model->width;
      ParseIdentity(model->model_identity, &expected_.model);
      CheckModelFile(*model);
      if (Status status = CheckSegments(); !status.ok()) return status;
    } else {
      report_.Add(Kind::kDamage, survey_.path, std::nullopt, model.status().message());
    }
    CheckHeat();
    return std::move(report_);
  }

 private:
  std::string PathOf(const std::string& name) const { return survey_.path + "/" + name; }

  Status LookAtFiles() {
    struct stat directory = {};
    if (stat(survey_.path.c_str(), &directory) != 0) {
      return Status::FromErrno(StatusCode::kStorageError, "looking at " + survey_.path, errno);
    }
    CheckMode(survey_.path, directory, directory);
    const Result<std::vector<std::string>> names = io_->List(survey_.path);
    if (!names.ok()) return names.status();
    for (const std::string& name : *names) {
      struct stat info = {};
      if (lstat(PathOf(name).c_str(), &info) != 0) continue;  // gone meanwhile
      ++report_.files;
      if (!S_ISREG(info.st_mode) || !IsShardFile(name)) {
        report_.Add(Kind::kWarning, PathOf(name), std::nullopt,
                    std::string("no engine made this here: ") + FileTypeName(info.st_mode));
        continue;
      }
      report_.bytes += static_cast<uint64_t>(info.st_size);
      CheckMode(PathOf(name), info, directory);
      if (name.ends_with(".quarantined")) {
        report_.Add(Kind::kNote, PathOf(name), std::nullopt, "set aside by an earlier start; nothing reads it");
      }
      if (name.ends_with(".tmp") && name != "reserve.tmp") {
        report_.Add(Kind::kNote, PathOf(name), std::nullopt, "unfinished, as after a crash; a start removes it");
      }
    }
    return {};
  }

  void CheckMode(const std::string& path, const struct stat& info, const struct stat& directory) {
    if ((info.st_mode & 077) != 0) {
      report_.Add(Kind::kWarning, path, std::nullopt, "others than its owner may use it: chmod go= " + path);
    }
    if (info.st_uid != directory.st_uid) {
      report_.Add(Kind::kWarning, path, std::nullopt, "it belongs to another user than its directory");
    }
  }

  void CheckModelFile(const ShardDirectory& model) {
    if (survey_.model.model_identity == model.model_identity && survey_.model.width == model.width) return;
    report_.Add(Kind::kDamage, PathOf("MODEL"), std::nullopt,
                "missing or damaged; the segments belong to the model " + model.model_identity + ", width " +
                    std::to_string(model.width));
  }

  // Newest first, as far as the chain goes.
  Status FindChain() {
    std::vector<uint64_t> numbers = survey_.segments;
    while (!numbers.empty()) {
      const uint64_t number = numbers.back();
      numbers.pop_back();
      expected_.number = number;
      expected_.id.reset();
      if (!chain_.empty()) {
        const SegmentHeader& after = chain_.back();
        if (number > after.previous_number) {
          LeftOver(number, "no later segment names it");
          continue;
        }
        if (number < after.previous_number) {
          report_.Add(Kind::kDamage, survey_.path, std::nullopt, SegmentName(after.previous_number) + " is missing");
          LeftOver(number, "a later one is missing");
          for (const uint64_t older : numbers) LeftOver(older, "a later one is missing");
          return {};
        }
        expected_.id = after.previous_id;
      }
      const Result<std::unique_ptr<WalReader>> reader = WalReader::Open(io_, PathOf(SegmentName(number)), expected_);
      if (!reader.ok() && !WalReader::IsUnreadable(reader.status())) return reader.status();
      const HeaderState state = reader.ok() ? (*reader)->header_state() : HeaderState::kUnreadable;
      if (state == HeaderState::kGood) {
        chain_.push_back((*reader)->header());
        if (Status status = CheckHeader(number); !status.ok()) return status;
        continue;
      }
      if (state == HeaderState::kZero && chain_.empty()) {
        LeftOver(number, "nothing was written to it yet");
        continue;
      }
      report_.Add(Kind::kDamage, PathOf(SegmentName(number)), 0, WhatHeader(state));
      for (const uint64_t older : numbers) LeftOver(older, "a later one has no header");
      return {};
    }
    return {};
  }

  static const char* WhatHeader(HeaderState state) {
    switch (state) {
      case HeaderState::kUnreadable: return "the segment's header cannot be read";
      case HeaderState::kOlder: return "the segment is of an earlier version's format";
      case HeaderState::kNewer: return "the segment is of a later version's format";
      case HeaderState::kMisplaced: return "the segment belongs to another log: model, width, number or predecessor";
      default: return "both copies of the segment's header are damaged";
    }
  }

  void LeftOver(uint64_t number, const std::string& why) {
    report_.Add(Kind::kNote, PathOf(SegmentName(number)), std::nullopt, "not a part of the log: " + why);
  }

  Status CheckHeader(uint64_t number) {
    return SegmentVerifier(io_, PathOf(SegmentName(number)), &entries_, &report_).CheckHeader(expected_);
  }

  Status CheckSegments() {
    if (Status status = FindChain(); !status.ok()) return status;
    std::reverse(chain_.begin(), chain_.end());
    uint64_t done = 0, total = 0;
    for (const SegmentHeader& header : chain_) total += header.segment_bytes;
    for (size_t i = 0; i < chain_.size(); ++i) {
      const SegmentHeader* const next = i + 1 < chain_.size() ? &chain_[i + 1] : nullptr;
      const auto go_on = [&](uint64_t bytes) { return go_on_(done + bytes, total); };
      const std::string path = PathOf(SegmentName(chain_[i].number));
      if (chain_[i].hash_seed != chain_.back().hash_seed) {
        report_.Add(Kind::kDamage, path, 0, "the segment's digests have another seed than those of the newest one");
      }
      SegmentVerifier verifier(io_, path, &entries_, &report_);
      if (Status status = verifier.CheckRecords(chain_[i], next, go_on); !status.ok()) return status;
      done += chain_[i].segment_bytes;
    }
    entries_.Report(&report_);
    report_.entries = entries_.count();
    AskRecovery();
    return {};
  }

  // What a start would make of it.
  void AskRecovery() {
    RecoveryRequest request;
    request.directory = survey_.path;
    request.model = expected_.model;
    request.width = expected_.width;
    request.every_record = true;
    NoSink sink;
    const Result<RecoveryPlan> plan = RecoverLog(io_, request, &sink);
    if (!plan.ok()) {
      report_.refused = plan.status().message();
      return;
    }
    // A start that goes by the indexes meets the wrong records later, one by one.
    report_.lost = std::max(plan->records_dropped, report_.wrong_records);
    // Nothing that recovery calls damage goes unnamed.
    for (const RecoveryMessage& message : plan->messages) {
      if (message.level == LogLevel::kError)
        report_.Add(Kind::kNote, survey_.path, std::nullopt, "a start would say: " + message.text);
    }
    if (plan->damaged_segments > 0 && report_.damaged == 0) {
      report_.Add(Kind::kDamage, survey_.path, std::nullopt, "recovery finds damage that no check here has found");
    }
  }

  void CheckHeat() {
    const std::string path = PathOf("heat");
    const Result<FileHandle> file = io_->Open(path, OpenMode::kRead);
    if (!file.ok()) return;
    const Result<uint64_t> bytes = io_->Size(*file);
    std::vector<std::byte> block(kDiskBlockBytes);
    for (uint64_t number = 0; bytes.ok() && number * kDiskBlockBytes < *bytes; ++number) {
      const Result<size_t> read = io_->Read(*file, number * kDiskBlockBytes, block);
      if (read.ok() && *read == block.size() && HeatFile::IsRight(block, number)) {
        ++report_.heat_blocks;
        continue;
      }
      report_.Add(Kind::kDamage, path, number * kDiskBlockBytes,
                  "a block of what is hot is damaged; its entries count as cold after a start");
    }
    io_->Close(*file);
  }

  DiskIo* const io_;
  const IdentitySurvey& survey_;
  const std::function<bool(uint64_t, uint64_t)>& go_on_;
  VerifyReport report_;
  VerifiedEntries entries_;
  SegmentExpectation expected_;
  std::vector<SegmentHeader> chain_;
};

}  // namespace

Result<VerifyReport> VerifyShard(DiskIo* io, const IdentitySurvey& survey,
                                 const std::function<bool(uint64_t, uint64_t)>& go_on) {
  return ShardVerifier(io, survey, go_on).Run();
}

}  // namespace sutra
