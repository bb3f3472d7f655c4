// Rename, sync of DATA, file after file, the directory.
#include "cache/identity_removal.h"

#include <sys/stat.h>

#include <cassert>
#include <utility>

#include "shm/base/checkpoint.h"
#include "shm/base/time.h"

namespace sutra {
namespace {

constexpr std::string_view kRemoving = ".removing";

}  // namespace

std::string SetAsideName(const std::string& name) { return name + std::string(kRemoving); }

bool IsSetAside(std::string_view name) {
  return name.ends_with(kRemoving) && IsShardName(name.substr(0, name.size() - kRemoving.size()));
}

Result<std::vector<IdentitySurvey>> SurveyIdentities(const OpenDirectory& data) {
  const Result<std::vector<OpenDirectory::Item>> items = data.List();
  if (!items.ok()) return items.status();
  std::vector<IdentitySurvey> surveys;
  for (const OpenDirectory::Item& item : items.value()) {
    if (!IsShardName(item.name)) continue;
    Result<IdentitySurvey> survey = SurveyIdentity(data, item.name);
    if (!survey.ok()) return survey.status();
    surveys.push_back(std::move(survey).value());
  }
  return surveys;
}

Status SetIdentityAside(const OpenDirectory& data, const IdentitySurvey& survey, const IdentityRemoval& removal) {
  assert(survey.foreign.empty());
  if (!removal.may_go_on()) return Status(StatusCode::kCancelled, "stopped");
  const std::string aside = SetAsideName(survey.name);
  if (Status status = data.Rename(survey.name, aside); !status.ok()) return status;
  const Result<OpenDirectory> moved = data.OpenChild(aside);
  if (!moved.ok() || moved->identity() != survey.directory) {
    static_cast<void>(data.Rename(aside, survey.name));
    return Status(StatusCode::kStorageError, survey.path + " was replaced meanwhile");
  }
  if (SUTRA_CHECKPOINT("identity.renamed")) return Status(StatusCode::kStorageError, "checkpoint identity.renamed");
  return data.Sync();  // P24: before the first file goes
}

Status RemoveSetAside(const OpenDirectory& data, const std::string& name, const IdentityRemoval& removal) {
  assert(IsSetAside(name));
  const Result<OpenDirectory> directory = data.OpenChild(name);
  if (!directory.ok()) return directory.status();
  const Result<std::vector<OpenDirectory::Item>> items = directory->List();
  if (!items.ok()) return items.status();
  uint64_t say_next_ns = MonotonicNs() + kNsPerSecond;
  size_t done = 0;
  for (const OpenDirectory::Item& item : items.value()) {
    if (!S_ISREG(item.mode) || !IsShardFile(item.name)) {
      return Status(StatusCode::kRefused,
                    directory->path() + " holds '" + item.name + "', which no engine made there; move it away");
    }
  }
  for (const OpenDirectory::Item& item : items.value()) {
    if (!removal.may_go_on()) return Status(StatusCode::kCancelled, "stopped");
    if (Status status = directory->Unlink(item.name); !status.ok()) return status;
    static_cast<void>(SUTRA_CHECKPOINT("identity.unlinked"));
    ++done;
    if (MonotonicNs() < say_next_ns) continue;
    say_next_ns = MonotonicNs() + kNsPerSecond;
    if (removal.log)
      removal.log(LogLevel::kInfo, "removing " + directory->path() + ": " + std::to_string(done) + " of " +
                                       std::to_string(items->size()) + " files are gone");
  }
  if (!removal.may_go_on()) return Status(StatusCode::kCancelled, "stopped");
  return data.RemoveChild(name);
}

}  // namespace sutra
