// Accepts on the engine's Unix socket and takes clients through the attach handshake (shm/handshake_messages.h): hello,
// checks and quotas, fresh sealed memfds, the client's lock. The result is a lane that may be served.
//
// Thread rule: the loop thread. Nothing here blocks: each connection is a small state machine driven by the loop's
// epoll, and each step of a client may take kAttachStepMsMax. The memory is made by the thread of LaneMaker.
// Invariants:
//  - Only allowed users get past the hello (SO_PEERCRED and the peer's groups; the socket's mode is not relied upon).
//    Whoever can read the hot table can tell which of the texts it knows are cached, so fewer get that.
//  - Everything is received with plain recv, so that the kernel discards descriptors that a client sends along: closing
//    a received copy of our own reply memfd would drop the lock that proves that the engine is alive.
//  - A refusal gives cause and fix, to the client and (once a second) to the log, and is counted under its reason.
//  - The process that connected is the one that locks, and it lives: a socket that another process hands on brings no
//    lane. So there are no more clients than processes, each with the share, the turns and the quota of one.
//  - A client that says nothing costs its own user a place, never all of them. Nobody loses its turn because the loop
//    was late: what a client has sent is read before its time is said to be up.
//  - Out of memory or of descriptors, an attach is refused or dropped; nobody is let in for want of memory for the
//    refusal.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/lanes/attach_rate.h"
#include "engine/lanes/client_table.h"
#include "engine/lanes/lane.h"
#include "engine/lanes/lane_maker.h"
#include "engine/lanes/peer.h"
#include "engine/model/model_info.h"
#include "shm/base/log_line.h"
#include "shm/handshake_messages.h"
#include "shm/lane_memory.h"
#include "shm/peer_liveness.h"
#include "shm/stats/stats_writer.h"

namespace sutra {

class Acceptor {
 public:
  struct Options {
    std::vector<uid_t> allow_uids;
    std::vector<gid_t> allow_gids;
    uint32_t slots_default = kSlotsDefault;
    uint32_t text_bytes_max = kTextBytesMaxDefault;
    ModelInfo model;
    uint64_t engine_generation = 0;
    int engine_page_fd = -1;
    // The hot table, for the engine's own user, root, and members of these groups, if their library knows it.
    int hot_fd = -1;  // there is none
    uint32_t hot_slots = 0;
    std::vector<gid_t> hot_gids = {};
    PeerAliveFunction peer_alive = LockHeldBy;
    ClientTable::Limits quota;
    uint32_t attach_rate_max = 0;  // per second and user; at least 1
    StatsWriter stats;
    KindLog log;  // rate-limited by the callee
  };

  // The loop adds and removes descriptors on the acceptor's behalf; an event carries the `id` back.
  struct Watcher {
    std::function<void(int fd, uint64_t id)> watch;
    std::function<void(int fd)> unwatch;
    std::function<void(AttachedLane)> attached;
    // Control sessions come through the same socket: who may have one, and who gets a connection whose first message,
    // unread, is one of theirs. May be empty: such a connection is refused then.
    std::function<bool(int socket, const Peer&)> may_control = {};
    std::function<void(UniqueFd socket, const Peer&)> control = {};
  };

  Acceptor(Options options, Watcher watcher);

  // kOk, or why no lane can be made.
  Status Start() { return maker_->Start(); }
  // Readable when OnMade has something to do.
  int made_fd() const { return maker_->fd(); }

  // The listening socket is readable. Accepts a bounded number of connections. False: out of descriptors (the next
  // client was accepted with the spare one and will be told), so stop watching the socket until the next Expire.
  bool OnListen(int listen_fd, uint64_t now_ns);
  // The connection `id` is readable or hung up.
  void OnReady(uint64_t id, uint64_t now_ns);
  // Lane memory was made or given back.
  void OnMade(uint64_t now_ns);
  // Drops connections whose current step timed out, but for what they have sent meanwhile.
  void Expire(uint64_t now_ns);
  // From now on every client is refused with `shutting down`, those included that are under way. Until the `last` call
  // a peer that may control the engine is heard first: it may want to know how far the drain is.
  void Drain(uint64_t now_ns, bool last = false);

