// How an attach ends without a lane: refused, dropped, too late, or because the engine is shutting down.
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "engine/lanes/acceptor.h"
#include "shm/base/time.h"
#include "shm/handshake.h"

namespace sutra {
namespace {

constexpr char kDraining[] = "the engine is shutting down: attach to the next one";

template <size_t kSize>
void SetField(char (&field)[kSize], const std::string& text) {
  std::fill_n(field, kSize, '\0');
  std::copy_n(text.data(), std::min(text.size(), kSize - 1), field);
}

}  // namespace

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

void Acceptor::Refuse(uint64_t id, const Refusal& refusal, uint64_t now_ns) {
  Connection& connection = connections_.at(id);
  WelcomeMessage welcome = MakeWelcome(now_ns);
  welcome.status = static_cast<uint32_t>(refusal.status.code());
  welcome.retry_after_ms = refusal.retry_after_ms;
  SetField(welcome.message, refusal.status.message());
  static_cast<void>(SendMessage(connection.socket.get(), &welcome, sizeof(welcome), nullptr, 0, 0));
  Drop(id, refusal.status.message(), refusal.reason);
}

// Before the client has said anything. What it says meanwhile, unread, would come back to it as a reset.
void Acceptor::RefuseAtOnce(uint64_t id, const Refusal& refusal, uint64_t now_ns) {
  char byte;
  static_cast<void>(recv(connections_.at(id).socket.get(), &byte, sizeof(byte), MSG_DONTWAIT));
  Refuse(id, refusal, now_ns);
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
  options_.stats.Add(Counter::kRefusedMemory);
  if (found->second.client != nullptr) ++found->second.client->refusals;
  Forget(id);
}

void Acceptor::Drop(uint64_t id, const std::string& why, Counter reason) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  const Peer peer = found->second.peer;
  const ClientPtr client = found->second.client;  // null before the hello
  const LogKind kind = reason == Counter::kRefusedPermission ? LogKind::kStrangerRefused : LogKind::kAttachRefused;
  const std::string cause = why;                  // may lie in the connection
  options_.stats.Add(Counter::kAttachesRefused);  // before the client sees the end
  options_.stats.Add(reason);
  if (client != nullptr) ++client->refusals;
  Forget(id);
  const std::string who =
      client != nullptr ? client->Title() : "uid " + std::to_string(peer.uid) + " pid " + std::to_string(peer.pid);
  const std::string has = client != nullptr ? "; it has " + NumbersOf(*client) : "";
  options_.log(kind, LogLevel::kWarn, "refused " + who + ": " + cause + has);
}

std::string Acceptor::NumbersOf(const Client& client) const {
  const LaneShare share = clients_->ShareOf(client);
  const uint64_t texts = client.queued_texts.load(std::memory_order_relaxed);  // relaxed: for display
  return std::to_string(share.lanes) + " lanes of " + std::to_string(share.bytes) + " bytes, " + std::to_string(texts) +
         " texts that wait, " + std::to_string(client.refusals) + " refusals";
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

void Acceptor::Expire(uint64_t now_ns) {
  for (auto next = connections_.begin(); next != connections_.end();) {
    const auto current = next++;
    if (current->second.deadline_ns > now_ns) continue;
    const uint64_t id = current->first;
    OnReady(id, now_ns);
    const auto left = connections_.find(id);
    if (left == connections_.end() || left->second.deadline_ns > now_ns) continue;
    Drop(id, "the handshake timed out (1 s per step)", Counter::kRefusedTimeout);
  }
}

void Acceptor::Drain(uint64_t now_ns, bool last) {
  draining_ = true;
  closed_ = closed_ || last;
  while (!connections_.empty()) {
    const auto first = connections_.begin();
    if (first->second.step == Step::kLock) {
      ServingMessage serving = {};
      serving.magic = kHandshakeMagic;
      serving.status = static_cast<uint32_t>(StatusCode::kShuttingDown);
      static_cast<void>(SendMessage(first->second.socket.get(), &serving, sizeof(serving), nullptr, 0, 0));
      Drop(first->first, kDraining, Counter::kRefusedDraining);
    } else {
      RefuseAtOnce(first->first, DrainRefusal(), now_ns);
    }
  }
}

Acceptor::Refusal Acceptor::DrainRefusal() {
  return {.status = {StatusCode::kShuttingDown, kDraining}, .reason = Counter::kRefusedDraining};
}

}  // namespace sutra
