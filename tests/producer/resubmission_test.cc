// Engines that die or stop under requests, and the next one that answers them: every request ends once, with its own
// text's vector, and none is lost. First with both ends in the hands of the test, then with processes that are killed.
#include "producer/resubmission.h"

#include <poll.h>

#include <atomic>
#include <map>
#include <thread>

#include "producer/lane_poll.h"
#include "producer/slot_end.h"
#include "shm/base/checkpoint.h"
#include "tests/kit/poll_tickets.h"
#include "tests/producer/client_fixture.h"
#include "tests/producer/lane_fixture.h"

namespace sutra::test {
namespace {

using client::Attachment;
using client::LaneConnection;
using client::SettleSlot;

class MoveTest : public LaneTest {
 protected:
  static std::string TextIn(EngineEnd& engine, uint32_t slot) {
    const RequestDescriptor& request = engine.Request(slot);
    // relaxed: one thread
    const auto bytes = static_cast<uint32_t>(request.bytes_and_options.load(std::memory_order_relaxed));
    const uint64_t tail = TailOffsetOf(request.priority_and_tail.load(std::memory_order_relaxed));
    std::string text(bytes, '?');
    if (bytes <= kTextHeadBytes) {
      std::memcpy(text.data(), engine.memory().request().text_head(slot), bytes);
    } else {
      EXPECT_EQ(pread(engine.memory().tail_fd(), text.data(), bytes, static_cast<off_t>(tail)), bytes);
    }
    return text;
  }
  // Dies, and the lane goes on at the next engine.
  uint64_t DieAndOpen(EngineEnd* engine, EngineEnd* next) {
    engine->Die();
    EXPECT_FALSE(Alive());
    EXPECT_EQ(client::TellDeath(lane_), SUTRA_ENGINE_GONE);
    return Open(next);
  }
  size_t Attachments() {
    const MutexLock lock(lane_->mutex);
    size_t count = 0;
    for (const Attachment* attachment = lane_->newest; attachment != nullptr; attachment = attachment->previous)
      ++count;
    return count;
  }
  sutra_result ResultOf(uint32_t slot) {
    sutra_result result;
    client::FillResult(lane_, slot, &result);
    return result;
  }
};

TEST_F(MoveTest, WhatWasAnsweredStaysAndTheRestMovesInTheOrderOfItsSubmission) {
  const uint32_t first = Submit("first", {.tag = 5, .flags = SUTRA_RAW, .width = 8, .ttl_s = 9, .priority = 2});
  const uint32_t answered = Submit("answered"), last = Submit("last");
  const uint64_t sequences[] = {Sequence(first), Sequence(last)};
  engine_.Vector(answered)[0] = 1.5f;
  engine_.Answer(answered);
  EngineEnd next;
  EXPECT_EQ(DieAndOpen(&engine_, &next), 2u);
  EXPECT_EQ(next.Take(), static_cast<int>(first));
  EXPECT_EQ(next.Take(), static_cast<int>(last));
  EXPECT_EQ(next.Take(), -1) << "what was answered is never copied";
  EXPECT_EQ(TextIn(next, first), "first");
  EXPECT_EQ(TextIn(next, last), "last");
  // relaxed: one thread
  EXPECT_EQ(next.Request(first).sequence.load(std::memory_order_relaxed), sequences[0]);
  EXPECT_EQ(next.Request(last).sequence.load(std::memory_order_relaxed), sequences[1]);
  EXPECT_EQ(next.Request(first).tag.load(std::memory_order_relaxed), 5u);
  EXPECT_EQ(next.Request(first).bytes_and_options.load(std::memory_order_relaxed), uint64_t{SUTRA_RAW} << 32 | 5);
  EXPECT_EQ(next.Request(first).width_and_ttl.load(std::memory_order_relaxed), uint64_t{9} << 32 | 8);
  EXPECT_EQ(PriorityOf(next.Request(first).priority_and_tail.load(std::memory_order_relaxed)), 2u);
  EXPECT_EQ(SettleSlot(lane_, answered, 0), SUTRA_OK);
  EXPECT_EQ(ResultOf(answered).vector[0], 1.5f);
  next.Vector(first)[0] = 2.5f;
  next.Answer(first);
  EXPECT_EQ(SettleSlot(lane_, first, 0), SUTRA_OK);
  EXPECT_EQ(ResultOf(first).vector[0], 2.5f);
  EXPECT_EQ(SettleSlot(lane_, last, 0), SUTRA_NOT_READY);
}

TEST_F(MoveTest, ASleepingEngineIsRungForWhatMovedToIt) {
  Submit("text");
  EngineEnd next;
  next.page()->asleep.store(1, std::memory_order_relaxed);  // relaxed: one thread
  EXPECT_EQ(DieAndOpen(&engine_, &next), 1u);
  char byte;
  EXPECT_EQ(recv(next.socket(), &byte, 1, MSG_DONTWAIT), 1);
}

TEST_F(MoveTest, LongTextsMoveWholeAndTheirPagesAreCountedAgain) {
  const std::string a(5000, 'a'), b(8192, 'b');
  const uint32_t first = Submit(a), answered = Submit(std::string(4000, 'x')), second = Submit(b);
  engine_.Answer(answered);
  EngineEnd next;
  EXPECT_EQ(DieAndOpen(&engine_, &next), 2u);
  EXPECT_EQ(TextIn(next, first), a);
  EXPECT_EQ(TextIn(next, second), b);
  EXPECT_EQ(SettleSlot(lane_, answered, 0), SUTRA_OK);
  Release(answered);
  const uint32_t third = Submit(std::string(3000, 'c'));
  EXPECT_EQ(TextIn(next, first), a) << "the new text has pages of its own";
  EXPECT_EQ(TextIn(next, second), b);
  EXPECT_EQ(TextIn(next, third), std::string(3000, 'c'));
}

TEST_F(MoveTest, TimesAreOnTheNextEnginesClock) {
  const uint32_t slot = Submit("text", {.timeout_ns = kNsPerSecond});
  Die();
  EngineEnd next;
  LaneConnection connection = next.Connect();
  connection.engine_clock_ahead_ns = static_cast<int64_t>(7 * kNsPerSecond);
  std::atomic<uint64_t> moved = 0;
  ASSERT_EQ(client::MoveLane(lane_, connection, MonotonicNs(), &moved), SUTRA_OK);
  // relaxed: one thread
  EXPECT_EQ(next.Request(slot).deadline_ns.load(std::memory_order_relaxed),
            lane_->slots[slot].deadline_ns + 7 * kNsPerSecond);
  EXPECT_EQ(next.Request(slot).submitted_ns.load(std::memory_order_relaxed),
            lane_->slots[slot].submitted_ns + 7 * kNsPerSecond);
}

TEST_F(MoveTest, SeveralDeathsInARowMoveARequestFromWhereItWasLast) {
  const uint32_t slot = Submit("survivor");
  EngineEnd second, third, fourth;
  EXPECT_EQ(DieAndOpen(&engine_, &second), 1u);
  const uint32_t later = Submit("of the second engine");
  EXPECT_EQ(DieAndOpen(&second, &third), 2u);
  EXPECT_EQ(DieAndOpen(&third, &fourth), 2u);
  EXPECT_EQ(Attachments(), 4u) << "a waiter may still look at the first one's words";
  EXPECT_EQ(TextIn(fourth, slot), "survivor");
  EXPECT_EQ(TextIn(fourth, later), "of the second engine");
  fourth.Answer(slot);
  EXPECT_EQ(SettleSlot(lane_, slot, 0), SUTRA_OK);
  Release(slot);
  EXPECT_EQ(Attachments(), 3u) << "the later one was never in the first";
  fourth.Answer(later);
  EXPECT_EQ(SettleSlot(lane_, later, 0), SUTRA_OK);
  Release(later);
  EXPECT_EQ(Attachments(), 1u);
  EXPECT_EQ(FreeSlots(), 4u);
}

TEST_F(MoveTest, WhatNobodyWantsDoesNotMove) {
  const uint32_t abandoned = Submit("abandoned"), late = Submit("late", {.timeout_ns = 1}),
                 cancelled = Submit("cancel");
  Release(abandoned);
  {
    const MutexLock lock(lane_->mutex);
    client::CancelLocked(lane_, cancelled);
  }
  EngineEnd next;
  EXPECT_EQ(DieAndOpen(&engine_, &next), 0u);
  EXPECT_EQ(next.Take(), -1);
  EXPECT_EQ(FreeSlots(), 2u);
  EXPECT_EQ(SettleSlot(lane_, late, 0), SUTRA_DEADLINE_EXCEEDED);
  EXPECT_EQ(SettleSlot(lane_, cancelled, 0), SUTRA_CANCELLED);
  Release(late);
  Release(cancelled);
  EXPECT_EQ(FreeSlots(), 4u) << "the engine that owed the answers is gone";
  EXPECT_EQ(Attachments(), 1u);
}

// The slot is the next engine's until it answers: given to another text before, it would close the honest client's
// lane.
TEST_F(MoveTest, ATicketReleasedAfterTheMoveLeavesItsSlotToTheNextEngineUntilItsAnswer) {
  const uint32_t slot = Submit("moved");
  EngineEnd next;
  EXPECT_EQ(DieAndOpen(&engine_, &next), 1u);
  engine_.Answer(slot);  // a process that the dead engine left behind
  EXPECT_EQ(SettleSlot(lane_, slot, lane_->slots[slot].deadline_ns), SUTRA_DEADLINE_EXCEEDED);
  Release(slot);
  EXPECT_EQ(FreeSlots(), 3u);
  ASSERT_EQ(next.Take(), static_cast<int>(slot));
  next.Answer(slot);
  const MutexLock lock(lane_->mutex);
  EXPECT_EQ(client::ReapLocked(lane_), 4u);
}

// One that was seen before the move, by a thread that decides only now: the vector is read where it was seen.
TEST_F(MoveTest, AnAnswerIsReadInTheMemoryOfTheEngineThatGaveIt) {
  const uint32_t slot = Submit("moved");
  const uint32_t first = client::HomeOf(lane_, slot)->number;
  engine_.Vector(slot)[0] = 1.5f;
  engine_.Result(slot).width = EngineEnd::kWidth;
  EngineEnd next;
  EXPECT_EQ(DieAndOpen(&engine_, &next), 1u);
  next.Vector(slot)[0] = 9.5f;
  client::EndSlot(lane_, slot, client::kEndedByAnswer | SUTRA_OK | first << client::kEndedNumberShift);
  EXPECT_EQ(ResultOf(slot).vector[0], 1.5f);
}

TEST_F(MoveTest, APollerGetsWhatTheLastEngineAnsweredAndWhatTheNextOneDoes) {
  const uint32_t answered = Submit(), moved = Submit();
  engine_.Answer(answered);
  EngineEnd next;
  EXPECT_EQ(DieAndOpen(&engine_, &next), 1u);
  ASSERT_EQ(next.Take(), static_cast<int>(moved));
  next.Answer(moved);
  sutra_result results[4] = {embed::Result()};
  client::ResultSink sink;
  ASSERT_TRUE(sink.Open(results, sizeof(sutra_result)));
  client::PollRoom room = {.results = sink, .count = 4};
  const MutexLock lock(lane_->mutex);
  client::PollLocked(lane_, &room, MonotonicNs(), false);
  EXPECT_EQ(room.found, 2u);
  client::PollLocked(lane_, &room, MonotonicNs(), false);
  EXPECT_EQ(room.found, 2u) << "each once";
}

TEST_F(MoveTest, AViolationEndsItsRequestsAndMovesNone) {
  const uint32_t slot = Submit();
  engine_.SetState(kLaneClosed, StatusCode::kProtocolViolation);
  EXPECT_FALSE(Alive());
  EXPECT_EQ(client::TellDeath(lane_), SUTRA_PROTOCOL_VIOLATION);
  EngineEnd next;
  EXPECT_EQ(Open(&next), 0u);
  EXPECT_EQ(SettleSlot(lane_, slot, 0), SUTRA_PROTOCOL_VIOLATION);
}

TEST_F(MoveTest, AnOrderlyStopMovesWhatItLeftAndEndsFailFastAsShuttingDown) {
  const uint32_t moves = Submit(), ends = Submit("text", {.fail_fast = true});
  engine_.SetState(kLaneClosed, StatusCode::kShuttingDown);
  EXPECT_FALSE(Alive());
  EXPECT_EQ(client::TellDeath(lane_), SUTRA_SHUTTING_DOWN);
  EngineEnd next;
  EXPECT_EQ(Open(&next), 1u);
  EXPECT_EQ(next.Take(), static_cast<int>(moves));
  EXPECT_EQ(SettleSlot(lane_, ends, 0), SUTRA_SHUTTING_DOWN);
}

TEST_F(MoveTest, WhatWaitsEndsWithItsReasonWhereTheNextEngineIsAnother) {
  const uint32_t answered = Submit(), waits = Submit();
  engine_.Answer(answered);
  Die();
  EXPECT_TRUE(client::HasWaiting(lane_));
  client::EndWaiting(lane_, SUTRA_REASON_OTHER_LAYOUT);
  EXPECT_FALSE(client::HasWaiting(lane_));
  EXPECT_EQ(SettleSlot(lane_, answered, 0), SUTRA_OK);
  EXPECT_EQ(SettleSlot(lane_, waits, 0), SUTRA_ENGINE_GONE);
  EXPECT_EQ(ResultOf(waits).reason, SUTRA_REASON_OTHER_LAYOUT);
}

TEST_F(MoveTest, VectorsKeptOver100RestartsStayAndEachKeepsOnlyItsOwnEnginesMemory) {
  EngineEnd first(128);
  client::ClientLane* lane = client::MakeClientLane(&client_.signals, 4, 128);
  std::atomic<uint64_t> moved = 0;
  ASSERT_EQ(client::MoveLane(lane, first.Connect(), MonotonicNs(), &moved), SUTRA_OK);
  std::swap(lane, lane_);
  std::vector<std::unique_ptr<EngineEnd>> engines;
  EngineEnd* engine = &first;
  std::vector<uint32_t> slots;
  for (int round = 0; round < 100; ++round) {
    slots.push_back(Submit());
    engine->Vector(slots.back())[0] = static_cast<float>(round);
    engine->Answer(slots.back());
    engines.push_back(std::make_unique<EngineEnd>(128));
    EXPECT_EQ(DieAndOpen(engine, engines.back().get()), 0u);
    if (round > 0) engines[round - 1].reset();
    engine = engines.back().get();
  }
  EXPECT_EQ(Attachments(), 101u);
  for (int round = 0; round < 100; ++round) {
    EXPECT_EQ(ResultOf(slots[round]).vector[0], static_cast<float>(round));
    Release(slots[round]);
    EXPECT_EQ(Attachments(), 100u - round);
  }
  std::swap(lane, lane_);
  client::DestroyClientLane(lane, false);
}

class ResubmissionTest : public ClientTest {
 protected:
  void Taken(uint64_t count) {
    while (engine_->control().taken.load() < count) std::this_thread::yield();
  }
  static sutra_info InfoOf(const ClientPtr& client) {
    sutra_info info = embed::Info();
    EXPECT_EQ(sutra_get_info(client.get(), &info), SUTRA_OK);
    return info;
  }
  EchoOptions OtherModel() {
    EchoOptions options;
    options.identity = std::string(64, 'f');
    return options;
  }
  EchoOptions OtherLayout() {
    EchoOptions options;
    options.layout_major = kLayoutMajor + 1;
    return options;
  }
};

// The heartbeat of an engine that died a moment ago is fresh: the text goes into its lane, and must come out elsewhere.
TEST_F(ResubmissionTest, TheFirstCallAfterACrashIsServedByTheEngineThatIsAlreadyThere) {
  StartEngine();
  const ClientPtr client = Attach(8, 1);
  ASSERT_EQ(Embed(client, "before"), SUTRA_OK);
  for (int round = 0; round < 10; ++round) {
    engine_->Kill();
    StartEngine();
    EXPECT_EQ(Embed(client, "after crash " + std::to_string(round)), SUTRA_OK) << sutra_error_text();
  }
}

TEST_F(ResubmissionTest, ATicketUnderWayIsAnsweredByTheNextEngine) {
  StartEngine().control().hold = 1;
  const ClientPtr client = Attach(8, 1);
  sutra_ticket ticket = 0;
  ASSERT_EQ(Submit(client, "under way", &ticket), SUTRA_OK);
  Taken(1);
  engine_->Kill();
  sutra_result result = embed::Result();
  EXPECT_EQ(sutra_wait(client.get(), ticket, 20, &result), SUTRA_NOT_READY);
  StartEngine();
  EXPECT_EQ(sutra_wait(client.get(), ticket, 60'000, &result), SUTRA_OK) << sutra_error_text();
  EXPECT_TRUE(IsEchoOf("under way", result.vector, result.width));
  EXPECT_EQ(InfoOf(client).resubmitted, 1u);
  EXPECT_EQ(InfoOf(client).engines, 2u);
  sutra_release(client.get(), ticket);
}

TEST_F(ResubmissionTest, BlockingCallsWaitThroughRestartsInEveryState) {
  StartEngine().control().hold = 1;
  const ClientPtr client = Attach(4, 3);  // fewer slots than texts: some calls wait for room, some for answers
  const Texts texts = ManyTexts(200, 11);
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 40; ++i) {
        EXPECT_EQ(Embed(client, "thread " + std::to_string(t) + " text " + std::to_string(i)), SUTRA_OK)
            << sutra_error_text();
      }
    });
  }
  threads.emplace_back([&] {
    std::vector<float> vectors(200 * 16);
    std::vector<sutra_result> results(200, embed::Result());
    EXPECT_EQ(sutra_embed_batch(client.get(), texts.pointers.data(), texts.sizes.data(), 200, nullptr, nullptr,
                                vectors.data(), results.data(), sizeof(sutra_result)),
              SUTRA_OK)
        << sutra_error_text();
    for (size_t i = 0; i < 200; ++i) EXPECT_TRUE(IsEchoOf(texts.strings[i], &vectors[i * 16], 16)) << i;
  });
  for (int round = 0; round < 12; ++round) {
    if (round < 4) Taken(4);  // asleep on the engine's word; later rounds find them spinning or parked for the move
    engine_->Kill();
    if (round % 3 == 1) poll(nullptr, 0, 5);
    StartEngine().control().kill_at = round < 4 ? 0 : 20 + round;
    engine_->control().hold = round < 4 ? 1 : 0;
    if (round >= 4) poll(nullptr, 0, 20);
  }
  StartEngine();
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(InfoOf(client).resubmitted, 0u);
  EXPECT_EQ(engine_->control().violations.load(), 0u);
}

