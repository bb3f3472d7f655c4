// A session's first message decides what it is: a standby's registration, or an operator's first command.
#include "engine/control/control_sessions.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <new>
#include <utility>

#include "shm/base/enum_names.h"
#include "shm/base/json_object.h"
#include "shm/base/time.h"
#include "shm/handshake.h"

namespace sutra {
namespace {

constexpr uint32_t kCacheRetryMs = 100;  // while another one's command runs: nobody knows for how long

constexpr std::pair<const char*, EngineState> kStateNames[] = {{"starting", kEngineStarting},
                                                               {"serving", kEngineServing},
                                                               {"draining", kEngineDraining},
                                                               {"closed", kEngineClosed}};

std::string Hex(uint64_t number) {
  char text[17];
  std::snprintf(text, sizeof(text), "%016" PRIx64, number);
  return text;
}

Status Leaving() {
  return Status(StatusCode::kShuttingDown, "the engine is shutting down: the next one takes commands");
}

}  // namespace

ControlSessions::ControlSessions(Options options, Loop loop)
    : options_(std::move(options)),
      loop_(std::move(loop)),
      standbys_(options_.model),
      buffer_(kControlMessageBytesMax + 1) {}

bool ControlSessions::MayControl(int socket, const Peer& peer) const {
  return IsTrusted(socket, peer, options_.control_gids);
}

void ControlSessions::Take(UniqueFd socket, const Peer& peer, uint64_t now_ns) {
  const uint64_t id = next_id_++;
  try {
    Session& session = sessions_[id];
    session.socket = std::move(socket);
    session.peer = peer;
    if (!loop_.watch(session.socket.get(), id)) return End(id);
    Serve(id, now_ns);
    // Whoever is nothing by now was answered, or has hung up.
    const auto found = sessions_.find(id);
    const bool something = operator_ == id || working_.id == id;
    if (found != sessions_.end() && !found->second.standby && !something) End(id);
    assert(sessions_.size() <= kStandbysMax + 2);
  } catch (const std::bad_alloc&) {
    End(id);
    options_.stats.Add(Counter::kOutOfMemory);
  }
}

void ControlSessions::OnReady(uint64_t id, uint64_t now_ns) {
  try {
    Serve(id, now_ns);
  } catch (const std::bad_alloc&) {
    End(id);
    options_.stats.Add(Counter::kOutOfMemory);
  }
}

void ControlSessions::Serve(uint64_t id, uint64_t now_ns) {
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) return;
  ssize_t count;
  do {
    count = recv(found->second.socket.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT | MSG_TRUNC);
  } while (count < 0 && errno == EINTR);
  if (count < 0 && errno == EAGAIN) return;
  if (count <= 0) return End(id);
  HandleMessage(id, {buffer_.data(), std::min(static_cast<size_t>(count), buffer_.size())}, now_ns);
}

void ControlSessions::HandleMessage(uint64_t id, std::span<const char> message, uint64_t now_ns) {
  const ControlCall call = CallOf(message);
  if (working_.id == id) {
    return Refuse(id, call, Status(StatusCode::kProtocolViolation, "a session waits for the answer before it goes on"));
  }
  if (const Status status = Admit(id, call, now_ns); !status.ok()) {
    const bool later = status.code() == StatusCode::kOverloaded;
    return Refuse(id, call, status, later ? static_cast<uint32_t>(kControlStepMsMax) : 0);
  }
  const Result<ControlRequest> request = ParseRequest(message);
  if (!request.ok() && request.code() != StatusCode::kBadOption) return Refuse(id, call, request.status());
  const Status status = request.ok() ? Run(id, request.value(), call, now_ns) : request.status();
  if (status.ok()) return;
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) return;
  // What a standby sends is not answered: it listens for the hang-up only.
  if (found->second.standby || call.command == static_cast<uint32_t>(ControlCommand::kRegisterStandby)) {
    return Refuse(id, call, status);
  }
  options_.stats.Add(Counter::kControlRefused);
  static_cast<void>(Answer(id, call, status.message(), status.code()));
}

