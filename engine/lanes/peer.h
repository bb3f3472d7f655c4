// The process at the other end of a connection, as the kernel names it (SO_PEERCRED): whoever connected, even if
// another process uses the socket now.
//
// Thread rule: one thread per socket.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace sutra {

struct Peer {
  pid_t pid = 0;  // 0: of a PID namespace that this process cannot see
  uid_t uid = 0;
  gid_t gid = 0;
};

// Whether one of the peer's groups, its supplementary ones too, is in `groups`.
bool InAnyGroup(int socket, const Peer& peer, const std::vector<gid_t>& groups);

// The engine's own user, root, and members of `groups`: who may map the hot table, read texts of the cache, or control
// the engine, each with its own groups.
bool IsTrusted(int socket, const Peer& peer, const std::vector<gid_t>& groups);

// "uid 1000 pid 4711", for messages.
std::string PeerText(const Peer& peer);

}  // namespace sutra