TEST_F(ResubmissionTest, AnEventLoopGetsEveryTicketOfEnginesThatDie) {
  StartEngine();
  const ClientPtr client = Attach(8, 2);
  const int event_fd = sutra_event_fd(client.get());
  std::map<sutra_ticket, std::string> under_way;
  int submitted = 0, done = 0;
  while (done < 600) {
    const std::string text = "text " + std::to_string(submitted) + std::string(submitted % 3 * 300, 'x');
    sutra_ticket ticket = 0;
    if (submitted < 600 && Submit(client, text, &ticket) == SUTRA_OK) {
      under_way[ticket] = text;
      if (++submitted % 100 == 50) {
        engine_->Kill();
        StartEngine();
      }
      continue;
    }
    sutra_result results[4] = {embed::Result()};
    const size_t found = sutra_poll(client.get(), results, sizeof(sutra_result), 4);
    for (size_t i = 0; i < found; ++i) {
      ASSERT_EQ(under_way.count(results[i].ticket), 1u) << "reported twice, or never submitted";
      EXPECT_EQ(results[i].status, SUTRA_OK);
      EXPECT_TRUE(IsEchoOf(under_way[results[i].ticket], results[i].vector, results[i].width));
      under_way.erase(results[i].ticket);
      sutra_release(client.get(), results[i].ticket);
      ++done;
    }
    if (found == 4 || done == 600) continue;
    pollfd item = {event_fd, POLLIN, 0};
    ASSERT_EQ(poll(&item, 1, kWakeMsMax), 1) << "the loop sleeps on answers that nobody tells it of";
  }
}

