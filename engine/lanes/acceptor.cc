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
#include "shm/handshake.h"
#include "shm/layout.h"

namespace sutra {
namespace {

constexpr char kFilesFix[] = "; raise the engine's limit of open files (ulimit -n, LimitNOFILE=) or lower --lanes-max";

// A zero-filled or full character field, made fit for a log line.
std::string FieldText(std::span<const char> field) { return Printable(FieldView(field), HighBytes::kReplace); }

template <size_t kSize>
void SetField(char (&field)[kSize], const std::string& text) {
  std::memset(field, 0, kSize);
  std::memcpy(field, text.data(), std::min(text.size(), kSize - 1));
}

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
      maker_(std::make_shared<LaneMaker>(options_.quota.total.lanes)) {
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
    Admit(std::move(socket), Status(), now_ns);
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
  Admit(std::move(socket),
        Status(StatusCode::kOutOfMemory, std::string("the engine has no descriptor left") + kFilesFix), now_ns);
  return true;
}

void Acceptor::Admit(UniqueFd socket, const Status& refusal, uint64_t now_ns) {
  struct ucred credentials = {};
  socklen_t length = sizeof(credentials);
  if (getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) return;
  const uint64_t id = connection_next_++;
  try {
    Connection& connection = connections_[id];
    connection.socket = std::move(socket);
    connection.peer.pid = credentials.pid;
    connection.peer.uid = credentials.uid;
    connection.deadline_ns = now_ns + kAttachStepMsMax * kNsPerMs;
    connection.refusal = refusal;
    watcher_.watch(connection.socket.get(), id);
    // Refused after the hello: closing the socket earlier would give the client an error without the reason.
    if (!Allowed(connection.socket.get(), credentials.uid, credentials.gid)) {
      connection.refusal = Status(StatusCode::kRefused, "uid " + std::to_string(credentials.uid) +
                                                            " may not attach: start the engine with --allow-uid or "
                                                            "--allow-gid");
      if (Strangers() > kStrangersMax) Drop(id, connection.refusal.message());
    } else if (connections_.size() > kPendingMax) {
      Drop(id, "more than " + std::to_string(kPendingMax) + " attaches are under way");
    }
  } catch (const std::bad_alloc&) {
    Forget(id);  // it is not known whether it may attach
    options_.stats.Add(Counter::kOutOfMemory);
  }
}

size_t Acceptor::Strangers() const {
  return static_cast<size_t>(std::count_if(connections_.begin(), connections_.end(),
                                           [](const auto& item) { return !item.second.refusal.ok(); }));
}

bool Acceptor::Allowed(int socket, uid_t uid, gid_t gid) const {
  const auto has = [](const auto& list, auto item) { return std::find(list.begin(), list.end(), item) != list.end(); };
  if (uid == geteuid() || has(options_.allow_uids, uid) || has(options_.allow_gids, gid)) return true;
  if (options_.allow_gids.empty()) return false;
  std::vector<gid_t> groups(64);
  socklen_t length = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
  int result = getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &length);
  if (result != 0 && errno == ERANGE) {
    groups.resize(length / sizeof(gid_t));
    result = getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &length);
  }
  if (result != 0) return false;
  groups.resize(length / sizeof(gid_t));
  return std::any_of(groups.begin(), groups.end(), [&](gid_t group) { return has(options_.allow_gids, group); });
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
  Drop(id, count > 0 ? "it spoke before it was welcome" : "");
}

