// Who is who, as the kernel says it; and the sums of the charges.
#include "engine/lanes/client_table.h"

#include <sys/stat.h>
#include <sys/vfs.h>

#include <cassert>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "shm/base/unique_fd.h"
#include "shm/peer_liveness.h"

namespace sutra {
namespace {

// Before Linux 6.9 all pidfds had one inode.
std::optional<uint64_t> InodeOfPidFd(int pid_fd) {
  constexpr long kPidFsMagic = 0x50494446;
  struct statfs system = {};
  struct stat info = {};
  if (pid_fd < 0 || fstatfs(pid_fd, &system) != 0 || system.f_type != kPidFsMagic) return std::nullopt;
  if (fstat(pid_fd, &info) != 0) return std::nullopt;
  return info.st_ino;
}

// Field 22 of /proc/PID/stat, in clock ticks since the host was started.
std::optional<uint64_t> StartTimeOf(pid_t pid) {
  if (pid <= 0) return std::nullopt;
  char path[32], line[1024] = {};
  std::snprintf(path, sizeof(path), "/proc/%d/stat", pid);
  std::FILE* file = std::fopen(path, "re");
  if (file == nullptr) return std::nullopt;
  const size_t bytes = std::fread(line, 1, sizeof(line) - 1, file);
  std::fclose(file);
  line[bytes] = '\0';
  const char* rest = std::strrchr(line, ')');  // the name in front may hold anything
  unsigned long long ticks = 0;
  constexpr char kFields[] = ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu";
  if (rest == nullptr || std::sscanf(rest, kFields, &ticks) != 1) return std::nullopt;
  return ticks;
}

bool IsShort(int error) { return error == EMFILE || error == ENFILE || error == ENOMEM; }

}  // namespace

std::optional<ClientKey> KeyOfClient(int pid_fd, uid_t uid, pid_t pid, uint64_t otherwise) {
  using Kind = ClientKey::Kind;
  if (const auto inode = InodeOfPidFd(pid_fd))
    return ClientKey{.kind = Kind::kPidFdInode, .uid = uid, .number = *inode};
  errno = 0;
  if (const auto ticks = StartTimeOf(pid)) {
    return ClientKey{.kind = Kind::kStartTime, .uid = uid, .pid = pid, .number = *ticks};
  }
  if (IsShort(errno)) return std::nullopt;
  return ClientKey{.kind = Kind::kUnknown, .uid = uid, .number = otherwise};
}

ClientPtr ClientTable::Find(int socket, uid_t uid, pid_t pid, const std::string& name) {
  UniqueFd pid_fd(PeerPidFd(socket));
  if (!pid_fd && IsShort(errno)) return nullptr;
  const uint64_t id = next_id_++;
  const std::optional<ClientKey> known_key = KeyOfClient(pid_fd.get(), uid, pid, id);
  if (!known_key.has_value()) return nullptr;
  const ClientKey key = *known_key;
  {
    const MutexLock lock(mutex_);
    const auto known = clients_.find(key);
    if (known != clients_.end()) {
      if (ClientPtr client = known->second.lock()) return client;
    }
  }
  // Outside the mutex, which the end of a client takes.
  const ClientPtr client(new Client(id, uid, pid, name, std::move(pid_fd)),
                         [table = shared_from_this(), key](Client* ended) {
                           delete ended;
                           table->Forget(key);
                         });
  const MutexLock lock(mutex_);
  clients_[key] = client;
  return client;
}

void ClientTable::Forget(const ClientKey& key) {
  const MutexLock lock(mutex_);
  const auto found = clients_.find(key);
  if (found != clients_.end() && found->second.expired()) clients_.erase(found);
}

Result<ClientTable::Charge> ClientTable::Take(const ClientPtr& client, uint64_t bytes, Bound* over) {
  const MutexLock lock(mutex_);
  LaneShare& of_uid = by_uid_[client->uid];
  if (Status status = Check(*client, of_uid, bytes, over); !status.ok()) {
    if (of_uid.lanes == 0) by_uid_.erase(client->uid);
    return status;
  }
  for (LaneShare* share : {&client->share, &of_uid, &total_}) {
    ++share->lanes;
    share->bytes += bytes;
  }
  Charge charge;
  charge.table_ = shared_from_this();
  charge.client_ = client;
  charge.bytes_ = bytes;
  return charge;
}

Status ClientTable::Check(const Client& client, const LaneShare& of_uid, uint64_t bytes, Bound* bound) const {
  const auto over = [](uint64_t limit, const std::string& what, const char* option) {
    return Status(StatusCode::kRefused, "the engine's limit of " + std::to_string(limit) + " " + what +
                                            " is reached: detach others, attach with fewer slots or shorter texts, or "
                                            "start the engine with a larger " +
                                            option);
  };
  const auto of_user = [&] { return " of uid " + std::to_string(client.uid); };
  const auto of_process = [&] { return " of process " + std::to_string(client.pid); };
  const auto asked = [&] { return " with the " + std::to_string(bytes) + " asked for"; };
  const auto too_many = [bytes](uint64_t used, uint64_t limit) { return used > limit || bytes > limit - used; };
  const Limits& most = limits_;
  *bound = Bound::kLanes;
  if (total_.lanes >= most.total.lanes) return over(most.total.lanes, "lanes", most.lanes_raised_by);
  if (of_uid.lanes >= most.per_uid.lanes) {
    return over(most.per_uid.lanes, "lanes" + of_user(), "--lanes-per-uid-max");
  }
  if (client.share.lanes >= most.per_client.lanes) {
    return over(most.per_client.lanes, "lanes" + of_process(), "--lanes-per-client-max");
  }
  *bound = Bound::kBytes;
  if (too_many(total_.bytes, most.total.bytes)) {
    return over(most.total.bytes, "bytes of all lanes" + asked(), "--lane-bytes-max");
  }
  if (too_many(of_uid.bytes, most.per_uid.bytes)) {
    return over(most.per_uid.bytes, "bytes of the lanes" + of_user() + asked(), "--lane-bytes-per-uid-max");
  }
  if (too_many(client.share.bytes, most.per_client.bytes)) {
    return over(most.per_client.bytes, "bytes of the lanes" + of_process() + asked(), "--lane-bytes-per-client-max");
  }
  return {};
}

void ClientTable::Return(Client* client, uint64_t bytes) {
  const MutexLock lock(mutex_);
  const auto of_uid = by_uid_.find(client->uid);
  assert(of_uid != by_uid_.end());
  for (LaneShare* share : {&client->share, &of_uid->second, &total_}) {
    assert(share->lanes > 0 && share->bytes >= bytes);
    --share->lanes;
    share->bytes -= bytes;
  }
  if (of_uid->second.lanes == 0) by_uid_.erase(of_uid);
}

LaneShare ClientTable::total() const {
  const MutexLock lock(mutex_);
  return total_;
}

LaneShare ClientTable::ShareOf(const Client& client) const {
  const MutexLock lock(mutex_);
  return client.share;
}

size_t ClientTable::size() const {
  const MutexLock lock(mutex_);
  return clients_.size();
}

}  // namespace sutra