// An engine that is only stopped may answer later: a request that went on at another one would be answered twice.
TEST_F(ResubmissionTest, AnEngineThatIsOnlyStoppedIsNeverLeft) {
  StartEngine();
  const ClientPtr client = Attach(8, 1);
  engine_->Stop();
  sutra_ticket ticket = 0;
  ASSERT_EQ(Submit(client, "patient", &ticket), SUTRA_OK);
  EchoEngine other(path_, {});
  const sutra_options soon = RequestOptions(700);  // longer than a sleeper's looks and an old heartbeat
  EXPECT_EQ(Embed(client, "x", &soon), SUTRA_DEADLINE_EXCEEDED);
  EXPECT_NE(std::string(sutra_error_text()).find("stopped or overloaded"), std::string::npos) << sutra_error_text();
  EXPECT_EQ(other.control().taken.load(), 0u);
  engine_->Continue();
  sutra_result result = embed::Result();
  EXPECT_EQ(sutra_wait(client.get(), ticket, 60'000, &result), SUTRA_OK);
  EXPECT_TRUE(IsEchoOf("patient", result.vector, result.width));
  EXPECT_EQ(other.control().taken.load(), 0u);
}

TEST_F(ResubmissionTest, AnotherModelOrLayoutEndsEverythingWithItsReason) {
  for (const bool layout : {false, true}) {
    StartEngine().control().hold = 1;
    const ClientPtr client = Attach(8, 1);
    sutra_ticket ticket = 0;
    ASSERT_EQ(Submit(client, "under way", &ticket), SUTRA_OK);
    Taken(1);
    StartEngine(layout ? OtherLayout() : OtherModel());
    const sutra_reason reason = layout ? SUTRA_REASON_OTHER_LAYOUT : SUTRA_REASON_OTHER_IDENTITY;
    sutra_result result = embed::Result();
    EXPECT_EQ(sutra_wait(client.get(), ticket, 60'000, &result), SUTRA_ENGINE_GONE);
    EXPECT_EQ(result.reason, reason);
    const std::string why = sutra_error_text();
    EXPECT_NE(why.find(layout ? "layout" : "another model"), std::string::npos) << why;
    float vector[16];
    EXPECT_EQ(sutra_embed(client.get(), "x", 1, nullptr, vector, &result), SUTRA_ENGINE_GONE) << "at once";
    EXPECT_EQ(result.reason, reason);
    sutra_ticket none = 0;
    EXPECT_EQ(Submit(client, "x", &none), SUTRA_ENGINE_GONE);
    sutra_release(client.get(), ticket);
  }
}

TEST_F(ResubmissionTest, AnEngineOfShorterTextsEndsEverythingWithItsReason) {
  StartEngine().control().hold = 1;
  const ClientPtr client = Attach(8, 1);
  sutra_ticket ticket = 0;
  ASSERT_EQ(Submit(client, "under way", &ticket), SUTRA_OK);
  Taken(1);
  EchoOptions shorter;
  shorter.text_bytes_max = 1024;
  StartEngine(shorter);
  sutra_result result = embed::Result();
  EXPECT_EQ(sutra_wait(client.get(), ticket, 60'000, &result), SUTRA_ENGINE_GONE) << "not at its deadline";
  EXPECT_EQ(result.reason, SUTRA_REASON_OTHER_LAYOUT);
  EXPECT_NE(std::string(sutra_error_text()).find("--text-bytes-max"), std::string::npos) << sutra_error_text();
  float vector[16];
  EXPECT_EQ(sutra_embed(client.get(), "x", 1, nullptr, vector, nullptr), SUTRA_ENGINE_GONE) << "at once";
  sutra_release(client.get(), ticket);
  StartEngine();
  while (Embed(client, "the right one is back") == SUTRA_ENGINE_GONE) {
  }
  EXPECT_EQ(Embed(client, "served"), SUTRA_OK);
}

TEST_F(ResubmissionTest, WithoutAnEngineATicketEndsAtItsDeadlineOrWhenItIsCancelled) {
  StartEngine().control().hold = 1;
  const ClientPtr client = Attach(8, 1);
  sutra_ticket late = 0, cancelled = 0;
  const sutra_options soon = RequestOptions(200);
  ASSERT_EQ(Submit(client, "late", &late, &soon), SUTRA_OK);
  ASSERT_EQ(Submit(client, "cancelled", &cancelled), SUTRA_OK);
  engine_->Kill();
  sutra_result result = embed::Result();
  EXPECT_EQ(sutra_wait(client.get(), late, 60'000, &result), SUTRA_DEADLINE_EXCEEDED);
  EXPECT_NE(std::string(sutra_error_text()).find("there was no engine"), std::string::npos) << sutra_error_text();
  std::thread canceller([&] { EXPECT_EQ(sutra_cancel(client.get(), cancelled), SUTRA_OK); });
  EXPECT_EQ(sutra_wait(client.get(), cancelled, 60'000, &result), SUTRA_CANCELLED);
  canceller.join();
  sutra_release(client.get(), late);
  sutra_release(client.get(), cancelled);
  StartEngine();
  EXPECT_EQ(Embed(client, "served"), SUTRA_OK);
}

TEST_F(ResubmissionTest, WhatADrainingEngineDidNotTakeGoesOnAtTheNext) {
  StartEngine().control().hold = 1;
  const ClientPtr client = Attach(8, 1);
  sutra_ticket taken = 0, untaken = 0;
  ASSERT_EQ(Submit(client, "taken", &taken), SUTRA_OK);
  Taken(1);
  engine_->control().deaf = 1;
  ASSERT_EQ(Submit(client, "untaken", &untaken), SUTRA_OK);
  engine_->control().drain = 1;
  EXPECT_EQ(engine_->WaitForExit(), 0);
  StartEngine();
  for (const auto& [ticket, text] : {std::pair(taken, "taken"), std::pair(untaken, "untaken")}) {
    sutra_result result = embed::Result();
    EXPECT_EQ(sutra_wait(client.get(), ticket, 60'000, &result), SUTRA_OK) << text << ": " << sutra_error_text();
    EXPECT_TRUE(IsEchoOf(text, result.vector, result.width));
    sutra_release(client.get(), ticket);
  }
  EXPECT_EQ(engine_->control().taken.load(), 1u);
}

#if defined(SUTRA_CHECKPOINTS)
// The second engine is killed while the requests move to it, at each step of the move; the third one answers.
std::atomic<EchoEngine*> victim = nullptr;
const char* kill_point = nullptr;

TEST_F(ResubmissionTest, AnEngineThatIsKilledInTheMiddleOfTheMoveLosesNothing) {
  for (const char* point : {"move.attached", "move.settled", "move.copied", "move.home", "move.published",
                            "move.opened", "move.bumped", "move.rung"}) {
    SCOPED_TRACE(point);
    StartEngine().control().hold = 1;
    const ClientPtr client = Attach(8, 1);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back(
          [&, t] { EXPECT_EQ(Embed(client, "thread " + std::to_string(t) + std::string(t * 200, 'x')), SUTRA_OK); });
    }
    Taken(4);
    kill_point = point;
    engine_->Kill();
    EchoOptions holding;
    EchoEngine second(path_, holding);
    second.control().hold = 1;
    victim = &second;
    checkpoint::hook = [](const char* name) {
      if (strcmp(name, kill_point) != 0) return;
      if (EchoEngine* engine = victim.exchange(nullptr)) engine->Kill();
    };
    while (victim.load() != nullptr) std::this_thread::yield();
    checkpoint::hook = nullptr;
    StartEngine();
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(engine_->control().violations.load(), 0u);
  }
}
#endif

}  // namespace
}  // namespace sutra::test
