// verify: every cache in a data directory, or the one that is named.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cache/disk/disk_io_overlay.h"
#include "cache/disk/open_directory.h"
#include "cache/identity_removal.h"
#include "cache/shard_verifier.h"
#include "cache/wal/recovery_losses.h"
#include "shm/base/printable.h"
#include "tools/cache/cache_commands.h"
#include "tools/cache/command_support.h"
#include "tools/cache/data_directory.h"
#include "tools/lib/program.h"
#include "tools/lib/stat_report.h"

namespace sutra {

namespace {

using Kind = VerifyFinding::Kind;

constexpr int kLooksMax = 5;

const char* KindName(Kind kind) {
  switch (kind) {
    case Kind::kNote: return "note";
    case Kind::kWarning: return "warning";
    case Kind::kDamage: return "damaged";
  }
  return "";
}

nlohmann::json JsonOf(const IdentitySurvey& survey, const VerifyReport& report) {
  nlohmann::json findings = nlohmann::json::array();
  for (const VerifyFinding& finding : report.findings) {
    nlohmann::json one = {{"kind", KindName(finding.kind)}, {"file", finding.file}, {"what", finding.what}};
    if (finding.offset) one["offset"] = *finding.offset;
    findings.push_back(std::move(one));
  }
  return {{"path", survey.path},
          {"identity", survey.model.model_identity},
          {"model", survey.model.model_name},
          {"sound", report.sound()},
          {"files", report.files},
          {"bytes", report.bytes},
          {"segments", report.segments},
          {"indexes", report.indexes},
          {"records", report.records},
          {"entries", report.entries},
          {"heat_blocks", report.heat_blocks},
          {"torn_bytes", report.torn_bytes},
          {"damaged", report.damaged},
          {"lost", report.lost},
          {"refused", report.refused},
          {"findings", std::move(findings)}};
}

std::string TextOf(const CacheOptions& options, const IdentitySurvey& survey, const VerifyReport& report) {
  std::string text;
  uint64_t shown = 0;
  for (const VerifyFinding& finding : report.findings) {
    if (options.errors_shown != 0 && shown++ == options.errors_shown) {
      text += fmt::format("... and {} more (--errors-shown 0)\n", report.findings.size() - options.errors_shown);
      break;
    }
    const std::string at = finding.offset ? fmt::format(" at byte {}", *finding.offset) : "";
    text += fmt::format("{}: {}{}: {}\n", KindName(finding.kind), finding.file, at,
                        Printable(finding.what, HighBytes::kKeep));
  }
  text += fmt::format("{}: {}; {} files, {}, {} segments ({} with an index), {} records, {} entries\n", survey.path,
                      report.sound() ? "sound" : "DAMAGED", report.files, BytesText(static_cast<double>(report.bytes)),
                      report.segments, report.indexes, report.records, report.entries);
  if (!report.refused.empty()) {
    text += "a start refuses it: " + Printable(report.refused, HighBytes::kKeep) + "\n";
  } else if (!report.sound()) {
    text += report.lost == 0
                ? "a start would lose nothing of it\n"
                : fmt::format("a start would lose {}\n", Counted(report.lost, "entry or record", "entries or records"));
  }
  return text;
}

// An engine may be in the middle of a write, of an index for example: what is wrong then is looked at again.
Result<VerifyReport> Verify(const CacheOptions& options, const IdentitySurvey& survey,
                            const CommandProgress& progress) {
  Result<VerifyReport> report = Status(StatusCode::kNotReady, "");
  for (int i = 1;; ++i) {
    const bool stayed = ReadWhileItStays(options.data, survey.name, [&](const Result<IdentitySurvey>& now) {
      OverlayDiskIo io;
      report = now.ok() ? VerifyShard(&io, *now, progress) : Result<VerifyReport>(now.status());
    });
    if (report.code() == StatusCode::kCancelled || (report.ok() && report->sound())) return report;
    if (!stayed) return WrittenTooFast(survey.path);
    if (i == kLooksMax || !HolderOfData(options.data).held) return report;
  }
}

}  // namespace

int RunCacheVerify(const CacheOptions& options) {
  const CommandProgress progress(options);
  std::vector<IdentitySurvey> shards;
  if (options.identity.empty()) {
    const Result<OpenDirectory> data = OpenDirectory::Open(options.data);
    Result<std::vector<IdentitySurvey>> all =
        data.ok() ? SurveyIdentities(*data) : Result<std::vector<IdentitySurvey>>(data.status());
    if (!all.ok()) return Fail(kCacheName, kCacheUnreadable, all.status().message());
    shards = std::move(*all);
  } else {
    const Result<IdentitySurvey> one = ChooseShard(options.data, options.identity);
    if (!one.ok()) return CacheFail(one.status());
    shards.push_back(*one);
  }
  if (shards.empty()) return CacheFail(Status(StatusCode::kNotReady, options.data + " holds no cache"));
  int code = kCacheDone;
  std::string out;
  for (const IdentitySurvey& shard : shards) {
    const Result<VerifyReport> report = Verify(options, shard, progress);
    progress->Clear();
    if (report.code() == StatusCode::kCancelled) {
      static_cast<void>(Print(out));
      return CacheFail(report.status());
    }
    if (!report.ok()) {
      Say(kCacheName, shard.path + " cannot be read: " + report.status().message());
      code = kCacheUnreadable;
      continue;
    }
    out += options.json ? JsonOf(shard, *report).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n"
                        : TextOf(options, shard, *report);
    if (!report->sound()) code = std::max<int>(code, kCacheDamaged);
  }
  return PrintAndEnd(out, code);
}

}  // namespace sutra
