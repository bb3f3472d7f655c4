// The untrusted copy: what is accepted, what is answered, what closes the lane, and a fault in the middle.
#include "engine/lanes/untrusted_copy.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "engine/lanes/sigbus_guard.h"
#include "shm/lane_memory.h"
#include "tests/shm/lane_memory.h"

namespace sutra::test {
namespace {

constexpr uint64_t kNow = 1'000'000'000'000'000;  // well over the age bound

// The engine's memory of a real lane, and a writable map of the request lane as a client has it.
class UntrustedCopy : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(InstallSigbusGuard());
    auto made = LaneMemory::Create(geometry_, {1, 1, {}});
    ASSERT_TRUE(made.ok()) << made.status().message();
    memory_ = std::move(made).value();
    base_ = static_cast<std::byte*>(
        mmap(nullptr, geometry_.request_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, memory_.request_fd(), 0));
    ASSERT_NE(base_, MAP_FAILED);
    client_ = {base_, geometry_};
    RequestDescriptor& d = client_.request(1);
    d.sequence.store(7, std::memory_order_relaxed);
    d.submitted_ns.store(kNow - 5, std::memory_order_relaxed);
    d.deadline_ns.store(kNow + 100, std::memory_order_relaxed);
    d.tag.store(42, std::memory_order_relaxed);
    SetBytesAndOptions(5, 0);
    std::memcpy(client_.text_head(1), "hello", 5);
  }
  void TearDown() override { munmap(base_, geometry_.request_bytes()); }

  void SetBytesAndOptions(uint64_t bytes, uint64_t options) {
    client_.request(1).bytes_and_options.store(options << 32 | bytes, std::memory_order_relaxed);
  }
  CopyOutcome Copy() {
    text_.assign(geometry_.text_bytes_max, '?');
    return Untrusted().CopyAndCheck(kNow, text_.data(), &request_, &status_);
  }
  UntrustedRequest Untrusted() const { return {memory_.request(), memory_.tail_fd(), 1}; }
  void SetPriorityAndTail(uint64_t word) {
    client_.request(1).priority_and_tail.store(word, std::memory_order_relaxed);
  }
  void ExpectAnswer(StatusCode status) {
    EXPECT_EQ(Copy(), CopyOutcome::kAnswer);
    EXPECT_EQ(status_, status);
    EXPECT_EQ(request_.sequence, 7u);
    EXPECT_EQ(request_.tag, 42u);
  }
  std::string CopyText() {
    EXPECT_TRUE(Untrusted().CopyLongText(request_, text_.data()));
    return text_.substr(0, request_.text_bytes);
  }