// Gives the session the operator's place if it needs it.
Status ControlSessions::Admit(uint64_t id, const ControlCall& call, uint64_t now_ns) {
  Session& session = sessions_.at(id);
  if (session.standby) return {};
  if (!MayControl(session.socket.get(), session.peer)) {
    return Status(StatusCode::kRefused, "uid " + std::to_string(session.peer.uid) +
                                            " may not control this engine: run as its user or as root, or start it "
                                            "with --control-gid");
  }
  if (operator_ == 0 && call.command == static_cast<uint32_t>(ControlCommand::kRegisterStandby)) return {};
  if (operator_ == 0) {
    operator_ = id;
    session.ends_ns = now_ns + kControlSessionMsMax * kNsPerMs;
  }
  if (operator_ == id) {
    session.silent_until_ns = now_ns + kControlStepMsMax * kNsPerMs;
    return {};
  }
  if (call.command == static_cast<uint32_t>(ControlCommand::kRegisterStandby)) return {};
  return Status(StatusCode::kOverloaded, "another control session is under way (" +
                                             PeerText(sessions_.at(operator_).peer) + "): try again in " +
                                             std::to_string(kControlStepMsMax) + " ms");
}

Status ControlSessions::Run(uint64_t id, const ControlRequest& request, const ControlCall& call, uint64_t now_ns) {
  const bool standby = sessions_.at(id).standby;
  // Signs of life are none, nor is what belongs to the next one.
  if (!standby && request.command != ControlCommand::kCachePayload) options_.stats.Add(Counter::kControlRequests);
  if (standby != (request.command == ControlCommand::kUpdateStandby)) {
    return Status(StatusCode::kBadOption,
                  std::string("`") + NameOf(kControlCommandNames, request.command) +
                      (standby ? "` is not for a standby's connection" : "` is for a standby's connection"));
  }
  switch (request.command) {
    case ControlCommand::kStatus: static_cast<void>(Answer(id, call, StatusText(now_ns))); return {};
    case ControlCommand::kHandOver: return HandOver(id, call, now_ns);
    case ControlCommand::kSetLogLevel: return SetLogLevel(id, call, request.verbosity);
    case ControlCommand::kRegisterStandby: {
      if (Status status = Register(id, request.standby, now_ns); !status.ok()) return status;
      static_cast<void>(Answer(id, call, {}));
      return {};
    }
    case ControlCommand::kUpdateStandby: {
      const bool known = standbys_.Update(id, request.state, now_ns);
      assert(known);
      static_cast<void>(known);
      return {};
    }
    case ControlCommand::kCachePayload: return TakePiece(id, request.piece);
    default: return BeginCacheCommand(id, request.cache, call, now_ns);
  }
  return Status(StatusCode::kBadOption, "unreachable: ParseRequest returns known commands");
}

Status ControlSessions::Register(uint64_t id, const StandbyHello& hello, uint64_t now_ns) {
  if (loop_.facts().state != kEngineServing) return Leaving();
  if (operator_ == id) return Status(StatusCode::kBadOption, "a standby registers with its first message");
  Session& session = sessions_.at(id);
  StandbyHello seen = hello;
  if (session.peer.pid != 0) seen.pid = static_cast<uint32_t>(session.peer.pid);
  if (Status status = standbys_.Add(id, seen, now_ns); !status.ok()) return status;
  session.standby = true;
  options_.log(LogKind::kStandbyCame, LogLevel::kInfo,
               "a standby waits: pid " + std::to_string(seen.pid) + ", " + NameOf(kStandbyStateNames, seen.state) +
                   "; standbys now: " + std::to_string(standbys_.size()));
  return {};
}

Status ControlSessions::SetLogLevel(uint64_t id, const ControlCall& call, LogVerbosity verbosity) {
  const LogLevelBody before = {.verbosity = static_cast<uint32_t>(options_.verbosity()), .reserved = 0};
  if (Answer(id, call, BytesOf(before))) options_.set_verbosity(verbosity);
  return {};
}

Status ControlSessions::HandOver(uint64_t id, const ControlCall& call, uint64_t now_ns) {
  if (loop_.facts().state != kEngineServing) return Leaving();
  if (standbys_.Ready(now_ns) == 0) {
    const std::string waiting = standbys_.size() == 0 ? "none is registered"
                                                      : "of " + std::to_string(standbys_.size()) +
                                                            " registered none is ready: it loads, is stopped, or hangs";
    return Status(StatusCode::kRefused, "no standby is ready to take over: " + waiting +
                                            "; start one with sutra-engine --standby and this engine's options, and "
                                            "wait until --status shows it as ready (SIGTERM stops without one)");
  }
  const HandOverBody body = {.engine_generation = options_.engine_generation,
                             .engine_pid = static_cast<uint32_t>(getpid()),
                             .standby_pid = standbys_.ReadyPid(now_ns)};
  const std::string who = PeerText(sessions_.at(id).peer);
  if (!Answer(id, call, BytesOf(body))) return {};
  loop_.hand_over();
  options_.log(LogKind::kControl, LogLevel::kInfo,
               "hand-over, asked for by " + who + ": standby pid " + std::to_string(body.standby_pid) + " is ready");
  return {};
}

