// The socket, and a client's two messages: the hello, answered with the lane's memory, and the lock, after which the
// lane is served.
#include "engine/lanes/acceptor.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <new>
#include <string_view>
#include <utility>

#include "shm/base/printable.h"
#include "shm/base/time.h"
#include "shm/control_messages.h"
#include "shm/handshake.h"
#include "shm/layout.h"

namespace sutra {
namespace {

constexpr char kFilesFix[] = "; raise the engine's limit of open files (ulimit -n, LimitNOFILE=) or lower --lanes-max";

// A zero-filled or full character field, made fit for a log line.
std::string FieldText(std::span<const char> field) { return Printable(FieldView(field), HighBytes::kReplace); }

// One message without its descriptors. Negative: -errno.
ssize_t ReceiveBytes(int socket, void* bytes, size_t size) {
  ssize_t count;
  do {
    count = recv(socket, bytes, size, MSG_DONTWAIT | MSG_TRUNC);
  } while (count < 0 && errno == EINTR);
  return count < 0 ? -errno : count;
}

}  // namespace

Acceptor::Acceptor(Options options, Watcher watcher)
    : options_(std::move(options)),
      watcher_(std::move(watcher)),
      clients_(std::make_shared<ClientTable>(options_.quota)),
      maker_(std::make_shared<LaneMaker>(options_.quota.total.lanes)),
      rate_(options_.attach_rate_max),
      reply_bytes_rate_(AttachRate::kReplyBytesPerSecond, options_.quota.per_uid.bytes) {
  assert(options_.attach_rate_max > 0);
  identity_.engine_generation = options_.engine_generation;
  identity_.boot_id = HostBootId();
}

bool Acceptor::OnListen(int listen_fd, uint64_t now_ns) {
  if (!spare_) spare_ = UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC));
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    UniqueFd socket(accept4(listen_fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) {
      const int error = errno;
      if (error != EMFILE && error != ENFILE && error != ENOMEM && error != ENOBUFS) return true;
      options_.log(LogKind::kAcceptFailed, LogLevel::kError,
                   std::string("cannot accept: ") + std::strerror(error) + kFilesFix);
      if (error == EMFILE || error == ENFILE) AcceptWithSpare(listen_fd, now_ns);
      return false;
    }
    Admit(std::move(socket), Refusal(), now_ns);
  }
  return true;
}