  size_t pending() const { return connections_.size(); }
  // Of those, the ones that wait for the engine.
  size_t making() const;
  const ClientTable& clients() const { return *clients_; }
  // The engine leaves: its clients still have the requests that were not answered.
  void KeepTexts() { maker_->KeepTexts(); }

 private:
  static constexpr int kAcceptsPerTurn = 16;
  static constexpr size_t kPendingMax = 256;
  static constexpr size_t kPendingPerUidMax = 64;
  static constexpr uint32_t kPendingRetryMs = 100;
  static constexpr size_t kStrangersMax = 32;  // unauthorised ones kept pending; further ones are dropped silently

  enum class Step : uint8_t {
    kHello,   // waits for the client's hello
    kCharge,  // waits for the charge of a lane that has ended and is being given back
    kMemory,  // waits for its memory
    kLock,    // waits for the client's lock
  };
  struct Refusal {
    Status status;
    Counter reason = Counter::kRefusedProtocol;
    uint32_t retry_after_ms = 0;
  };
  struct Connection {
    UniqueFd socket;
    Peer peer;
    Step step = Step::kHello;
    uint64_t deadline_ns = 0;  // of the client's next message
    Refusal refusal;           // not ok: the hello is awaited only in order to answer it with this
    // From the hello on:
    ClientPtr client;
    LaneGeometry geometry;
    bool hot = false;  // gets the hot table
    // From the welcome on:
    ClientTable::Charge charge;
    LaneMemory memory;
    UniqueFd event_pipe;
    uint64_t lane_id = 0;
  };

  void Admit(UniqueFd socket, const Refusal& refusal, uint64_t now_ns);
  void AdmitOrRefuse(uint64_t id, Connection* connection, uint64_t now_ns);
  bool AcceptWithSpare(int listen_fd, uint64_t now_ns);
  void OnMessage(uint64_t id, Connection* connection, uint64_t now_ns);
  void RefuseForMemory(uint64_t id, uint64_t now_ns);
  void Forget(uint64_t id);
  bool Allowed(int socket, const Peer& peer) const;
  bool MayControl(const Connection& connection) const;
  bool GetsHotTable(const Connection& connection, const HelloMessage& hello) const;
  bool HandToControl(uint64_t id);
  Status CheckHello(const HelloMessage& hello, LaneGeometry* geometry) const;
  void OnHello(uint64_t id, Connection* connection, uint64_t now_ns);
  void OnLocked(uint64_t id, Connection* connection);
  bool HoldsItsLane(const Connection& connection) const;
  Refusal OrderMemory(uint64_t id, Connection* connection, uint64_t now_ns);
  void OnMemory(LaneMaker::Made made, uint64_t now_ns);
  void TryChargesAgain(uint64_t now_ns);
  AttachedLane MakeLane(Connection* connection);
  Status Welcome(Connection* connection, uint64_t now_ns);
  WelcomeMessage MakeWelcome(uint64_t now_ns) const;
  void Refuse(uint64_t id, const Refusal& refusal, uint64_t now_ns);
  static Refusal DrainRefusal();
  static Refusal NoDescriptor();
  void RefuseAtOnce(uint64_t id, const Refusal& refusal, uint64_t now_ns);
  void Drop(uint64_t id, const std::string& why, Counter reason);
  std::string NumbersOf(const Client& client) const;
  size_t Strangers() const;
  size_t PendingOf(uid_t uid) const;

  const Options options_;
  const Watcher watcher_;
  const std::shared_ptr<ClientTable> clients_;
  const std::shared_ptr<LaneMaker> maker_;
  LaneIdentity identity_;
  AttachRate rate_, reply_bytes_rate_;
  bool draining_ = false;
  bool closed_ = false;
  UniqueFd spare_;  // given up to accept and refuse a client when there are no others
  std::map<uint64_t, Connection> connections_;
  uint64_t connection_next_ = 1;
  uint64_t lane_next_ = 1;
};

}  // namespace sutra
