// A lane with both ends in the hands of a test: the engine's Lane, and a writable map of its request memfd through
// which the test plays the client, honest or hostile.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/lanes/lane.h"
#include "shm/base/time.h"
#include "shm/lane_memory.h"
#include "shm/lane_ring.h"

namespace sutra::testing {

struct ScriptedRequest {
  uint64_t sequence = 1;
  uint64_t tag = 0;
  uint32_t options = 0;
  uint32_t width = 0;
  uint32_t ttl_s = 0;
  uint64_t priority = 0;
  std::optional<uint64_t> tail_offset = {};  // of a long text; nothing = a region of the slot's own
  uint64_t submitted_ns = MonotonicNs();
  uint64_t deadline_ns = 0;
};

class ScriptedLane {
 public:
  explicit ScriptedLane(LaneGeometry geometry = {8, 4096, 4}, uint64_t id = 1, uint64_t client = 1, bool hot = false)
      : ScriptedLane(geometry, id, std::make_shared<Client>(client, 1000, 1, "scripted"), hot) {}
  // A further lane of that client. `hot`: it has the hot table.
  ScriptedLane(LaneGeometry geometry, uint64_t id, ClientPtr client, bool hot = false) {
    Result<LaneMemory> memory = LaneMemory::Create(geometry, LaneIdentity{77, id, {}});
    EXPECT_TRUE(memory.ok()) << memory.status().message();
    int pipe_fds[2] = {-1, -1};
    EXPECT_EQ(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK), 0);
    event_read_ = UniqueFd(pipe_fds[0]);
    void* base =
        mmap(nullptr, geometry.request_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, memory.value().request_fd(), 0);
    EXPECT_NE(base, MAP_FAILED);
    client_map_ = Mapping(static_cast<std::byte*>(base), geometry.request_bytes());
    client_ = {client_map_.base(), geometry};
    writer_ = SubmissionWriter(client_);
    lane_ = std::make_shared<Lane>(id, std::move(client), std::move(memory).value(), UniqueFd(pipe_fds[1]), hot);
    completions_ = CompletionReader(lane_->reply());
  }

  const std::shared_ptr<Lane>& lane() const { return lane_; }
  const RequestLane& client() const { return client_; }  // writable
  int event_fd() const { return event_read_.get(); }

  // Writes descriptor and text without publishing them.
  void Fill(uint32_t slot, std::string_view text, const ScriptedRequest& request) {
    RequestDescriptor& descriptor = client_.request(slot);
    const auto relaxed = std::memory_order_relaxed;
    descriptor.sequence.store(request.sequence, relaxed);
    descriptor.cancel_sequence.store(0, relaxed);
    descriptor.submitted_ns.store(request.submitted_ns, relaxed);
    descriptor.deadline_ns.store(request.deadline_ns, relaxed);
    descriptor.tag.store(request.tag, relaxed);
    descriptor.bytes_and_options.store(text.size() | uint64_t{request.options} << 32, relaxed);
    descriptor.width_and_ttl.store(request.width | uint64_t{request.ttl_s} << 32, relaxed);
    const bool is_long = text.size() > kTextHeadBytes;
    const uint64_t own_offset = is_long ? slot * (client_.geometry.tail_bytes() / client_.geometry.slots) : 0;
    const uint64_t offset = request.tail_offset.value_or(own_offset);
    descriptor.priority_and_tail.store(request.priority | offset << 8, relaxed);
    if (!is_long) return static_cast<void>(std::memcpy(client_.text_head(slot), text.data(), text.size()));
    EXPECT_EQ(pwrite(lane_->memory().tail_fd(), text.data(), text.size(), static_cast<off_t>(offset)),
              static_cast<ssize_t>(text.size()));
  }
  void Submit(uint32_t slot, std::string_view text, const ScriptedRequest& request = {}) {
    Fill(slot, text, request);
    writer_.Publish(slot);
  }
  SubmissionWriter& writer() { return writer_; }

  StatusCode status(uint32_t slot) const { return ResultWordStatus(LoadResultWord(lane_->reply(), slot)); }
  uint64_t answered_sequence(uint32_t slot) const { return ResultWordSequence(LoadResultWord(lane_->reply(), slot)); }
  const ResultDescriptor& result(uint32_t slot) const { return lane_->reply().result(slot); }
  std::vector<float> vector(uint32_t slot) const {
    const float* begin = lane_->reply().vector(slot);
    return {begin, begin + lane_->geometry().width};
  }
  CompletionReader& completions() { return completions_; }

 private:
  UniqueFd event_read_;
  Mapping client_map_;
  RequestLane client_;
  SubmissionWriter writer_;
  std::shared_ptr<Lane> lane_;
  CompletionReader completions_;
};

}  // namespace sutra::testing