Status ControlSessions::TakePiece(uint64_t id, std::string_view piece) {
  std::string& payload = sessions_.at(id).payload;
  if (piece.size() > kCachePayloadBytesMax - payload.size()) {
    return Status(StatusCode::kBadOption,
                  "a payload has at most " + std::to_string(kCachePayloadBytesMax) + " bytes: ask in several parts");
  }
  payload.append(piece);
  return {};
}

bool ControlSessions::MayReadTexts(const Session& session) const {
  return IsTrusted(session.socket.get(), session.peer, options_.text_gids);
}

// The session gives up the operator's place, and stays until its answer, or its hang-up.
Status ControlSessions::BeginCacheCommand(uint64_t id, const CacheCall& cache, const ControlCall& call,
                                          uint64_t now_ns) {
  Session& session = sessions_.at(id);
  std::string payload = std::exchange(session.payload, {});
  if (payload.size() != cache.body.payload_bytes) {
    return Status(StatusCode::kBadOption, "the command speaks of a payload of " +
                                              std::to_string(cache.body.payload_bytes) + " bytes, and " +
                                              std::to_string(payload.size()) + " came before it");
  }
  if (loop_.facts().state != kEngineServing) return Leaving();
  if (options_.admin == nullptr) {
    return Status(StatusCode::kRefused, "this engine serves without a cache (--no-cache)");
  }
  const bool shows_texts = cache.command == ControlCommand::kCacheGet || cache.command == ControlCommand::kCachePage;
  if (shows_texts && !MayReadTexts(session)) {
    return Status(StatusCode::kRefused, "uid " + std::to_string(session.peer.uid) +
                                            " may control this engine, but not read its cache: run as its user or as "
                                            "root");
  }
  if (!options_.admin->Begin({.call = cache, .payload = std::move(payload), .peer = session.peer})) {
    static_cast<void>(Answer(id, call,
                             "another cache command is under way (" + PeerText(working_.peer) + "): try again in " +
                                 std::to_string(kCacheRetryMs) + " ms",
                             StatusCode::kOverloaded, kCacheRetryMs));
    return {};
  }
  operator_ = 0;
  working_ = {.id = id,
              .call = call,
              .peer = session.peer,
              .since_ns = now_ns,
              .tell_next_ns = now_ns + kNsPerSecond / kCacheProgressPerSecondMax};
  return {};
}

void ControlSessions::TellProgress(uint64_t now_ns) {
  if (sessions_.count(working_.id) == 0 || now_ns < working_.tell_next_ns) return;
  working_.tell_next_ns = now_ns + kNsPerSecond / kCacheProgressPerSecondMax;
  const AdminThread::Progress progress = options_.admin->progress();
  const CacheProgressBody body = {.done = progress.done, .total = progress.total};
  static_cast<void>(Answer(working_.id, working_.call, BytesOf(body), StatusCode::kNotReady));
}

void ControlSessions::OnCacheReply(uint64_t now_ns) {
  std::optional<CacheReply> reply = options_.admin != nullptr ? options_.admin->Take() : std::nullopt;
  if (!reply.has_value()) return;
  const Working done = std::exchange(working_, {});
  const auto found = sessions_.find(done.id);
  if (found == sessions_.end()) return;
  Session& session = found->second;
  if (!reply->status.ok()) options_.stats.Add(Counter::kControlRefused);
  const bool answered =
      reply->status.ok()
          ? Answer(done.id, done.call, BytesOf(reply->body), StatusCode::kOk, 0, reply->payload.get())
          : Answer(done.id, done.call, reply->status.message(), reply->status.code(), reply->retry_after_ms);
  if (!answered) return;
  if (operator_ != 0) return End(done.id);  // its place was taken meanwhile
  operator_ = done.id;
  session.ends_ns += now_ns - done.since_ns;
  session.silent_until_ns = now_ns + kControlStepMsMax * kNsPerMs;
}

