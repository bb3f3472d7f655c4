// An engine is found by the process that the lock file names: its stats segment says which socket it serves.
#include "tools/cache/data_directory.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <functional>

#include "cache/disk/open_directory.h"
#include "cache/identity_removal.h"
#include "shm/base/host.h"
#include "shm/base/numbers.h"
#include "shm/base/printable.h"
#include "shm/base/time.h"
#include "shm/base/unique_fd.h"
#include "shm/hot_table.h"
#include "shm/stats/stats_reader.h"

namespace sutra {

namespace {

constexpr int kTriesMax = 10;

std::string LockPath(const std::string& data) { return data + "/LOCK"; }

std::string ListOf(const std::vector<IdentitySurvey>& shards) {
  std::string text;
  for (const IdentitySurvey& shard : shards) {
    text += "\n  " + shard.name + "  " + Printable(shard.model.model_name, HighBytes::kKeep);
  }
  return text;
}

Result<std::vector<IdentitySurvey>> AllShards(const std::string& data) {
  const Result<OpenDirectory> directory = OpenDirectory::Open(data);
  if (!directory.ok()) return directory.status();
  return SurveyIdentities(*directory);
}

// An identity may be given in full; the name of its directory is its beginning.
bool Begins(const IdentitySurvey& shard, const std::string& identity) {
  const std::string& full = shard.model.model_identity;
  return shard.name.starts_with(identity) || (full.starts_with(shard.name) && full.starts_with(identity));
}

bool IsHeld(const std::string& path) {
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
  struct flock query = {};
  query.l_type = F_WRLCK;
  query.l_whence = SEEK_SET;
  return file && fcntl(file.get(), F_OFD_GETLK, &query) == 0 && query.l_type != F_UNLCK;
}

uint64_t PidOf(const std::string& holder) {
  constexpr std::string_view kPrefix = "pid ";
  uint64_t pid = 0;
  if (holder.starts_with(kPrefix)) {
    std::from_chars(holder.data() + kPrefix.size(), holder.data() + holder.size(), pid);
  }
  return pid;
}

// What root made in somebody's directory would be root's, and the engine could not open it.
Status BecomeOwner(const std::string& data) {
  struct stat info = {};
  if (geteuid() != 0 || stat(data.c_str(), &info) != 0 || info.st_uid == 0) return {};
  if (setgroups(0, nullptr) == 0 && setegid(info.st_gid) == 0 && seteuid(info.st_uid) == 0) return {};
  return Status::FromErrno(StatusCode::kRefused, "becoming the user to whom " + data + " belongs", errno);
}

}  // namespace

Result<IdentitySurvey> ChooseShard(const std::string& data, const std::string& identity) {
  const Result<std::vector<IdentitySurvey>> all = AllShards(data);
  if (!all.ok()) return all.status();
  std::vector<IdentitySurvey> chosen;
  for (const IdentitySurvey& shard : *all) {
    if (Begins(shard, identity)) chosen.push_back(shard);
  }
  if (chosen.empty()) {
    return Status(StatusCode::kNotReady, identity.empty()
                                             ? data + " holds no cache"
                                             : data + " holds no cache whose identity begins with '" + identity + "'" +
                                                   (all->empty() ? "" : "; there are:" + ListOf(*all)));
  }
  if (chosen.size() > 1) {
    return Status(StatusCode::kBadOption,
                  data + " holds several caches; choose one with --identity PREFIX:" + ListOf(chosen));
  }
  return chosen.front();
}

Result<std::vector<IdentitySurvey>> ShardsOfModel(const std::string& data, const std::string& model) {
  Result<std::vector<IdentitySurvey>> all = AllShards(data);
  if (!all.ok()) return all;
  std::erase_if(*all,
                [&](const IdentitySurvey& shard) { return shard.model.model_name != model && !Begins(shard, model); });
  if (all->empty()) return Status(StatusCode::kNotReady, data + " holds no cache of a model '" + model + "'");
  return all;
}

bool ReadWhileItStays(const std::string& data, const std::string& name,
                      const std::function<void(const Result<IdentitySurvey>& survey)>& read) {
  const auto survey = [&]() -> Result<IdentitySurvey> {
    const Result<OpenDirectory> directory = OpenDirectory::Open(data);
    if (!directory.ok()) return directory.status();
    return SurveyIdentity(*directory, name);
  };
  for (int i = 0; i < kTriesMax; ++i) {
    const Result<IdentitySurvey> before = survey();
    read(before);
    if (!before.ok() || !IsHeld(LockPath(data))) return true;
    const Result<IdentitySurvey> after = survey();
    const bool stayed = after.ok() && std::includes(after->segments.begin(), after->segments.end(),
                                                    before->segments.begin(), before->segments.end());
    if (stayed) return true;
  }
  return false;
}

Status WrittenTooFast(const std::string& path) {
  return Status(StatusCode::kOverloaded, "an engine writes the log in " + path +
                                             " anew faster than it can be read: ask the engine, with --socket PATH");
}

LockHolder HolderOfData(const std::string& data) {
  LockHolder holder;
  holder.held = IsHeld(LockPath(data));
  if (!holder.held) return holder;
  holder.pid = PidOf(EngineLock::HolderOf(LockPath(data)));
  if (holder.pid == 0) return holder;
  for (const std::string& name : StatsReader::List()) {
    const Result<StatsReader> reader = StatsReader::OpenName(name);
    const Result<StatsSnapshot> snapshot = reader.ok() ? reader->Snapshot() : Result<StatsSnapshot>(reader.status());
    if (!snapshot.ok() || snapshot->boot_id != HostBootId() || snapshot->gauge(Gauge::kPid) != holder.pid) continue;
    holder.socket = snapshot->socket;
    holder.model = snapshot->model;
    holder.identity = snapshot->identity;
    break;
  }
  return holder;
}

DataLock::DataLock(std::string data, EngineLock lock)
    : data_(std::move(data)), lock_(std::make_unique<EngineLock>(std::move(lock))), taken_ns_(MonotonicNs()) {}

DataLock::~DataLock() {
  if (lock_ != nullptr) lock_->RemoveIfCreated();
}

Result<DataLock> DataLock::Take(const std::string& data) {
  if (Status status = BecomeOwner(data); !status.ok()) return status;
  Result<EngineLock> lock = EngineLock::Take(LockPath(data));
  if (lock.ok()) return DataLock(data, std::move(*lock));
  if (lock.code() != StatusCode::kRefused) return lock.status();
  const std::string who = EngineLock::HolderOf(LockPath(data));
  return Status(StatusCode::kRefused, data + " is in use" + (who.empty() ? "" : " (" + who + ")") +
                                          ": name the engine with --socket PATH, or stop it, and try again");
}

// Twice the age at which a client stops believing a heartbeat, as cache_commands.h has it.
void DataLock::AwaitDoubt() const {
  const uint64_t until_ns = taken_ns_ + 2 * kHotHeartbeatNsMax;
  for (uint64_t now_ns = MonotonicNs(); now_ns < until_ns; now_ns = MonotonicNs()) {
    static_cast<void>(poll(nullptr, 0, static_cast<int>(DivideRoundUp(until_ns - now_ns, kNsPerMs))));
  }
}

Status DataLock::Say(const char* command, const std::string& what, const std::string* result) {
  AuditLog log(data_);
  AuditLine line{std::string("cache ") + command, getuid(), static_cast<uint64_t>(getpid()), what,
                 result != nullptr ? *result : ""};
  return result == nullptr ? log.Intend(line) : log.Finish(line);
}

}  // namespace sutra