void Acceptor::OnHello(uint64_t id, Connection* connection, uint64_t now_ns) {
  HelloMessage hello = {};
  const ssize_t count = ReceiveBytes(connection->socket.get(), &hello, sizeof(hello));
  if (count == -EAGAIN) return;
  if (count <= 0) return Drop(id, count == 0 ? "" : "the socket failed");
  if (!connection->refusal.ok()) return Refuse(id, Status(connection->refusal), now_ns);
  const bool has_version = count >= static_cast<ssize_t>(offsetof(HelloMessage, slots));
  if (!has_version || hello.magic != kHandshakeMagic) return Drop(id, "its first message is not a Sutra hello");
  if (hello.layout_major != kLayoutMajor || count != sizeof(hello)) {
    return Refuse(id,
                  Status(StatusCode::kRefused, "the client speaks lane layout " + std::to_string(hello.layout_major) +
                                                   "." + std::to_string(hello.layout_minor) + ", this engine " +
                                                   std::to_string(kLayoutMajor) + "." + std::to_string(kLayoutMinor) +
                                                   ": use a client library and an engine of the same version"),
                  now_ns);
  }
  assert(connection->refusal.ok() && connection->client == nullptr);  // the peer is allowed, and gets one lane
  connection->client = clients_->Find(connection->socket.get(), connection->peer.uid, connection->peer.pid,
                                      FieldText(hello.client_name));
  Status status = CheckHello(hello, &connection->geometry);
  if (status.ok()) status = OrderMemory(id, connection);
  if (!status.ok()) return Refuse(id, status, now_ns);
}