void ControlSessions::Drain() {
  if (options_.admin != nullptr) options_.admin->Shut();
}

std::string ControlSessions::StatusText(uint64_t now_ns) const {
  const Facts facts = loop_.facts();
  const auto age_ms = [now_ns](uint64_t since_ns) { return (now_ns - std::min(now_ns, since_ns)) / kNsPerMs; };
  std::string standbys;
  for (const auto& [id, entry] : standbys_.entries()) {
    JsonObject standby;
    standby.Number("pid", entry.pid);
    const bool silent = StandbyRoster::IsSilent(entry, now_ns);
    standby.Text("state", silent ? "silent" : NameOf(kStandbyStateNames, entry.state));
    standby.Number("waits_ms", age_ms(entry.since_ns));
    standbys += (standbys.empty() ? "" : ",") + std::move(standby).Take();
  }
  const ModelInfo& model = options_.model;
  JsonObject status;
  status.Number("pid", static_cast<uint64_t>(getpid()));
  status.Text("engine_generation", Hex(options_.engine_generation));
  status.Text("version", options_.version);
  status.Text("socket", options_.socket_path);
  status.Text("state", NameOf(kStateNames, facts.state));
  status.Number("uptime_ms", age_ms(options_.started_ns));
  status.Text("model", model.name);
  status.Text("identity", model.identity);
  status.Number("width", model.width);
  status.Text("precision", model.precision);
  status.Text("device", model.device);
  status.Number("lanes", facts.lanes);
  status.Number("clients", facts.clients);
  status.Text("log_level", NameOf(kLogVerbosityNames, options_.verbosity()));
  status.Raw("standbys", "[" + standbys + "]");
  return std::move(status).Take();
}

// False: the asker is gone, or reads nothing; the session has ended.
bool ControlSessions::Answer(uint64_t id, const ControlCall& call, std::string_view body, StatusCode code,
                             uint32_t retry_after_ms, int payload) {
  const std::string message = MakeControlMessage(call, body.substr(0, kControlBodyBytesMax), code, retry_after_ms);
  const int socket = sessions_.at(id).socket.get();
  const size_t payloads = payload >= 0 ? 1 : 0;
  if (SendMessage(socket, message.data(), message.size(), &payload, payloads, 0) == MessageOutcome::kOk) return true;
  End(id);
  return false;
}

void ControlSessions::Refuse(uint64_t id, const ControlCall& call, const Status& status, uint32_t retry_after_ms) {
  options_.stats.Add(Counter::kControlRefused);
  const Session& session = sessions_.at(id);
  options_.log(LogKind::kControlRefused, LogLevel::kWarn,
               "refused a control session of " + PeerText(session.peer) + ": " + status.message());
  if (session.standby || Answer(id, call, status.message(), status.code(), retry_after_ms)) End(id);
}

void ControlSessions::End(uint64_t id) {
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) return;
  const bool standby = standbys_.Has(id);
  loop_.unwatch(found->second.socket.get());
  const Peer peer = found->second.peer;
  sessions_.erase(found);
  if (operator_ == id) operator_ = 0;
  if (working_.id == id) options_.admin->AskerGone();
  if (!standby) return;
  standbys_.Remove(id);
  options_.log(
      LogKind::kStandbyGone, LogLevel::kWarn,
      "the standby pid " + std::to_string(peer.pid) + " is gone; standbys now: " + std::to_string(standbys_.size()));
}

void ControlSessions::Expire(uint64_t now_ns) {
  TellProgress(now_ns);
  if (operator_ == 0) return;
  const uint64_t id = operator_;
  const auto ended = [&] {
    const Session& session = sessions_.at(id);
    return now_ns >= session.ends_ns || now_ns >= session.silent_until_ns;
  };
  if (!ended()) return;
  if (now_ns < sessions_.at(id).ends_ns) OnReady(id, now_ns);  // what was sent in time
  if (operator_ != id || !ended()) return;
  options_.stats.Add(Counter::kControlRefused);
  options_.log(
      LogKind::kControlRefused, LogLevel::kWarn,
      "ended the control session of " + PeerText(sessions_.at(id).peer) + ": it was silent for a second, or took ten");
  End(id);
}

}  // namespace sutra