// Out of descriptors: one more client is accepted with the spare one, so that it learns why; the descriptor is taken
// back when that connection ends.
bool Acceptor::AcceptWithSpare(int listen_fd, uint64_t now_ns) {
  if (!spare_) return false;
  spare_.reset();
  UniqueFd socket(accept4(listen_fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket) return false;
  Admit(std::move(socket), NoDescriptor(), now_ns);
  return true;
}

Acceptor::Refusal Acceptor::NoDescriptor() {
  return {.status = {StatusCode::kOutOfMemory, std::string("the engine has no descriptor left") + kFilesFix},
          .reason = Counter::kRefusedMemory};
}

void Acceptor::Admit(UniqueFd socket, const Refusal& refusal, uint64_t now_ns) {
  struct ucred credentials = {};
  socklen_t length = sizeof(credentials);
  if (getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) return;
  const uint64_t id = connection_next_++;
  try {
    Connection& connection = connections_[id];
    connection.socket = std::move(socket);
    connection.peer.pid = credentials.pid;
    connection.peer.uid = credentials.uid;
    connection.peer.gid = credentials.gid;
    connection.deadline_ns = now_ns + kAttachStepMsMax * kNsPerMs;
    connection.refusal = refusal;
    watcher_.watch(connection.socket.get(), id);
    AdmitOrRefuse(id, &connection, now_ns);
  } catch (const std::bad_alloc&) {
    Forget(id);  // it is not known whether it may attach
    options_.stats.Add(Counter::kOutOfMemory);
  }
}

void Acceptor::AdmitOrRefuse(uint64_t id, Connection* connection, uint64_t now_ns) {
  const uid_t uid = connection->peer.uid;
  const bool may_control = MayControl(*connection);
  if (draining_) {
    if (closed_ || !may_control || PendingOf(uid) > kPendingPerUidMax) return RefuseAtOnce(id, DrainRefusal(), now_ns);
    connection->refusal = DrainRefusal();
    return;
  }
  if (!Allowed(connection->socket.get(), connection->peer)) {
    // Refused after the hello; further strangers are not worth an answer.
    connection->refusal = {.status = {StatusCode::kRefused, "uid " + std::to_string(uid) +
                                                                " may not attach: start the engine with --allow-uid "
                                                                "or --allow-gid"},
                           .reason = Counter::kRefusedPermission};
    if (Strangers() > kStrangersMax && !may_control)
      Drop(id, connection->refusal.status.message(), Counter::kRefusedPermission);
    if (!may_control) return;
  }
  // Other users' attaches keep nobody from controlling the engine.
  const bool all = connections_.size() > kPendingMax && !may_control, of_uid = PendingOf(uid) > kPendingPerUidMax;
  if (!all && !of_uid) return;
  const std::string whose = of_uid ? " of uid " + std::to_string(uid) : "";
  RefuseAtOnce(id,
               {.status = {StatusCode::kOverloaded, std::to_string(of_uid ? kPendingPerUidMax : kPendingMax) +
                                                        " attaches" + whose + " are under way: try again in " +
                                                        std::to_string(kPendingRetryMs) + " ms"},
                .reason = Counter::kRefusedPending,
                .retry_after_ms = kPendingRetryMs},
               now_ns);
}

size_t Acceptor::Strangers() const {
  return static_cast<size_t>(std::count_if(connections_.begin(), connections_.end(),
                                           [](const auto& item) { return !item.second.refusal.status.ok(); }));
}

size_t Acceptor::PendingOf(uid_t uid) const {
  return static_cast<size_t>(std::count_if(connections_.begin(), connections_.end(),
                                           [uid](const auto& item) { return item.second.peer.uid == uid; }));
}

bool Acceptor::Allowed(int socket, const Peer& peer) const {
  const std::vector<uid_t>& uids = options_.allow_uids;
  return peer.uid == geteuid() || std::find(uids.begin(), uids.end(), peer.uid) != uids.end() ||
         InAnyGroup(socket, peer, options_.allow_gids);
}

bool Acceptor::MayControl(const Connection& connection) const {
  return watcher_.may_control && watcher_.may_control(connection.socket.get(), connection.peer);
}

// A library of layout minor 0 takes five descriptors or none.
bool Acceptor::GetsHotTable(const Connection& connection, const HelloMessage& hello) const {
  return options_.hot_fd >= 0 && hello.layout_minor >= 1 &&
         IsTrusted(connection.socket.get(), connection.peer, options_.hot_gids);
}

// False: its first message, which stays unread, is not there yet, or not one of a control session.
bool Acceptor::HandToControl(uint64_t id) {
  const auto found = connections_.find(id);
  UniqueFd& socket = found->second.socket;
  uint64_t magic = 0;
  const ssize_t count = recv(socket.get(), &magic, sizeof(magic), MSG_DONTWAIT | MSG_PEEK);
  if (count != sizeof(magic) || magic != kControlMagic || !watcher_.control) return false;
  watcher_.unwatch(socket.get());
  UniqueFd handed = std::move(socket);
  const Peer peer = found->second.peer;
  connections_.erase(found);
  watcher_.control(std::move(handed), peer);
  return true;
}

void Acceptor::OnReady(uint64_t id, uint64_t now_ns) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  try {
    OnMessage(id, &found->second, now_ns);
  } catch (const std::bad_alloc&) {
    options_.stats.Add(Counter::kOutOfMemory);
    RefuseForMemory(id, now_ns);
  }
}

void Acceptor::OnMessage(uint64_t id, Connection* connection, uint64_t now_ns) {
  switch (connection->step) {
    case Step::kHello: return OnHello(id, connection, now_ns);
    case Step::kLock: return OnLocked(id, connection);
    case Step::kCharge:
    case Step::kMemory: break;
  }
  char byte;
  const ssize_t count = ReceiveBytes(connection->socket.get(), &byte, sizeof(byte));
  if (count == -EAGAIN) return;
  if (count <= 0) return Forget(id);
  Drop(id, "it spoke before it was welcome", Counter::kRefusedProtocol);
}