Status Acceptor::OrderMemory(uint64_t id, Connection* connection) {
  connection->deadline_ns = UINT64_MAX;  // until the welcome it is the engine's turn
  Result<ClientTable::Charge> charge = clients_->Take(connection->client, connection->geometry.charged_bytes());
  if (!charge.ok()) {
    // A client that detached a moment ago may have what it gave back.
    connection->step = Step::kCharge;
    return maker_->ending() > 0 ? Status() : charge.status();
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
  if (!status.ok()) return Refuse(made.id, status, now_ns);
  connection.step = Step::kLock;
  connection.deadline_ns = now_ns + kAttachStepMsMax * kNsPerMs;
}

void Acceptor::TryChargesAgain(uint64_t now_ns) {
  for (auto next = connections_.begin(); next != connections_.end();) {
    const auto current = next++;
    if (current->second.step != Step::kCharge) continue;
    const uint64_t id = current->first;
    try {
      const Status status = OrderMemory(id, &current->second);
      if (!status.ok()) Refuse(id, status, now_ns);
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

WelcomeMessage Acceptor::MakeWelcome(uint64_t now_ns) const {
  WelcomeMessage welcome = {};
  welcome.magic = kHandshakeMagic;
  welcome.layout_major = kLayoutMajor;
  welcome.layout_minor = kLayoutMinor;
  welcome.width = options_.model.width;
  welcome.text_bytes_max = options_.text_bytes_max;
  welcome.tokens_max = options_.model.tokens_max;
  welcome.engine_generation = options_.engine_generation;
  welcome.engine_now_ns = now_ns;
  welcome.normalizes = options_.model.normalizes ? 1 : 0;
  welcome.engine_pid = static_cast<uint32_t>(getpid());
  SetField(welcome.model, options_.model.name);
  SetField(welcome.identity, options_.model.identity);
  return welcome;
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
  int fds[kWelcomeFds];
  fds[kFdRequest] = memory_of_lane.request_fd();
  fds[kFdReply] = memory_of_lane.reply_fd();
  fds[kFdTail] = memory_of_lane.tail_fd();
  fds[kFdPage] = options_.engine_page_fd;
  fds[kFdEvent] = read_end.get();
  // The socket's buffer is empty: only a hostile client can make this send block.
  if (SendMessage(connection->socket.get(), &welcome, sizeof(welcome), fds, kWelcomeFds, 0) != MessageOutcome::kOk) {
    return Status(StatusCode::kRefused, "the welcome could not be sent");
  }
  return {};
}

void Acceptor::OnLocked(uint64_t id, Connection* connection) {
  LockedMessage locked = {};
  const ssize_t count = ReceiveBytes(connection->socket.get(), &locked, sizeof(locked));
  if (count == -EAGAIN) return;
  if (count <= 0) return Drop(id, "");
  const bool valid = count == sizeof(locked) && locked.magic == kHandshakeMagic &&
                     locked.lane_id == connection->lane_id && options_.peer_alive(connection->memory.request_fd());
  AttachedLane attached;
  if (valid) attached = MakeLane(connection);  // before the client is told: afterwards nothing may fail
  ServingMessage serving = {};
  serving.magic = kHandshakeMagic;
  serving.status = static_cast<uint32_t>(valid ? StatusCode::kOk : StatusCode::kProtocolViolation);
  const MessageOutcome sent = SendMessage(connection->socket.get(), &serving, sizeof(serving), nullptr, 0, 0);
  if (!valid) return Drop(id, "it does not hold the lock on its request lane");
  if (sent != MessageOutcome::kOk) return Drop(id, "");
  attached.socket = std::move(connection->socket);
  watcher_.unwatch(attached.socket.get());
  connections_.erase(id);
  watcher_.attached(std::move(attached));
}

AttachedLane Acceptor::MakeLane(Connection* connection) {
  AttachedLane attached;
  // Whoever drops the last reference hands the lane over to be given back; its charge ends then.
  const auto charge = std::make_shared<ClientTable::Charge>(std::move(connection->charge));
  auto lane = std::make_unique<Lane>(connection->lane_id, std::move(connection->client), std::move(connection->memory),
                                     std::move(connection->event_pipe));
  attached.lane = std::shared_ptr<Lane>(lane.release(), [maker = maker_, charge](Lane* ended) {
    maker->GiveBack(std::unique_ptr<Lane>(ended), std::move(*charge));
  });
  return attached;
}

void Acceptor::Refuse(uint64_t id, const Status& status, uint64_t now_ns) {
  Connection& connection = connections_.at(id);
  WelcomeMessage welcome = MakeWelcome(now_ns);
  welcome.status = static_cast<uint32_t>(status.code());
  SetField(welcome.message, status.message());
  static_cast<void>(SendMessage(connection.socket.get(), &welcome, sizeof(welcome), nullptr, 0, 0));
  Drop(id, status.message());
}

// Needs no memory itself. A client that waits for the answer to its lock is not at this point any more: it is dropped.
void Acceptor::RefuseForMemory(uint64_t id, uint64_t now_ns) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  if (found->second.step != Step::kLock) {
    WelcomeMessage welcome = MakeWelcome(now_ns);
    welcome.status = static_cast<uint32_t>(StatusCode::kOutOfMemory);
    constexpr std::string_view kMessage = "the engine is out of memory: give its process or cgroup more";
    static_assert(kMessage.size() < sizeof(welcome.message));
    std::copy(kMessage.begin(), kMessage.end(), welcome.message);
    static_cast<void>(SendMessage(found->second.socket.get(), &welcome, sizeof(welcome), nullptr, 0, 0));
  }
  options_.stats.Add(Counter::kAttachesRefused);
  Forget(id);
}

void Acceptor::Drop(uint64_t id, const std::string& why) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  const Peer peer = found->second.peer;
  const LogKind kind = found->second.refusal.ok() ? LogKind::kAttachRefused : LogKind::kStrangerRefused;
  const std::string reason = why;                                      // may lie in the connection
  if (!reason.empty()) options_.stats.Add(Counter::kAttachesRefused);  // before the client sees the end
  Forget(id);
  if (reason.empty()) return;
  options_.log(kind, LogLevel::kWarn,
               "refused uid " + std::to_string(peer.uid) + " pid " + std::to_string(peer.pid) + ": " + reason);
}

void Acceptor::Forget(uint64_t id) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  Connection& connection = found->second;
  watcher_.unwatch(connection.socket.get());
  if (connection.memory.request_fd() >= 0) {
    maker_->GiveBack(std::move(connection.memory), std::move(connection.charge));
  }
  connections_.erase(found);
}

void Acceptor::Close() {
  while (!connections_.empty()) Forget(connections_.begin()->first);
}

void Acceptor::Expire(uint64_t now_ns) {
  for (auto next = connections_.begin(); next != connections_.end();) {
    const auto current = next++;
    if (current->second.deadline_ns <= now_ns) Drop(current->first, "the handshake timed out (1 s per step)");
  }
}

}  // namespace sutra
