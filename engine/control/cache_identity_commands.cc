// The caches of the data directory that nobody serves. The thread that looks after them (other_identities.h) may be at
// it, too: whoever renames a directory first removes it.
#include <algorithm>
#include <cerrno>
#include <utility>

#include "cache/disk/open_directory.h"
#include "cache/identity_removal.h"
#include "engine/control/cache_commands.h"
#include "engine/control/cache_reply.h"
#include "shm/base/json_object.h"
#include "shm/base/time.h"

namespace sutra {
CacheReply CacheCommands::Identities() const {
  const Result<OpenDirectory> data = OpenDirectory::Open(options_.config.directory);
  if (!data.ok()) return Failed(data.status());
  const Result<std::vector<IdentitySurvey>> surveys = SurveyIdentities(data.value());
  if (!surveys.ok()) return Failed(surveys.status());
  const std::string served = ShardName(options_.config.model_identity);
  const uint64_t now_ns = WallNs();
  std::string list;
  for (const IdentitySurvey& survey : surveys.value()) {
    JsonObject item;
    item.Text("name", survey.name);
    item.Text("identity", survey.model.model_identity);
    item.Text("model", survey.model.model_name);
    item.Number("width", survey.model.width);
    item.Number("bytes", survey.bytes);
    item.Number("used_s", (now_ns - std::min(now_ns, survey.used_ns)) / kNsPerSecond);
    item.Flag("served", survey.name == served);
    item.Text("foreign", survey.foreign);
    list += (list.empty() ? "" : ",") + std::move(item).Take();
    if (list.size() > kCachePayloadBytesMax / 2) {
      return Failed(Status(StatusCode::kRefused, data->path() + " holds too many directories for an answer"));
    }
  }
  return WithPayload({}, "[" + list + "]");
}

CacheReply CacheCommands::DropIdentity(const CacheJob& job, const Turn& turn) {
  const std::string& identity = job.call.identity;
  if (ShardName(identity) == ShardName(options_.config.model_identity)) {
    return Failed(Status(StatusCode::kRefused,
                         "this engine serves " + identity + ": drop its entries instead (sutra-cache drop --all)"));
  }
  return Audited(
      job, "identity " + identity, [&] { return Confirmed(RemoveDirectory(identity, turn), turn); },
      [](const CacheAnswerBody& body) { return std::to_string(body.bytes) + " bytes removed"; });
}

CacheReply CacheCommands::RemoveDirectory(const std::string& identity, const Turn& turn) {
  const Result<OpenDirectory> data = OpenDirectory::Open(options_.config.directory);
  if (!data.ok()) return Failed(data.status());
  const std::string name = ShardName(identity);
  const Result<IdentitySurvey> survey = SurveyIdentity(data.value(), name);
  const bool known = survey.ok() && (identity.size() == name.size() || survey->model.model_identity == identity);
  if (!known && (survey.ok() || survey.status().os_error() == ENOENT)) {
    return Failed(Status(StatusCode::kBadOption, data->path() + " holds no cache of the identity " + identity));
  }
  if (!survey.ok()) return Failed(survey.status());
  if (!survey->foreign.empty()) {
    return Failed(Status(StatusCode::kRefused, survey->path + " is left alone: " + survey->foreign));
  }
  const IdentityRemoval removal = {.may_go_on = [&] { return options_.data_lock_held() && turn.GoOn(0, 0, true); },
                                   .log = options_.log};
  const std::string aside = SetAsideName(name);
  // What is left of an earlier one of the same name.
  if (const Status left = RemoveSetAside(data.value(), aside, removal); !left.ok() && left.os_error() != ENOENT) {
    return Failed(left);
  }
  if (Status status = SetIdentityAside(data.value(), survey.value(), removal); !status.ok()) return Failed(status);
  // It is gone from here on. What is left of it is removed by whoever comes to it first.
  const Status emptied = RemoveSetAside(data.value(), aside, removal);
  if (!emptied.ok() && emptied.os_error() != ENOENT && emptied.code() != StatusCode::kCancelled) return Failed(emptied);
  CacheReply reply;
  reply.body.bytes = survey->bytes;
  return reply;
}

}  // namespace sutra
