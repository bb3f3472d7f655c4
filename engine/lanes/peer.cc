// Supplementary groups come from SO_PEERGROUPS.
#include "engine/lanes/peer.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace sutra {

bool InAnyGroup(int socket, const Peer& peer, const std::vector<gid_t>& groups) {
  const auto has = [&](gid_t group) { return std::find(groups.begin(), groups.end(), group) != groups.end(); };
  if (groups.empty()) return false;
  if (has(peer.gid)) return true;
  std::vector<gid_t> of_peer(64);
  socklen_t length = static_cast<socklen_t>(of_peer.size() * sizeof(gid_t));
  int result = getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, of_peer.data(), &length);
  if (result != 0 && errno == ERANGE) {
    of_peer.resize(length / sizeof(gid_t));
    result = getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, of_peer.data(), &length);
  }
  if (result != 0) return false;
  of_peer.resize(length / sizeof(gid_t));
  return std::any_of(of_peer.begin(), of_peer.end(), has);
}

bool IsTrusted(int socket, const Peer& peer, const std::vector<gid_t>& groups) {
  return peer.uid == geteuid() || peer.uid == 0 || InAnyGroup(socket, peer, groups);
}

std::string PeerText(const Peer& peer) {
  return "uid " + std::to_string(peer.uid) + " pid " + std::to_string(peer.pid);
}

}  // namespace sutra
