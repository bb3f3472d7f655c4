// The handshake byte by byte, and a lane written without any of the client library's rules.
#include "tests/kit/raw_client.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <functional>
#include <utility>

#include "shm/base/time.h"
#include "shm/handshake.h"
#include "shm/lane_ring.h"
#include "shm/peer_liveness.h"

namespace sutra::test {
namespace {

uint64_t Deadline(int timeout_ms) { return MonotonicNs() + static_cast<uint64_t>(timeout_ms) * kNsPerMs; }

// Looks every millisecond: an attacker is owed no wake-up.
bool Until(int timeout_ms, const std::function<bool()>& done) {
  for (const uint64_t deadline_ns = Deadline(timeout_ms); !done();) {
    if (MonotonicNs() >= deadline_ns) return false;
    poll(nullptr, 0, 1);
  }
  return true;
}

bool Punch(int fd, uint64_t offset, uint64_t bytes) {
  return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                   static_cast<off_t>(bytes)) == 0;
}

}  // namespace

RawClient::RawClient(RawClient&& other) noexcept
    : socket_(std::move(other.socket_)),
      request_fd_(std::move(other.request_fd_)),
      reply_fd_(std::move(other.reply_fd_)),
      tail_fd_(std::move(other.tail_fd_)),
      page_fd_(std::move(other.page_fd_)),
      event_fd_(std::move(other.event_fd_)),
      hot_fd_(std::move(other.hot_fd_)),
      request_base_(std::exchange(other.request_base_, nullptr)),
      reply_base_(std::exchange(other.reply_base_, nullptr)),
      geometry_(other.geometry_),
      welcome_(other.welcome_),
      served_(other.served_),
      position_(other.position_),
      sequence_next_(other.sequence_next_) {}

RawClient::~RawClient() {
  if (request_base_ != nullptr) munmap(request_base_, geometry_.request_bytes());
  if (reply_base_ != nullptr) munmap(reply_base_, geometry_.reply_bytes());
}

HelloMessage RawClient::Hello() {
  HelloMessage hello = {};
  hello.magic = kHandshakeMagic;
  hello.layout_major = kLayoutMajor;
  hello.layout_minor = kLayoutMinor;
  hello.slots = 16;
  std::snprintf(hello.client_name, sizeof(hello.client_name), "hostile");
  return hello;
}

