// Control sessions on a live engine's socket: an operator's commands, and the standbys that wait. The acceptor hands a
// connection over as soon as its first message shows what it is; that message is still unread then.
//
// Thread rule: the loop thread. Nothing here blocks: a message is read whole or not at all, and an answer that does not
// fit into the socket's buffer ends the session.
// Invariants:
//  - Only the engine's own user, root and members of --control-gid get past the first message; anybody else is told
//  why.
//  - One operator at a time: a second one is answered `overloaded` at once, with the time after which the place is free
//    at the latest. It is not queued, since a queue would be the engine's memory and the asker knows best how long it
//    wants to wait (ControlClient does).
//  - A session whose cache command runs (admin_thread.h) gives the operator's place up meanwhile: status and hand-over
//    are always there. There is one such session, and so there are at most 2 + kStandbysMax. It is told how far the
//    command is, and ended as soon as it does not read that. It has nothing to say until its answer.
//  - Silence for kControlStepMsMax ends an operator's session, and kControlSessionMsMax any of them; what was sent in
//    time is read before. The time that a cache command takes does not count.
//  - A command takes effect only after its confirmation was handed to the kernel for an asker that is still there. A
//    cache command is confirmed after its effect, since that is what its asker waits for.
//  - No descriptor is ever received: closing a copy of a lane's memory would drop the lock on it (peer_liveness.h).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/control/admin_thread.h"
#include "engine/control/control_frame.h"
#include "engine/control/standby_roster.h"
#include "engine/lanes/peer.h"
#include "engine/model/model_info.h"
#include "shm/base/log_line.h"
#include "shm/base/unique_fd.h"
#include "shm/layout.h"
#include "shm/stats/stats_writer.h"

namespace sutra {

class ControlSessions {
 public:
  struct Options {
    std::vector<gid_t> control_gids;
    // Of those that may control, members of these see texts, too (get, page), as the engine's user and root do.
    std::vector<gid_t> text_gids = {};
    std::string version, socket_path;
    ModelInfo model = {};
    uint64_t engine_generation = 0;
    uint64_t started_ns = 0;
    StatsWriter stats = {};
    KindLog log = {};  // rate-limited by the callee
    std::function<LogVerbosity()> verbosity = [] { return LogVerbosity::kInfo; };
    std::function<void(LogVerbosity)> set_verbosity = [](LogVerbosity) {};
    AdminThread* admin = nullptr;  // null: an engine without a cache
  };
  // What the loop knows, and does.
  struct Facts {
    EngineState state = kEngineStarting;
    size_t lanes = 0;
    size_t clients = 0;
  };
  struct Loop {
    std::function<bool(int fd, uint64_t id)> watch;
    std::function<void(int fd)> unwatch;
    std::function<Facts()> facts;
    std::function<void()> hand_over;  // begins the drain, as SIGTERM does
  };

  ControlSessions(Options options, Loop loop);

  // Whether this peer may have a control session.
  bool MayControl(int socket, const Peer& peer) const;
  // A connection whose first message, unread, is one of a control session.
  void Take(UniqueFd socket, const Peer& peer, uint64_t now_ns);
  // The session `id` is readable or hung up.
  void OnReady(uint64_t id, uint64_t now_ns);
  // The admin thread's descriptor is readable: answers who asked.
  void OnCacheReply(uint64_t now_ns);
  // Ends sessions that are silent for too long, and tells how far the cache command is.
  void Expire(uint64_t now_ns);
  // The engine drains: a cache command that runs ends as soon as it can.
  void Drain();
  // Whether a cache command is still under way, its answer included.
  bool busy() const { return options_.admin != nullptr && options_.admin->busy(); }

  const StandbyRoster& standbys() const { return standbys_; }
  size_t size() const { return sessions_.size(); }

 private:
  struct Session {
    UniqueFd socket;
    Peer peer;
    bool standby = false;
    uint64_t silent_until_ns = 0;  // an operator's
    uint64_t ends_ns = 0;          // an operator's
    std::string payload;           // of its next cache command, so far
  };
  // The session whose cache command runs. It may be gone already: then nobody is answered.
  struct Working {
    uint64_t id = 0;  // 0 = none runs
    ControlCall call;
    Peer peer;
    uint64_t since_ns = 0;
    uint64_t tell_next_ns = 0;
  };

  void Serve(uint64_t id, uint64_t now_ns);
  void HandleMessage(uint64_t id, std::span<const char> message, uint64_t now_ns);
  Status Admit(uint64_t id, const ControlCall& call, uint64_t now_ns);
  Status Run(uint64_t id, const ControlRequest& request, const ControlCall& call, uint64_t now_ns);
  Status Register(uint64_t id, const StandbyHello& hello, uint64_t now_ns);
  Status SetLogLevel(uint64_t id, const ControlCall& call, LogVerbosity verbosity);
  Status HandOver(uint64_t id, const ControlCall& call, uint64_t now_ns);
  Status TakePiece(uint64_t id, std::string_view piece);
  Status BeginCacheCommand(uint64_t id, const CacheCall& cache, const ControlCall& call, uint64_t now_ns);
  bool MayReadTexts(const Session& session) const;
  void TellProgress(uint64_t now_ns);
  std::string StatusText(uint64_t now_ns) const;
  bool Answer(uint64_t id, const ControlCall& call, std::string_view body, StatusCode code = StatusCode::kOk,
              uint32_t retry_after_ms = 0, int payload = -1);
  void Refuse(uint64_t id, const ControlCall& call, const Status& status, uint32_t retry_after_ms = 0);
  void End(uint64_t id);

  const Options options_;
  const Loop loop_;
  StandbyRoster standbys_;
  std::map<uint64_t, Session> sessions_;
  uint64_t operator_ = 0;  // the session that holds the operator's place; 0 = it is free
  Working working_;
  uint64_t next_id_ = 1;
  std::vector<char> buffer_;  // of one message, and a byte by which a longer one is noticed
};

}  // namespace sutra