  LaneGeometry geometry_ = {4, 10'000, 8};
  LaneMemory memory_;
  std::byte* base_ = nullptr;
  RequestLane client_;
  CheckedRequest request_;
  std::string text_;
  StatusCode status_ = StatusCode::kOk;
};

TEST_F(UntrustedCopy, GoodRequestIsTakenWhole) {
  EXPECT_EQ(Copy(), CopyOutcome::kOk);
  EXPECT_EQ(request_.sequence, 7u);
  EXPECT_EQ(request_.tag, 42u);
  EXPECT_EQ(request_.submitted_ns, kNow - 5);
  EXPECT_EQ(request_.deadline_ns, kNow + 100);
  EXPECT_EQ(request_.width, 8u);
  EXPECT_EQ(CopyText(), "hello");
}

TEST_F(UntrustedCopy, RequestsThatCanBeAnsweredGetTheirStatus) {
  SetBytesAndOptions(0, 0);
  ExpectAnswer(StatusCode::kEmptyText);
  SetBytesAndOptions(5, 1u << 5);
  ExpectAnswer(StatusCode::kBadOption);
  SetBytesAndOptions(5, kOptionNormalize | kOptionRaw);
  ExpectAnswer(StatusCode::kBadOption);
  SetBytesAndOptions(5, 0);
  client_.request(1).width_and_ttl.store(9, std::memory_order_relaxed);
  ExpectAnswer(StatusCode::kBadOption);
  client_.request(1).width_and_ttl.store(uint64_t{60} << 32 | 8, std::memory_order_relaxed);
  for (const uint64_t priority : {3, 0x80, 0xff}) {
    SetPriorityAndTail(priority);
    ExpectAnswer(StatusCode::kBadOption);
  }
  SetPriorityAndTail(2 | UINT64_MAX << 8);  // the offset of a text in the head is nobody's concern
  EXPECT_EQ(Copy(), CopyOutcome::kOk);
  EXPECT_EQ(request_.ttl_s, 60u);
  EXPECT_EQ(request_.priority, kClassBulk);
}

TEST_F(UntrustedCopy, WhatNoLibraryWritesIsAViolation) {
  for (const uint64_t bytes : {uint64_t{10'001}, uint64_t{0xffffffff}, uint64_t{1} << 31}) {
    SetBytesAndOptions(bytes, 0);
    EXPECT_EQ(Copy(), CopyOutcome::kViolation) << bytes;
  }
  SetBytesAndOptions(10'000, 0);
  EXPECT_EQ(Copy(), CopyOutcome::kOk);
  for (const uint64_t sequence : {uint64_t{0}, uint64_t{1} << 56, ~uint64_t{0}}) {
    client_.request(1).sequence.store(sequence, std::memory_order_relaxed);
    EXPECT_EQ(Copy(), CopyOutcome::kViolation) << sequence;
  }
}

TEST_F(UntrustedCopy, TimesAreBounded) {
  RequestDescriptor& d = client_.request(1);
  d.submitted_ns.store(kNow + 1, std::memory_order_relaxed);  // from the future
  d.deadline_ns.store(~uint64_t{0}, std::memory_order_relaxed);
  EXPECT_EQ(Copy(), CopyOutcome::kOk);
  EXPECT_EQ(request_.submitted_ns, kNow);
  EXPECT_EQ(request_.deadline_ns, kNow + kRequestNsMax);
  d.submitted_ns.store(1, std::memory_order_relaxed);  // hours ago
  d.deadline_ns.store(0, std::memory_order_relaxed);
  EXPECT_EQ(Copy(), CopyOutcome::kOk);
  EXPECT_EQ(request_.submitted_ns, kNow);
  EXPECT_EQ(request_.deadline_ns, kNow + kRequestTimeoutNsDefault);
}

TEST_F(UntrustedCopy, TextsOfEveryLengthAreCopiedExactlyFromWhereTheyLie) {
  std::string written;
  for (int i = 0; i < 10'000; ++i) written.push_back(static_cast<char>(i * 37 + i / 256));
  constexpr uint64_t kOffset = 4097;  // an arena: no alignment, and across the regions that the library uses
  std::memcpy(client_.text_head(1), written.data(), kTextHeadBytes);
  ASSERT_EQ(pwrite(memory_.tail_fd(), written.data(), written.size(), kOffset), 10'000);
  SetPriorityAndTail(PriorityAndTail(kPriorityBulk, kOffset));
  for (uint32_t bytes = 1; bytes <= 600; ++bytes) {
    SetBytesAndOptions(bytes, 0);
    ASSERT_EQ(Copy(), CopyOutcome::kOk);
    ASSERT_EQ(CopyText(), written.substr(0, bytes)) << bytes;
  }
  SetBytesAndOptions(10'000, 0);
  ASSERT_EQ(Copy(), CopyOutcome::kOk);
  EXPECT_EQ(CopyText(), written);
}

TEST_F(UntrustedCopy, ALongTextOutsideTheTailFileIsAViolation) {
  SetBytesAndOptions(300, 0);
  const uint64_t end = geometry_.tail_bytes();
  for (const uint64_t offset : {end - 299, end, end + 1, uint64_t{1} << 55, (uint64_t{1} << 56) - 300}) {
    SetPriorityAndTail(PriorityAndTail(kPriorityNormal, offset));
    EXPECT_EQ(Copy(), CopyOutcome::kViolation) << offset;
  }
  for (const uint64_t offset : {uint64_t{0}, uint64_t{1}, end - 300}) {
    SetPriorityAndTail(PriorityAndTail(kPriorityNormal, offset));
    EXPECT_EQ(Copy(), CopyOutcome::kOk) << offset;
    EXPECT_EQ(CopyText(), std::string(300, '\0')) << "a hole reads as zeros";
  }
}

TEST_F(UntrustedCopy, PunchedHoleReadsAsZerosAndAllocatesNothing) {
  ASSERT_EQ(fallocate(memory_.request_fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                      static_cast<off_t>(geometry_.request_bytes())),
            0);
  EXPECT_EQ(Copy(), CopyOutcome::kViolation);  // sequence 0
}

TEST_F(UntrustedCopy, CancelIsSeenForThatSequenceOnly) {
  ASSERT_EQ(Copy(), CopyOutcome::kOk);
  EXPECT_FALSE(request_.cancelled);
  EXPECT_FALSE(IsCancelled(memory_.request(), 1, 7));
  client_.request(1).cancel_sequence.store(7, std::memory_order_relaxed);
  ASSERT_EQ(Copy(), CopyOutcome::kOk);
  EXPECT_TRUE(request_.cancelled);
  EXPECT_TRUE(IsCancelled(memory_.request(), 1, 7));
  EXPECT_FALSE(IsCancelled(memory_.request(), 1, 8));
  EXPECT_FALSE(IsCancelled(memory_.request(), 2, 7));
}

TEST_F(UntrustedCopy, LengthThatFlickersIsCheckedAndUsedFromOneCopy) {
  std::atomic<bool> stop{false};
  std::thread flicker([&] {
    while (!stop.load(std::memory_order_relaxed)) {
      SetBytesAndOptions(0xffffffff, 0xffffffff);
      SetBytesAndOptions(10'000, 0);
      SetBytesAndOptions(1, 0);
    }
  });
  for (int i = 0; i < 5000; ++i) {
    if (Copy() != CopyOutcome::kOk) continue;
    ASSERT_LE(request_.text_bytes, 10'000u);
    ASSERT_TRUE(Untrusted().CopyLongText(request_, text_.data()));
  }
  stop.store(true, std::memory_order_relaxed);
  flicker.join();
}

TEST_F(UntrustedCopy, AShortTailFileIsAViolation) {
  const UniqueFd fd(memfd_create("short", MFD_CLOEXEC));
  ASSERT_EQ(ftruncate(fd.get(), 100), 0);
  SetBytesAndOptions(5000, 0);
  ASSERT_EQ(Copy(), CopyOutcome::kOk);
  EXPECT_FALSE(UntrustedRequest(memory_.request(), fd.get(), 1).CopyLongText(request_, text_.data()));
}

// A truncated mapping cannot happen to a sealed lane; an unsealed stand-in shows that even then the engine lives.
TEST_F(UntrustedCopy, FaultInsideTheCopyIsAViolationAndTheThreadGoesOn) {
  const int fd = memfd_create("shrinking", MFD_CLOEXEC);
  ASSERT_EQ(ftruncate(fd, static_cast<off_t>(geometry_.request_bytes())), 0);
  auto* base = static_cast<std::byte*>(mmap(nullptr, geometry_.request_bytes(), PROT_READ, MAP_SHARED, fd, 0));
  ASSERT_NE(base, MAP_FAILED);
  ASSERT_EQ(ftruncate(fd, 0), 0);
  const RequestLane gone = {base, geometry_};
  text_.assign(geometry_.text_bytes_max, '?');
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(UntrustedRequest(gone, fd, 1).CopyAndCheck(kNow, text_.data(), &request_, &status_),
              CopyOutcome::kViolation);
    EXPECT_FALSE(IsCancelled(gone, 1, 1));
  }
  EXPECT_EQ(Copy(), CopyOutcome::kOk) << "a healthy lane is served after the fault";
  munmap(base, geometry_.request_bytes());
  close(fd);
}

}  // namespace
}  // namespace sutra::test