RawClient RawClient::Connect(const std::string& path) {
  RawClient client;
  client.socket_ = UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const auto connected = [&] {
    if (connect(client.socket(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) return true;
    if (errno == EAGAIN) return false;  // the accept queue is full
    client.socket_ = UniqueFd();
    return true;
  };
  if (!Until(10'000, connected)) client.socket_ = UniqueFd();
  return client;
}

// Who comes too often is told when to come again.
RawClient RawClient::Attach(const std::string& path, const HelloMessage& hello) {
  for (const uint64_t deadline_ns = Deadline(10'000);;) {
    RawClient client = AttachOnce(path, hello);
    const uint32_t retry_after_ms = client.welcome_.retry_after_ms;
    if (client.lane_ready() || retry_after_ms == 0 || MonotonicNs() >= deadline_ns) return client;
    poll(nullptr, 0, static_cast<int>(std::min(retry_after_ms, 1000u)));
  }
}

RawClient RawClient::AttachOnce(const std::string& path, const HelloMessage& hello) {
  RawClient client = Connect(path);
  if (client.socket() < 0 || client.Send(&hello, sizeof(hello)) != 0) return client;
  if (!client.ReceiveWelcome(10'000).has_value() || !client.MapLane() || !client.TakeLock()) return client;
  if (client.SendLocked() != 0) return client;
  const std::optional<ServingMessage> serving = client.ReceiveServing(10'000);
  client.served_ = serving.has_value() && serving->status == 0;
  return client;
}

int RawClient::Send(const void* bytes, size_t size, const std::vector<int>& fds) const {
  iovec part = {const_cast<void*>(bytes), size};
  std::vector<char> control(CMSG_SPACE(sizeof(int) * fds.size()));
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    std::memcpy(CMSG_DATA(header), fds.data(), sizeof(int) * fds.size());
  }
  return sendmsg(socket(), &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? errno : 0;
}

std::optional<WelcomeMessage> RawClient::ReceiveWelcome(int timeout_ms) {
  int fds[kWelcomeFdsMax] = {-1, -1, -1, -1, -1, -1};
  size_t fds_received = 0, received = 0;
  const MessageOutcome outcome =
      ReceiveMessage(socket(), &welcome_, sizeof(welcome_), fds, {kWelcomeFds, kWelcomeFdsMax}, &fds_received,
                     &received, Deadline(timeout_ms));
  if (outcome != MessageOutcome::kOk) return std::nullopt;
  request_fd_ = UniqueFd(fds[kFdRequest]);
  reply_fd_ = UniqueFd(fds[kFdReply]);
  tail_fd_ = UniqueFd(fds[kFdTail]);
  page_fd_ = UniqueFd(fds[kFdPage]);
  event_fd_ = UniqueFd(fds[kFdEvent]);
  hot_fd_ = UniqueFd(fds[kFdHot]);
  return welcome_;
}

bool RawClient::MapLane() {
  geometry_ = {welcome_.slots, welcome_.text_bytes_max, welcome_.width};
  if (!geometry_.valid() || request_fd_.get() < 0) return false;
  void* request = mmap(nullptr, geometry_.request_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, request_fd_.get(), 0);
  void* reply = mmap(nullptr, geometry_.reply_bytes(), PROT_READ, MAP_SHARED, reply_fd_.get(), 0);
  if (request != MAP_FAILED) request_base_ = static_cast<std::byte*>(request);
  if (reply != MAP_FAILED) reply_base_ = static_cast<std::byte*>(reply);
  return request_base_ != nullptr && reply_base_ != nullptr;
}

bool RawClient::TakeLock() const { return sutra::TakeLock(request_fd_.get()); }

void RawClient::DropLock() const {
  struct flock lock = {};
  lock.l_type = F_UNLCK;
  fcntl(request_fd_.get(), F_SETLK, &lock);
}

int RawClient::SendLocked() const {
  const LockedMessage locked = {kHandshakeMagic, welcome_.lane_id};
  return Send(&locked, sizeof(locked));
}

std::optional<ServingMessage> RawClient::ReceiveServing(int timeout_ms) const {
  ServingMessage serving = {};
  size_t fds_received = 0, received = 0;
  const MessageOutcome outcome =
      ReceiveMessage(socket(), &serving, sizeof(serving), nullptr, 0, &fds_received, &received, Deadline(timeout_ms));
  if (outcome != MessageOutcome::kOk) return std::nullopt;
  return serving;
}

bool RawClient::HungUp(int timeout_ms) const {
  pollfd item = {socket(), POLLRDHUP, 0};
  return poll(&item, 1, timeout_ms) == 1;
}

void RawClient::Ring() const {
  const char byte = 1;
  static_cast<void>(send(socket(), &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL));
}

void RawClient::FillSlot(uint32_t slot, std::string_view text, uint64_t sequence) const {
  const RequestLane lane = request();
  const size_t head = text.size() <= kTextHeadBytes ? text.size() : 0;
  uint64_t words[kTextHeadBytes / 8] =
      {};  // stored as words: another thread of an attack may write them at the same time
  if (head > 0) std::memcpy(words, text.data(), head);
  auto* const target = reinterpret_cast<SharedWord<uint64_t>*>(lane.text_head(slot));
  for (size_t i = 0; i * 8 < head; ++i) target[i].store(words[i], std::memory_order_relaxed);  // as the fields below
  const bool is_long = text.size() > kTextHeadBytes;
  if (is_long) {
    static_cast<void>(!pwrite(tail_fd(), text.data(), text.size(), static_cast<off_t>(TailOffset(slot))));
  }
  RequestDescriptor& descriptor = lane.request(slot);
  // relaxed: the entry publishes them
  descriptor.sequence.store(sequence, std::memory_order_relaxed);
  descriptor.cancel_sequence.store(0, std::memory_order_relaxed);
  descriptor.submitted_ns.store(MonotonicNs(), std::memory_order_relaxed);
  descriptor.deadline_ns.store(0, std::memory_order_relaxed);
  descriptor.tag.store(sequence, std::memory_order_relaxed);
  descriptor.bytes_and_options.store(text.size(), std::memory_order_relaxed);
  descriptor.width_and_ttl.store(0, std::memory_order_relaxed);
  descriptor.priority_and_tail.store(PriorityAndTail(kPriorityNormal, is_long ? TailOffset(slot) : 0),
                                     std::memory_order_relaxed);
}

void RawClient::PublishEntry(uint64_t position, uint64_t entry) const {
  request().submission(position).store(entry, std::memory_order_release);
  Ring();  // needed or not: the lane may be parked
}

uint64_t RawClient::Submit(uint32_t slot, std::string_view text) {
  const uint64_t sequence = sequence_next_++;
  FillSlot(slot, text, sequence);
  PublishEntry(position_, RingEntry(position_, slot));
  ++position_;
  return sequence;
}

std::optional<StatusCode> RawClient::WaitAnswer(uint32_t slot, uint64_t sequence, int timeout_ms) const {
  std::optional<StatusCode> answer;
  static_cast<void>(Until(timeout_ms, [&] {
    const bool closed = reply().engine().state.load(std::memory_order_acquire) == kLaneClosed;
    const uint64_t word = LoadResultWord(reply(), slot);
    if (ResultWordSequence(word) == sequence) answer = ResultWordStatus(word);
    return answer.has_value() || closed;
  }));
  return answer;
}

std::vector<float> RawClient::Vector(uint32_t slot) const {
  const float* vector = reply().vector(slot);
  return {vector, vector + geometry_.width};
}

bool RawClient::WaitClosed(int timeout_ms) const {
  return Until(timeout_ms, [&] { return reply().engine().state.load(std::memory_order_acquire) == kLaneClosed; });
}

StatusCode RawClient::close_reason() const {
  return static_cast<StatusCode>(reply().engine().close_reason.load(std::memory_order_relaxed));  // after the state
}

bool RawClient::PunchHole(uint64_t offset, uint64_t bytes) const { return Punch(request_fd(), offset, bytes); }
bool RawClient::PunchTail(uint64_t offset, uint64_t bytes) const { return Punch(tail_fd(), offset, bytes); }

}  // namespace sutra::test
