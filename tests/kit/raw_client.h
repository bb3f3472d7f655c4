// A client without the client library: speaks the handshake byte by byte, maps a lane, and writes whatever it likes.
//
// Thread rule: one thread, except for the lane memory, which any thread may corrupt. The lock that keeps a lane alive
// belongs to this process and is lost when the object is destroyed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "shm/handshake_messages.h"
#include "shm/lane_memory.h"
#include "shm/layout.h"

namespace sutra::test {

class RawClient {
 public:
  RawClient() = default;
  RawClient(RawClient&& other) noexcept;
  RawClient& operator=(RawClient&&) = delete;
  ~RawClient();

  static HelloMessage Hello();
  // Connected, nothing said. An invalid socket if the engine does not take connections.
  static RawClient Connect(const std::string& path);
  // The whole handshake, as a client library does it. `lane_ready()` says whether it is served.
  static RawClient Attach(const std::string& path, const HelloMessage& hello = Hello());

  // One try, even if the engine says when to try again.
  static RawClient AttachOnce(const std::string& path, const HelloMessage& hello = Hello());

  int socket() const { return socket_.get(); }
  UniqueFd& socket_owner() { return socket_; }
  int request_fd() const { return request_fd_.get(); }
  int tail_fd() const { return tail_fd_.get(); }
  int event_fd() const { return event_fd_.get(); }
  int page_fd() const { return page_fd_.get(); }
  int hot_fd() const { return hot_fd_.get(); }  // of the hot table, if the engine sent one
  UniqueFd& event_owner() { return event_fd_; }
  bool lane_ready() const { return served_; }
  const WelcomeMessage& welcome() const { return welcome_; }
  const LaneGeometry& geometry() const { return geometry_; }
  RequestLane request() const { return {request_base_, geometry_}; }
  ReplyLane reply() const { return {reply_base_, geometry_}; }

  // One message with descriptors. RETURNS 0 or errno.
  int Send(const void* bytes, size_t size, const std::vector<int>& fds = {}) const;
  // The engine's welcome, at most `timeout_ms`: nothing if it hung up or said something else. Takes its descriptors.
  std::optional<WelcomeMessage> ReceiveWelcome(int timeout_ms);
  bool MapLane();
  bool TakeLock() const;
  void DropLock() const;
  int SendLocked() const;
  std::optional<ServingMessage> ReceiveServing(int timeout_ms) const;
  bool HungUp(int timeout_ms) const;
  void Ring() const;  // the doorbell

  // Where FillSlot puts the long text of a slot.
  // An equal part of the tail file for each slot; a text that is longer lies across its neighbours'.
  uint64_t TailOffset(uint32_t slot) const { return slot * (geometry_.tail_bytes() / geometry_.slots); }
  // The parts of a submission, each of which a test may corrupt on its own.
  void FillSlot(uint32_t slot, std::string_view text, uint64_t sequence) const;
  void PublishEntry(uint64_t position, uint64_t entry) const;
  // All of it, at the next position. RETURNS its sequence.
  uint64_t Submit(uint32_t slot, std::string_view text);
  uint64_t position() const { return position_; }

  // The answer to `sequence` in `slot`, at most `timeout_ms`; nothing if the lane was closed without one.
  std::optional<StatusCode> WaitAnswer(uint32_t slot, uint64_t sequence, int timeout_ms) const;
  std::vector<float> Vector(uint32_t slot) const;
  bool WaitClosed(int timeout_ms) const;
  StatusCode close_reason() const;
  // Every byte of the request lane, as words.
  SharedWord<uint64_t>* words() const { return reinterpret_cast<SharedWord<uint64_t>*>(request_base_); }
  size_t word_count() const { return geometry_.request_bytes() / 8; }
  // Of the request lane, and of the tail file.
  bool PunchHole(uint64_t offset, uint64_t bytes) const;
  bool PunchTail(uint64_t offset, uint64_t bytes) const;

 private:
  UniqueFd socket_, request_fd_, reply_fd_, tail_fd_, page_fd_, event_fd_, hot_fd_;
  std::byte* request_base_ = nullptr;
  std::byte* reply_base_ = nullptr;
  LaneGeometry geometry_;
  WelcomeMessage welcome_ = {};
  bool served_ = false;
  uint64_t position_ = 0;
  uint64_t sequence_next_ = 1;
};

}  // namespace sutra::test
