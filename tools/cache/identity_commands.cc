// identities, and drop --model: whole caches in a data directory, the one that is served and the others.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "cache/disk/open_directory.h"
#include "cache/identity_removal.h"
#include "engine/control/cache_control.h"
#include "shm/base/printable.h"
#include "shm/base/time.h"
#include "shm/stats/stats_reader.h"
#include "tools/cache/cache_commands.h"
#include "tools/cache/command_support.h"
#include "tools/cache/data_directory.h"
#include "tools/lib/program.h"
#include "tools/lib/stat_report.h"

namespace sutra {

namespace {

using Json = nlohmann::json;

struct Identity {
  std::string name, identity, model, precision, foreign;
  uint32_t width = 0;
  uint64_t bytes = 0, used_s = 0;
  std::optional<uint64_t> entries;  // not known: of the engine's word alone, or they cannot be read
  uint64_t quarantined = 0;         // files
  bool served = false;

  bool IsOf(const std::string& wanted) const {
    return model == wanted || name.starts_with(wanted) || (!identity.empty() && identity.starts_with(wanted));
  }
};

std::string AgeText(uint64_t seconds) {
  return seconds == 0 ? "now" : DurationText(static_cast<double>(seconds) * kNsPerSecond) + " ago";
}

Json JsonOf(const Identity& identity) {
  Json json = {{"name", identity.name},           {"identity", identity.identity},
               {"model", identity.model},         {"width", identity.width},
               {"bytes", identity.bytes},         {"used_s", identity.used_s},
               {"served", identity.served},       {"foreign", identity.foreign},
               {"precision", identity.precision}, {"quarantined_files", identity.quarantined}};
  if (identity.entries) json["entries"] = *identity.entries;
  return json;
}

std::string TextOf(const Identity& identity) {
  std::string line = fmt::format("{}  {}", identity.name, Printable(identity.model, HighBytes::kKeep));
  if (!identity.foreign.empty()) return line + "  left alone: " + Printable(identity.foreign, HighBytes::kKeep) + "\n";
  if (!identity.precision.empty()) line += " (" + Printable(identity.precision, HighBytes::kKeep) + ")";
  line += fmt::format(", {} floats, ", identity.width);
  if (identity.entries) line += fmt::format("{} entries, ", *identity.entries);
  line += fmt::format("{} on the disk, written {}", BytesText(static_cast<double>(identity.bytes)),
                      AgeText(identity.used_s));
  if (identity.quarantined > 0) line += fmt::format(", {} damaged files set aside", identity.quarantined);
  return line + (identity.served ? ", served\n" : "\n");
}

// Of the engine at a socket; empty without one.
std::string PrecisionAt(const std::string& socket) {
  const Result<StatsReader> reader = StatsReader::OpenSocket(socket);
  if (!reader.ok()) return "";
  const Result<StatsSnapshot> snapshot = reader->Snapshot();
  return snapshot.ok() ? snapshot->precision : "";
}

Result<std::vector<Identity>> AskEngine(const std::string& socket) {
  const Result<std::string> said = CacheControl({.socket_path = socket}).Identities();
  if (!said.ok()) return said.status();
  const Json json = Json::parse(*said, nullptr, /*allow_exceptions=*/false);
  if (!json.is_array()) return Status(StatusCode::kProtocolViolation, "the engine's answer is no JSON array");
  std::vector<Identity> identities;
  for (const Json& one : json) {
    Identity identity;
    identity.name = one.value("name", "");
    identity.identity = one.value("identity", "");
    identity.model = one.value("model", "");
    identity.foreign = one.value("foreign", "");
    identity.width = one.value("width", 0u);
    identity.bytes = one.value("bytes", uint64_t{0});
    identity.used_s = one.value("used_s", uint64_t{0});
    identity.served = one.value("served", false);
    if (identity.served) identity.precision = PrecisionAt(socket);
    identities.push_back(std::move(identity));
  }
  return identities;
}

uint64_t QuarantinedIn(const OpenDirectory& data, const std::string& name) {
  const Result<OpenDirectory> directory = data.OpenChild(name);
  const Result<std::vector<OpenDirectory::Item>> items =
      directory.ok() ? directory->List() : Result<std::vector<OpenDirectory::Item>>(directory.status());
  if (!items.ok()) return 0;
  return static_cast<uint64_t>(std::count_if(items->begin(), items->end(),
                                             [](const auto& item) { return item.name.ends_with(".quarantined"); }));
}

Identity FromSurvey(const OpenDirectory& data, const IdentitySurvey& survey, const LockHolder& holder) {
  Identity identity;
  identity.name = survey.name;
  identity.identity = survey.model.model_identity;
  identity.model = survey.model.model_name;
  identity.foreign = survey.foreign;
  identity.width = survey.model.width;
  identity.bytes = survey.bytes;
  const uint64_t now_ns = WallNs();
  identity.used_s = (now_ns - std::min(now_ns, survey.used_ns)) / kNsPerSecond;
  identity.served = holder.held && !holder.identity.empty() && holder.identity == identity.identity;
  if (identity.served) identity.precision = PrecisionAt(holder.socket);
  identity.quarantined = QuarantinedIn(data, survey.name);
  return identity;
}

std::optional<uint64_t> EntriesOf(const std::string& data, const std::string& name, const CommandProgress& progress) {
  const auto target = OpenRestTarget(data, name, CacheAccess::kRead, progress);
  const Result<std::string> stats = target.ok() ? (*target)->StatsJson() : Result<std::string>(target.status());
  if (!stats.ok()) return std::nullopt;
  return Json::parse(*stats, nullptr, /*allow_exceptions=*/false).value("entries", uint64_t{0});
}

// Whole caches to remove: what they are, and, for the one that is served, how its entries go.
int DropServed(CacheOptions options) {
  options.model.clear();
  options.filter.everything = true;
  return RunCacheDrop(options);
}

std::string WordsFor(const Identity& identity) {
  return fmt::format("the whole cache of {} ({}, {} on the disk)", Printable(identity.model, HighBytes::kKeep),
                     identity.name, BytesText(static_cast<double>(identity.bytes)));
}

int Report(const CacheOptions& options, const Json& removed) {
  uint64_t bytes = 0;
  for (const Json& one : removed) bytes += one.value("bytes", uint64_t{0});
  const Json json = {{"dry_run", options.dry_run}, {"bytes", bytes}, {"identities", removed}};
  const std::string text =
      fmt::format("{} {} {}, {} of the disk\n", options.dry_run ? "would remove" : "removed", removed.size(),
                  removed.size() == 1 ? "cache" : "caches", BytesText(static_cast<double>(bytes)));
  return PrintAndEnd(options.json ? json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n" : text);
}

// Removes each of them by `remove`; those that the preview has shown, no others.
int RemoveAll(const CacheOptions& options, const std::vector<Identity>& chosen,
              const std::function<Status(const Identity&)>& remove) {
  Json removed = Json::array();
  std::string words;
  for (const Identity& identity : chosen) words += (words.empty() ? "" : ", ") + WordsFor(identity);
  if (!options.dry_run && !Confirmed(options, "remove " + words)) return kCacheError;
  Status status;
  for (const Identity& identity : chosen) {
    status = !identity.foreign.empty()
                 ? Status(StatusCode::kRefused, identity.name + " is left alone: " + identity.foreign)
             : options.dry_run ? Status()
                               : remove(identity);
    if (!status.ok()) break;
    removed.push_back(JsonOf(identity));
  }
  const int code = Report(options, removed);
  return status.ok() ? code : CacheFail(status);
}

int DropLive(const CacheOptions& options, const std::string& socket) {
  Result<std::vector<Identity>> identities = AskEngine(socket);
  if (!identities.ok()) return CacheFail(identities.status());
  std::erase_if(*identities, [&](const Identity& identity) { return !identity.IsOf(options.model); });
  if (identities->empty()) {
    return CacheFail(
        Status(StatusCode::kNotReady, "the engine at " + socket + " has no cache of a model '" + options.model + "'"));
  }
  const bool served = std::any_of(identities->begin(), identities->end(), [](const auto& one) { return one.served; });
  if (served && identities->size() > 1) {
    return CacheFail(Status(StatusCode::kBadOption,
                            "the model that is served and others are called '" + options.model +
                                "': name the one that is meant by how its identity begins (see: identities)"));
  }
  if (served) {
    CacheOptions live = options;
    live.socket = socket;
    live.data.clear();
    live.identity.clear();
    return DropServed(live);
  }
  return RemoveAll(options, *identities, [&](const Identity& identity) {
    CacheControl control({.socket_path = socket});
    const std::string& full = identity.identity;
    return control.DropIdentity(full.empty() ? identity.name : full).status();
  });
}

Status RemoveAtRest(const CacheOptions& options, const OpenDirectory& data, DataLock* lock, const Identity& identity) {
  const Result<uint64_t> removed = lock->Audited<uint64_t>(
      "drop model", "identity " + (identity.identity.empty() ? identity.name : identity.identity),
      [&]() -> Result<uint64_t> {
        const Result<IdentitySurvey> survey = SurveyIdentity(data, identity.name);
        if (!survey.ok()) return survey.status();
        if (!survey->foreign.empty()) {
          return Status(StatusCode::kRefused, survey->path + " is left alone: " + survey->foreign);
        }
        const IdentityRemoval removal = {.may_go_on = [&] { return lock->InPlace() && InterruptedBy() == 0; },
                                         .log =
                                             [&](LogLevel, const std::string& line) {
                                               if (!options.quiet) Say(kCacheName, line);
                                             }};
        const std::string aside = SetAsideName(identity.name);
        const Status left = RemoveSetAside(data, aside, removal);  // of an earlier one of the same name
        if (!left.ok() && left.os_error() != ENOENT) return left;
        if (Status status = SetIdentityAside(data, *survey, removal); !status.ok()) return status;
        if (Status status = RemoveSetAside(data, aside, removal); !status.ok()) return status;
        return survey->bytes;
      },
      [](const uint64_t& bytes) { return std::to_string(bytes) + " bytes removed"; });
  return removed.status();
}

int DropAtRest(const CacheOptions& options) {
  std::optional<DataLock> lock;
  if (!options.dry_run) {
    Result<DataLock> taken = DataLock::Take(options.data);
    if (!taken.ok()) return CacheFail(taken.status());
    lock.emplace(std::move(*taken));
  }
  const Result<OpenDirectory> data = OpenDirectory::Open(options.data);
  if (!data.ok()) return CacheFail(data.status());
  const Result<std::vector<IdentitySurvey>> shards = ShardsOfModel(options.data, options.model);
  if (!shards.ok()) return CacheFail(shards.status());
  std::vector<Identity> chosen;
  for (const IdentitySurvey& shard : *shards) chosen.push_back(FromSurvey(*data, shard, {}));
  return RemoveAll(options, chosen,
                   [&](const Identity& identity) { return RemoveAtRest(options, *data, &*lock, identity); });
}

}  // namespace

int RunCacheIdentities(const CacheOptions& options) {
  const CommandProgress progress(options);
  std::vector<Identity> identities;
  std::vector<std::string> left_overs;
  if (!options.socket.empty()) {
    Result<std::vector<Identity>> said = AskEngine(options.socket);
    if (!said.ok()) return CacheFail(said.status());
    identities = std::move(*said);
  } else {
    const Result<OpenDirectory> data = OpenDirectory::Open(options.data);
    if (!data.ok()) return CacheFail(data.status());
    const Result<std::vector<IdentitySurvey>> surveys = SurveyIdentities(*data);
    if (!surveys.ok()) return CacheFail(surveys.status());
    const LockHolder holder = HolderOfData(options.data);
    for (const IdentitySurvey& survey : *surveys) {
      Identity identity = FromSurvey(*data, survey, holder);
      if (survey.foreign.empty()) identity.entries = EntriesOf(options.data, survey.name, progress);
      identities.push_back(std::move(identity));
      if (InterruptedBy() != 0) return CacheFail(Status(StatusCode::kCancelled, "interrupted"));
    }
    const Result<std::vector<OpenDirectory::Item>> items = data->List();
    if (!items.ok()) return CacheFail(items.status());
    for (const OpenDirectory::Item& item : *items) {
      if (IsSetAside(item.name)) left_overs.push_back(item.name);
    }
  }
  progress->Clear();
  std::string out;
  for (const Identity& identity : identities) {
    out +=
        options.json ? JsonOf(identity).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n" : TextOf(identity);
  }
  for (const std::string& name : left_overs) {
    out += options.json ? Json({{"name", name}, {"left_over", true}}).dump() + "\n"
                        : name + "  of a removal that was cut short; the next engine ends it\n";
  }
  return PrintAndEnd(out);
}

int DropModel(const CacheOptions& options) {
  if (!options.socket.empty()) return DropLive(options, options.socket);
  const LockHolder holder = HolderOfData(options.data);
  if (!holder.held) return DropAtRest(options);
  if (holder.socket.empty()) {
    return CacheFail(Status(StatusCode::kRefused, options.data + " is in use and no statistics say at which socket: "
                                                                 "name it with --socket PATH, or stop it"));
  }
  if (!options.quiet) Say(kCacheName, "an engine serves " + options.data + ": asking it at " + holder.socket);
  return DropLive(options, holder.socket);
}

}  // namespace sutra