void Acceptor::OnHello(uint64_t id, Connection* connection, uint64_t now_ns) {
  if (HandToControl(id)) return;
  HelloMessage hello = {};
  const ssize_t count = ReceiveBytes(connection->socket.get(), &hello, sizeof(hello));
  if (count == -EAGAIN) return;
  if (count == 0) return Forget(id);
  if (count < 0) return Drop(id, "the socket failed", Counter::kRefusedProtocol);
  if (!connection->refusal.status.ok()) return Refuse(id, Refusal(connection->refusal), now_ns);
  const bool has_version = count >= static_cast<ssize_t>(offsetof(HelloMessage, slots));
  if (!has_version || hello.magic != kHandshakeMagic) {
    return Drop(id, "its first message is not a Sutra hello", Counter::kRefusedProtocol);
  }
  if (hello.layout_major != kLayoutMajor || count != sizeof(hello)) {
    const std::string message = "the client speaks lane layout " + std::to_string(hello.layout_major) + "." +
                                std::to_string(hello.layout_minor) + ", this engine " + std::to_string(kLayoutMajor) +
                                "." + std::to_string(kLayoutMinor) +
                                ": use a client library and an engine of the same version";
    return Refuse(id, {.status = {StatusCode::kRefused, message}, .reason = Counter::kRefusedVersion}, now_ns);
  }
  connection->hot = GetsHotTable(*connection, hello);
  assert(connection->refusal.status.ok() && connection->client == nullptr);  // the peer is allowed, and gets one lane
  if (const uint32_t wait_ms = rate_.Take(connection->peer.uid, now_ns); wait_ms > 0) {
    const std::string message = "uid " + std::to_string(connection->peer.uid) + " attaches more than " +
                                std::to_string(options_.attach_rate_max) + " times per second: try again in " +
                                std::to_string(wait_ms) + " ms, or start the engine with a larger --attach-rate-max";
    return Refuse(
        id, {.status = {StatusCode::kOverloaded, message}, .reason = Counter::kRefusedRate, .retry_after_ms = wait_ms},
        now_ns);
  }
  connection->client = clients_->Find(connection->socket.get(), connection->peer.uid, connection->peer.pid,
                                      FieldText(hello.client_name));
  if (connection->client == nullptr) return Refuse(id, NoDescriptor(), now_ns);
  Refusal refusal = {.status = CheckHello(hello, &connection->geometry), .reason = Counter::kRefusedModel};
  if (refusal.status.ok()) refusal = OrderMemory(id, connection, now_ns);
  if (!refusal.status.ok()) return Refuse(id, refusal, now_ns);
}

Acceptor::Refusal Acceptor::OrderMemory(uint64_t id, Connection* connection, uint64_t now_ns) {
  connection->deadline_ns = UINT64_MAX;  // until the welcome it is the engine's turn
  ClientTable::Bound over;
  Result<ClientTable::Charge> charge = clients_->Take(connection->client, connection->geometry.charged_bytes(), &over);
  if (!charge.ok()) {
    // A client that detached a moment ago may have what it gave back.
    connection->step = Step::kCharge;
    if (maker_->ending() > 0) return {};
    const bool lanes = over == ClientTable::Bound::kLanes;
    return {.status = charge.status(), .reason = lanes ? Counter::kRefusedLanes : Counter::kRefusedBytes};
  }
  // What was charged will be given back, but for what the client keeps.
  const uint64_t bytes = connection->geometry.reply_bytes();
  if (const uint32_t wait_ms = reply_bytes_rate_.Take(connection->peer.uid, now_ns, bytes); wait_ms > 0) {
    const std::string message = "uid " + std::to_string(connection->peer.uid) + " is given more than " +
                                std::to_string(AttachRate::kReplyBytesPerSecond) +
                                " bytes of reply memory per second: try again in " + std::to_string(wait_ms) +
                                " ms, attach with fewer slots, or start the engine with a larger "
                                "--lane-bytes-per-uid-max";
    return {.status = {StatusCode::kOverloaded, message}, .reason = Counter::kRefusedRate, .retry_after_ms = wait_ms};
  }
  connection->lane_id = identity_.lane_id = lane_next_++;
  connection->step = Step::kMemory;
  maker_->Make(
      {.id = id, .geometry = connection->geometry, .identity = identity_, .charge = std::move(charge).value()});
  return {};
}

