// The client processes that are attached or attaching: which process a connection belongs to, and what its lanes may
// claim: a share per process, per user, and of all. A lane is charged at its full size, from the attach until its
// memory is really given back, which can be much later than the end of its client.
//
// Thread rule: the loop thread looks clients up and charges them; charges are returned, and the last reference to a
// client is dropped, wherever that happens. Invariants:
//  - Each process has one Client, however many lanes it opens. Processes of other PID namespaces are told apart too.
//  - The table has an entry for a client that something refers to (an attach under way, a lane, a text that waits), and
//    no other: the bounds of those bound the table.
//  - The sums are what the charges say that have not been returned.
#pragma once

#include <sys/types.h>

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "engine/lanes/client.h"
#include "shm/base/mutex.h"
#include "shm/base/status.h"

namespace sutra {

// What makes a process one process, for as long as the engine lives.
struct ClientKey {
  enum class Kind : uint8_t {
    kPidFdInode,  // `number` is the inode of its pidfd, which the kernel never uses again (Linux 6.9)
    kStartTime,   // `number` is when the process `pid` was started
    kUnknown,     // `number` is the connection's own: nothing else is known about this process
  };
  Kind kind = Kind::kUnknown;
  uid_t uid = 0;
  pid_t pid = 0;  // 0 unless kStartTime
  uint64_t number = 0;

  auto operator<=>(const ClientKey&) const = default;
};

// `pid_fd` may be -1. `otherwise` is the number of a client of which nothing is known. Nothing: it could not be found
// out for want of descriptors or memory.
std::optional<ClientKey> KeyOfClient(int pid_fd, uid_t uid, pid_t pid, uint64_t otherwise);

class ClientTable : public std::enable_shared_from_this<ClientTable> {
 public:
  struct Limits {
    LaneShare total, per_uid, per_client;
    const char* lanes_raised_by = "--lanes-max";  // what an operator must raise for more lanes
  };

  // Returns what was charged when it is destroyed. Keeps the client.
  class Charge {
   public:
    Charge() = default;
    Charge(Charge&& other) noexcept { *this = std::move(other); }
    Charge& operator=(Charge&& other) noexcept {
      std::swap(table_, other.table_);
      std::swap(client_, other.client_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Charge() {
      if (table_ != nullptr) table_->Return(client_.get(), bytes_);
    }

   private:
    friend class ClientTable;
    std::shared_ptr<ClientTable> table_;
    ClientPtr client_;
    uint64_t bytes_ = 0;
  };

  explicit ClientTable(const Limits& limits) : limits_(limits) {}

  // The client that connected `socket`: the one that exists already, or a new one, called `name`. Null if the engine
  // has no descriptor to tell: a process must not be taken for another one meanwhile. The loop thread.
  ClientPtr Find(int socket, uid_t uid, pid_t pid, const std::string& name);

  // For one lane. kRefused names the bound that is reached and the option that raises it; *over says its kind.
  enum class Bound : uint8_t { kLanes, kBytes };
  Result<Charge> Take(const ClientPtr& client, uint64_t bytes, Bound* over);

  LaneShare total() const;
  LaneShare ShareOf(const Client& client) const;
  size_t size() const;

 private:
  Status Check(const Client& client, const LaneShare& of_uid, uint64_t bytes, Bound* over) const SUTRA_REQUIRES(mutex_);
  void Return(Client* client, uint64_t bytes);
  void Forget(const ClientKey& key);

  const Limits limits_;
  uint64_t next_id_ = 1;  // the loop thread's
  mutable Mutex mutex_;   // also guards Client::share
  std::map<ClientKey, std::weak_ptr<Client>> clients_ SUTRA_GUARDED_BY(mutex_);
  std::map<uid_t, LaneShare> by_uid_ SUTRA_GUARDED_BY(mutex_);  // no entry for a user without lanes
  LaneShare total_ SUTRA_GUARDED_BY(mutex_);
};

}  // namespace sutra
