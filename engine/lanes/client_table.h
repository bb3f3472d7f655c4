// Which client process a connection belongs to.
// Thread rule: the loop thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "engine/lanes/client.h"

namespace sutra {

class ClientTable {
 public:
  // The client of this process: the one that exists already, or a new one. A pid of 0 (the process lives in another PID
  // namespace) is a client of its own each time.
  ClientPtr Find(uid_t uid, pid_t pid, const std::string& name) {
    std::erase_if(clients_, [](const auto& item) { return item.second.expired(); });
    if (pid <= 0) return std::make_shared<Client>(next_id_++, uid, pid, name);
    std::weak_ptr<Client>& known = clients_[{uid, pid}];
    ClientPtr client = known.lock();
    if (client == nullptr) known = client = std::make_shared<Client>(next_id_++, uid, pid, name);
    return client;
  }

 private:
  std::map<std::pair<uid_t, pid_t>, std::weak_ptr<Client>> clients_;
  uint64_t next_id_ = 1;
};

}  // namespace sutra