void Acceptor::OnMade(uint64_t now_ns) {
  while (std::optional<LaneMaker::Made> made = maker_->TakeMade()) {
    const uint64_t id = made->id;
    try {
      OnMemory(std::move(*made), now_ns);
    } catch (const std::bad_alloc&) {
      options_.stats.Add(Counter::kOutOfMemory);
      RefuseForMemory(id, now_ns);
    }
  }
  TryChargesAgain(now_ns);
}

void Acceptor::OnMemory(LaneMaker::Made made, uint64_t now_ns) {
  const auto found = connections_.find(made.id);
  if (found == connections_.end()) return maker_->GiveBack(std::move(made.memory), std::move(made.charge));
  Connection& connection = found->second;
  assert(connection.step == Step::kMemory);
  connection.charge = std::move(made.charge);
  connection.memory = std::move(made.memory);
  Status status = made.status;
  if (status.ok()) status = Welcome(&connection, now_ns);
  if (!status.ok()) return Refuse(made.id, {.status = status, .reason = Counter::kRefusedMemory}, now_ns);
  connection.step = Step::kLock;
  connection.deadline_ns = now_ns + kAttachStepMsMax * kNsPerMs;
}

void Acceptor::TryChargesAgain(uint64_t now_ns) {
  for (auto next = connections_.begin(); next != connections_.end();) {
    const auto current = next++;
    if (current->second.step != Step::kCharge) continue;
    const uint64_t id = current->first;
    try {
      const Refusal refusal = OrderMemory(id, &current->second, now_ns);
      if (!refusal.status.ok()) Refuse(id, refusal, now_ns);
    } catch (const std::bad_alloc&) {
      options_.stats.Add(Counter::kOutOfMemory);
      RefuseForMemory(id, now_ns);
    }
  }
}

size_t Acceptor::making() const {
  return static_cast<size_t>(std::count_if(connections_.begin(), connections_.end(), [](const auto& item) {
    return item.second.step == Step::kCharge || item.second.step == Step::kMemory;
  }));
}

Status Acceptor::CheckHello(const HelloMessage& hello, LaneGeometry* geometry) const {
  const auto refused = [](const std::string& message) { return Status(StatusCode::kRefused, message); };
  const ModelInfo& model = options_.model;
  const std::string wanted = FieldText(hello.model);
  // A short prefix of hex digits could be intended as a name.
  const bool identity_prefix = wanted.size() >= 8 && model.identity.compare(0, wanted.size(), wanted) == 0;
  if (!wanted.empty() && wanted != model.name && !identity_prefix) {
    return refused("the engine serves model " + model.name + " (identity " + model.identity.substr(0, 16) +
                   "...), not " + wanted + ": attach to another socket, or ask for the model it serves");
  }
  if (hello.width != 0 && hello.width != model.width) {
    return refused("the engine's vectors have " + std::to_string(model.width) + " numbers, not " +
                   std::to_string(hello.width) + ": attach with width 0 or " + std::to_string(model.width));
  }
  if (hello.text_bytes_max > options_.text_bytes_max) {
    return refused("texts of " + std::to_string(hello.text_bytes_max) + " bytes are over the engine's limit of " +
                   std::to_string(options_.text_bytes_max) +
                   ": ask for less, or start it with a larger "
                   "--text-bytes-max");
  }
  geometry->slots = hello.slots == 0 ? options_.slots_default : hello.slots;
  geometry->text_bytes_max =
      hello.text_bytes_max == 0 ? options_.text_bytes_max : std::max(hello.text_bytes_max, kTextHeadBytes);
  geometry->width = model.width;
  if (!geometry->valid()) {
    return refused("a lane of " + std::to_string(hello.slots) + " slots: ask for a power of two from " +
                   std::to_string(kSlotsMin) + " to " + std::to_string(kSlotsMax));
  }
  return {};
}

