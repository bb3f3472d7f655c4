// Scripted lanes, honest first, then the memory part of a hostile client's script: whatever is written, the reader ends
// with a request, an answerable refusal or a violation, and never reads outside.
#include "engine/lanes/lane_reader.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>

#include <atomic>
#include <cstdlib>
#include <iostream>
#include <random>
#include <string>
#include <thread>

#include "engine/lanes/untrusted_copy.h"
#include "tests/kit/scripted_lane.h"
#include "tests/kit/seed.h"

namespace sutra {
namespace {

using testing::ScriptedLane;
using testing::ScriptedRequest;
using Next = LaneReader::Next;

constexpr auto kRelaxed = std::memory_order_relaxed;

class LaneReaderTest : public ::testing::Test {
 protected:
  Next Take() { return reader_.Take(scripted_.lane(), &taken_, &why_); }
  // Takes one request that must be answered with the result.
  StatusCode TakeStatus() {
    EXPECT_EQ(Take(), Next::kTaken) << why_;
    return taken_.status;
  }

  ScriptedLane scripted_;
  LaneReader reader_{4096};
  LaneReader::Taken taken_;
  const char* why_ = "";
};

TEST_F(LaneReaderTest, AnEmptyLaneGivesNothing) { EXPECT_EQ(Take(), Next::kNone); }

TEST_F(LaneReaderTest, ARequestComesWithItsTextAndOptions) {
  ScriptedRequest request;
  request.sequence = 42;
  request.tag = 7;
  request.options = kOptionRaw | kOptionReject;
  request.ttl_s = 60;
  request.priority = 1;
  request.deadline_ns = MonotonicNs() + kNsPerSecond;
  scripted_.Submit(3, "text", request);
  ASSERT_EQ(TakeStatus(), StatusCode::kOk);
  EXPECT_EQ(taken_.text, "text");
  EXPECT_EQ(taken_.waiter.slot, 3u);
  EXPECT_EQ(taken_.waiter.sequence, 42u);
  EXPECT_EQ(taken_.waiter.tag, 7u);
  EXPECT_EQ(taken_.waiter.options, uint32_t{kOptionRaw | kOptionReject});
  EXPECT_EQ(taken_.waiter.ttl_s, 60u);
  EXPECT_EQ(taken_.waiter.priority, kClassQuery);
  EXPECT_EQ(taken_.waiter.deadline_ns, request.deadline_ns);
  EXPECT_EQ(taken_.waiter.lane, scripted_.lane());
  EXPECT_EQ(Take(), Next::kNone);
}

TEST_F(LaneReaderTest, ALongTextIsReadFromHeadAndTail) {
  std::string text;
  while (text.size() < 4096) text += static_cast<char>('a' + text.size() % 26);
  scripted_.Submit(0, text);
  ASSERT_EQ(TakeStatus(), StatusCode::kOk);
  EXPECT_EQ(taken_.text, text);
}

TEST_F(LaneReaderTest, NulIsAnOrdinaryCharacter) {
  const std::string text("a\0b", 3);
  scripted_.Submit(0, text);
  ASSERT_EQ(TakeStatus(), StatusCode::kOk);
  EXPECT_EQ(taken_.text, text);
}

TEST_F(LaneReaderTest, BadRequestsAreAnsweredAndTheLaneGoesOn) {
  scripted_.Submit(0, "");
  EXPECT_EQ(TakeStatus(), StatusCode::kEmptyText);
  scripted_.Submit(1, "\xff");
  EXPECT_EQ(TakeStatus(), StatusCode::kOk);  // the worker checks texts, where that costs the loop nothing
  ScriptedRequest unknown_option;
  unknown_option.options = 1u << 31;
  scripted_.Submit(2, "a", unknown_option);
  EXPECT_EQ(TakeStatus(), StatusCode::kBadOption);
  ScriptedRequest both;
  both.options = kOptionRaw | kOptionNormalize;
  scripted_.Submit(3, "a", both);
  EXPECT_EQ(TakeStatus(), StatusCode::kBadOption);
  ScriptedRequest narrow;
  narrow.width = 2;
  scripted_.Submit(4, "a", narrow);
  EXPECT_EQ(TakeStatus(), StatusCode::kBadOption);
  ScriptedRequest late;
  late.deadline_ns = 1;
  scripted_.Submit(5, "a", late);
  EXPECT_EQ(TakeStatus(), StatusCode::kDeadlineExceeded);
  scripted_.Fill(6, "a", {});
  scripted_.client().request(6).cancel_sequence.store(1, kRelaxed);
  scripted_.writer().Publish(6);
  EXPECT_EQ(TakeStatus(), StatusCode::kCancelled);
  ScriptedRequest exact;
  exact.width = 4;
  scripted_.Submit(7, "a", exact);
  EXPECT_EQ(TakeStatus(), StatusCode::kOk);
}

TEST_F(LaneReaderTest, AHeldSlotThatIsSubmittedAgainIsAViolation) {
  scripted_.Submit(0, "a");
  ASSERT_EQ(TakeStatus(), StatusCode::kOk);
  scripted_.Submit(0, "b");
  EXPECT_EQ(Take(), Next::kViolation);
}

TEST_F(LaneReaderTest, AnAnsweredSlotMayBeUsedAgain) {
  for (uint64_t sequence = 1; sequence < 40; ++sequence) {
    ScriptedRequest request;
    request.sequence = sequence;
    scripted_.Submit(5, "a", request);
    ASSERT_EQ(TakeStatus(), StatusCode::kOk);
    ASSERT_EQ(scripted_.lane()->Publish(5, sequence, {}), Lane::Published::kDone);
    EXPECT_EQ(scripted_.answered_sequence(5), sequence);
  }
  EXPECT_EQ(scripted_.lane()->held(), 0u);
}

TEST_F(LaneReaderTest, DescriptorsNoLibraryWritesAreViolations) {
  struct Case {
    const char* name;
    uint64_t sequence;
    uint64_t bytes;
  };
  for (const Case& bad : {Case{"sequence 0", 0, 1}, Case{"sequence above 2^56", 1ull << 56, 1},
                          Case{"one byte over", 1, 4097}, Case{"2^32-1 bytes", 1, 0xffffffff}}) {
    ScriptedLane scripted;
    scripted.Fill(0, "a", {});
    scripted.client().request(0).sequence.store(bad.sequence, kRelaxed);
    scripted.client().request(0).bytes_and_options.store(bad.bytes, kRelaxed);
    scripted.writer().Publish(0);
    EXPECT_EQ(reader_.Take(scripted.lane(), &taken_, &why_), Next::kViolation) << bad.name;
  }
}

TEST_F(LaneReaderTest, RingEntriesOfAWrongPositionOrSlotAreViolations) {
  for (const uint64_t entry : {RingEntry(1, 0), RingEntry(uint64_t{1} << 40, 0), RingEntry(0, 8), RingEntry(0, 0xffff),
                               UINT64_MAX, uint64_t{1}}) {
    ScriptedLane scripted;
    scripted.Fill(0, "a", {});
    scripted.client().submission(0).store(entry, std::memory_order_release);
    EXPECT_EQ(reader_.Take(scripted.lane(), &taken_, &why_), Next::kViolation) << std::hex << entry;
  }
}

TEST_F(LaneReaderTest, APunchedHoleReadsAsNothingAndThenAsAViolation) {
  scripted_.Submit(0, "a");
  ASSERT_EQ(fallocate(scripted_.lane()->memory().request_fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                      static_cast<off_t>(scripted_.lane()->geometry().request_bytes())),
            0);
  EXPECT_EQ(Take(), Next::kNone);  // the ring entry is gone
  scripted_.writer().Publish(1);   // position 1: this reader still expects 0
  EXPECT_EQ(Take(), Next::kNone);
  scripted_.client().submission(0).store(RingEntry(0, 0), std::memory_order_release);
  EXPECT_EQ(Take(), Next::kViolation);  // a descriptor of zeros
}

TEST_F(LaneReaderTest, TheCopyDoesNotChangeWithTheClientsMemory) {
  scripted_.Submit(0, "honest");
  ASSERT_EQ(TakeStatus(), StatusCode::kOk);
  std::memcpy(scripted_.client().text_head(0), "poison", 6);
  EXPECT_EQ(taken_.text, "honest");
}

TEST_F(LaneReaderTest, TimesFarAwayAreBounded) {
  ScriptedRequest request;
  request.submitted_ns = UINT64_MAX;
  request.deadline_ns = UINT64_MAX;
  scripted_.Submit(0, "a", request);
  ASSERT_EQ(TakeStatus(), StatusCode::kOk);
  const uint64_t now_ns = MonotonicNs();
  EXPECT_LE(taken_.waiter.submitted_ns, now_ns);
  EXPECT_LE(taken_.waiter.deadline_ns, now_ns + kRequestNsMax);
}

// Random bytes everywhere the client can write, changed by a second thread while the reader copies.
TEST_F(LaneReaderTest, SurvivesRandomMemoryThatChangesMeanwhile) {
  std::mt19937_64 random(test::FreshTestSeed());
  int violations = 0, taken = 0;
  for (int round = 0; round < 200; ++round) {
    ScriptedLane scripted;
    const RequestLane& client = scripted.client();
    const auto scribble = [&client](std::mt19937_64* source) {
      for (uint32_t slot = 0; slot < 8; ++slot) {
        RequestDescriptor& descriptor = client.request(slot);
        // Small numbers are often valid, which gets the reader further.
        descriptor.sequence.store((*source)() % 4, kRelaxed);
        descriptor.cancel_sequence.store((*source)() % 64, kRelaxed);
        descriptor.deadline_ns.store((*source)() % 2 == 0 ? 0 : (*source)(), kRelaxed);
        descriptor.bytes_and_options.store((*source)() % 4200 | ((*source)() % 40) << 32, kRelaxed);
        descriptor.width_and_ttl.store((*source)() % 6, kRelaxed);
        descriptor.priority_and_tail.store((*source)() % 4, kRelaxed);
      }
    };
    scribble(&random);
    std::atomic<bool> stop{false};
    std::thread editor([&, editor_seed = random()] {
      std::mt19937_64 editor_random(editor_seed);
      while (!stop.load(kRelaxed)) scribble(&editor_random);
    });
    for (uint64_t position = 0; position < 64; ++position) {
      const uint64_t entry = random() % 16 == 0 ? random() : RingEntry(position, static_cast<uint32_t>(random() % 9));
      client.submission(position).store(entry, std::memory_order_release);
      const Next next = reader_.Take(scripted.lane(), &taken_, &why_);
      if (next == Next::kViolation) {
        ++violations;
        break;
      }
      if (next == Next::kTaken) {
        ++taken;
        EXPECT_LE(taken_.text.size(), 4096u);
        EXPECT_LT(taken_.waiter.slot, 8u);
        static_cast<void>(scripted.lane()->Publish(taken_.waiter.slot, taken_.waiter.sequence, {}));
      }
    }
    stop.store(true, kRelaxed);
    editor.join();
  }
  // The script must reach both outcomes, otherwise it proves nothing.
  EXPECT_GT(violations, 0);
  EXPECT_GT(taken, 0);
}

}  // namespace
}  // namespace sutra