Status Acceptor::Welcome(Connection* connection, uint64_t now_ns) {
  int pipe_fds[2];
  if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) != 0) {
    const int error = errno;
    const bool files = error == EMFILE || error == ENFILE;
    return Status(StatusCode::kOutOfMemory,
                  std::string("creating the event pipe of a lane: ") + std::strerror(error) + (files ? kFilesFix : ""),
                  error);
  }
  const UniqueFd read_end(pipe_fds[0]);
  connection->event_pipe = UniqueFd(pipe_fds[1]);
  WelcomeMessage welcome = MakeWelcome(now_ns);
  welcome.slots = connection->geometry.slots;
  welcome.text_bytes_max = connection->geometry.text_bytes_max;
  welcome.lane_id = connection->lane_id;
  welcome.engine_now_ns = MonotonicNs();
  const LaneMemory& memory_of_lane = connection->memory;
  welcome.hot_slots = connection->hot ? options_.hot_slots : 0;
  int fds[kWelcomeFdsMax];
  fds[kFdRequest] = memory_of_lane.request_fd();
  fds[kFdReply] = memory_of_lane.reply_fd();
  fds[kFdTail] = memory_of_lane.tail_fd();
  fds[kFdPage] = options_.engine_page_fd;
  fds[kFdEvent] = read_end.get();
  fds[kFdHot] = options_.hot_fd;
  const size_t fd_count = connection->hot ? kWelcomeFdsMax : kWelcomeFds;
  // The socket's buffer is empty: only a hostile client can make this send block.
  if (SendMessage(connection->socket.get(), &welcome, sizeof(welcome), fds, fd_count, 0) != MessageOutcome::kOk) {
    return Status(StatusCode::kRefused, "the welcome could not be sent");
  }
  return {};
}

void Acceptor::OnLocked(uint64_t id, Connection* connection) {
  LockedMessage locked = {};
  const ssize_t count = ReceiveBytes(connection->socket.get(), &locked, sizeof(locked));
  if (count == -EAGAIN) return;
  if (count <= 0) return Forget(id);
  const bool valid = count == sizeof(locked) && locked.magic == kHandshakeMagic &&
                     locked.lane_id == connection->lane_id && HoldsItsLane(*connection);
  AttachedLane attached;
  if (valid) attached = MakeLane(connection);  // before the client is told: afterwards nothing may fail
  ServingMessage serving = {};
  serving.magic = kHandshakeMagic;
  serving.status = static_cast<uint32_t>(valid ? StatusCode::kOk : StatusCode::kProtocolViolation);
  const MessageOutcome sent = SendMessage(connection->socket.get(), &serving, sizeof(serving), nullptr, 0, 0);
  if (!valid) {
    return Drop(id, "the process that connected does not hold the lock on its request lane", Counter::kRefusedProtocol);
  }
  if (sent != MessageOutcome::kOk) return Forget(id);
  attached.socket = std::move(connection->socket);
  watcher_.unwatch(attached.socket.get());
  connections_.erase(id);
  watcher_.attached(std::move(attached));
}

// The pidfd is asked last: while its process lives, the pid is nobody else's.
bool Acceptor::HoldsItsLane(const Connection& connection) const {
  return options_.peer_alive(connection.memory.request_fd(), connection.peer.pid) &&
         !ProcessEnded(connection.client->pid_fd.get());
}

AttachedLane Acceptor::MakeLane(Connection* connection) {
  AttachedLane attached;
  // Whoever drops the last reference hands the lane over to be given back; its charge ends then.
  const auto charge = std::make_shared<ClientTable::Charge>(std::move(connection->charge));
  auto lane = std::make_unique<Lane>(connection->lane_id, std::move(connection->client), std::move(connection->memory),
                                     std::move(connection->event_pipe), connection->hot);
  attached.lane = std::shared_ptr<Lane>(lane.release(), [maker = maker_, charge](Lane* ended) {
    maker->GiveBack(std::unique_ptr<Lane>(ended), std::move(*charge));
  });
  return attached;
}

}  // namespace sutra
