// P7, literally: a client is killed after each single instruction of an operation. After each kill the engine lives and
// beats, holds what it held before, a neighbour's stream goes on and is correct, and a new client is served.
//   SUTRA_STEP_KILLS=0 BUILD/bin/stepper_test     after every instruction of every operation
// By default short operations are stepped through literally; of a long one so many instructions are chosen, evenly from
// a random first one, and as many around its system calls.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "shm/base/time.h"
#include "shm/stats/engine_life.h"
#include "tests/crash/stepper.h"
#include "tests/hostile/neighbour.h"
#include "tests/kit/engine_process.h"
#include "tests/kit/seed.h"
#include "tests/kit/watchdog.h"

namespace sutra::test {
namespace {

constexpr uint64_t kLiteralMax = 600;  // instructions of an operation that is always stepped through literally
constexpr uint64_t kKillsDefault = 60;
constexpr uint64_t kDelayUs = 20'000;
constexpr uint64_t kInstructionsMax = 2'000'000;  // of one operation: it does not end
constexpr int kPastEndEnough = 3;                 // kills in a row that come too late: the length differs between runs

// Of the engine: sockets, memory files, pipes. Files come and go with its log.
size_t LaneDescriptors(pid_t pid) {
  size_t count = 0;
  std::error_code error;
  const std::string root = "/proc/" + std::to_string(pid) + "/fd";
  for (std::filesystem::directory_iterator entry(root, error), end; !error && entry != end; entry.increment(error)) {
    std::error_code gone;
    const std::string target = std::filesystem::read_symlink(entry->path(), gone).string();
    count += target.rfind("socket:", 0) == 0 || target.rfind("/memfd:", 0) == 0 || target.rfind("pipe:", 0) == 0;
  }
  return count;
}

// Where a client is killed: so many instructions after the start, or after arriving at its n-th system call.
struct Point {
  uint32_t call = 0;
  uint64_t instructions = 0;
  bool inside = false;  // the system call
};

struct Swept {
  uint64_t instructions = 0;  // of the longest run that was counted
  uint64_t kills = 0, inside_calls = 0, past_end = 0;
  std::string harm;  // the first that was noticed; empty if none
};

class StepperTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = WhyNoTracing(); !reason.empty()) GTEST_SKIP() << reason;
  }

  // kNotYet: the operation's answer is not there until it makes a system call. The model takes its time, and the engine
  // stands still while the client is stepped through.
  enum class Answers { kAtOnce, kNotYet };
  void StartEngine(Answers answers, std::function<void(const EngineProcess&)> before_each = {}) {
    answers_ = answers;
    EngineOptions options;
    options.args = {"--attach-rate-max", "1000000"};
    if (answers == Answers::kNotYet) {
      options.args.insert(options.args.end(), {"--spin-us", "0"});
      options.environment = {"SUTRA_FAKE_DELAY_US=" + std::to_string(kDelayUs)};
    }
    engine_ = std::make_unique<EngineProcess>(options);
    ASSERT_TRUE(engine_->Start());
    ASSERT_EQ(FreshClient({kStepperKnown, kStepperKnownLong}), "");
    ASSERT_TRUE(engine_->WaitLanes(0));
    std::function<void()> hook;
    if (before_each) hook = [this, before_each] { before_each(*engine_); };
    neighbour_ = std::make_unique<Neighbour>(engine_->socket(), hook);
    ASSERT_TRUE(neighbour_->WaitAnswers(20));
    Result<StatsReader> reader = StatsReader::OpenSocket(engine_->socket());
    ASSERT_TRUE(reader.ok());
    stats_.emplace(std::move(reader).value());
    descriptors_ = LaneDescriptors(engine_->process().pid());
    ASSERT_GT(descriptors_, 3u);
  }

  // Kills clients after each instruction of the operation, or after some of them. Ends at the first harm.
  Swept Sweep(const std::string& operation, uint64_t kills_max) {
    Swept swept;
    uint32_t calls = 0;
    const uint64_t length = KilledLength(operation, CountInstructions(operation, &calls, &swept), &swept);
    if (!swept.harm.empty()) return swept;
    const bool literally = kills_max == 0 || length <= kLiteralMax;
    const uint64_t stride = literally ? 1 : std::max<uint64_t>(1, (length + kills_max - 1) / kills_max);
    std::vector<Point> points;
    for (uint64_t n = literally ? 0 : FreshTestSeed() % stride; n <= length; n += stride) {
      points.push_back({.instructions = n});
    }
    const auto between_calls = literally ? 1 : static_cast<uint32_t>(std::max<uint64_t>(1, 3 * calls / kills_max));
    for (uint32_t call = 1; call <= calls; call += between_calls) AddCall(call, &points);
    // Whether it meets a sleeping engine, or has to sleep, differs between runs.
    for (int more = 0; more < 5 && answers_ == Answers::kNotYet && calls <= 1; ++more) AddCall(1, &points);
    for (const Point& point : points) {
      KillAt(operation, point, &swept);
      if (!swept.harm.empty()) return swept;
    }
    // This time it may have taken more instructions: on to where kills come too late.
    uint64_t late = 0;
    for (uint64_t n = length + 1; late < kPastEndEnough && n < 2 * length; n += stride) {
      const uint64_t past_end_before = swept.past_end;
      KillAt(operation, {.instructions = n}, &swept);
      if (!swept.harm.empty()) return swept;
      late = swept.past_end > past_end_before ? late + 1 : 0;
    }
    EXPECT_EQ(stats_->Snapshot()->counter("lanes_protocol_violation"), 0u);
    return swept;
  }

  Swept ExpectUnharmed(const std::string& operation, Answers answers = Answers::kAtOnce) {
    StartEngine(answers);
    if (HasFatalFailure()) return {};
    Swept swept = Sweep(operation, NumberFromEnvironment("SUTRA_STEP_KILLS", kKillsDefault));
    std::printf("%s: %" PRIu64 " instructions, %" PRIu64 " kills, %" PRIu64 " inside system calls, %" PRIu64
                " too late\n",
                operation.c_str(), swept.instructions, swept.kills, swept.inside_calls, swept.past_end);
    EXPECT_EQ(swept.harm, "");
    EXPECT_GT(swept.instructions, 10u);
    EXPECT_GT(swept.past_end, 0u);
    EXPECT_GT(swept.kills, swept.past_end);
    return swept;
  }

  // What is wrong with the engine, the neighbour, and a new client; empty: nothing.
  std::string Harm(const std::vector<std::string>& texts) {
    if (!engine_->running()) return "the engine died";
    // More than a batch: one may have been under way before the kill.
    if (!neighbour_->WaitAnswers(Neighbour::kBatchMax + 1, std::chrono::milliseconds(limit_ms_))) {
      return "the neighbour gets no answers";
    }
    if (neighbour_->wrong() != 0) return "the neighbour: " + neighbour_->first_wrong();
    if (const std::string wrong = FreshClient(texts); !wrong.empty()) return "a new client: " + wrong;
    const uint64_t deadline_ns = MonotonicNs() + static_cast<uint64_t>(limit_ms_) * kNsPerMs;
    while (LaneDescriptors(engine_->process().pid()) != descriptors_) {
      if (MonotonicNs() > deadline_ns) {
        return "the engine holds " + std::to_string(LaneDescriptors(engine_->process().pid())) +
               " descriptors of lanes instead of " + std::to_string(descriptors_);
      }
      timespec pause = {0, 200'000};
      nanosleep(&pause, nullptr);
    }
    while (HeartbeatAge() > kHeartbeatStaleNs) {
      if (MonotonicNs() > deadline_ns) return "the engine's heart does not beat";
    }
    return "";
  }

  EngineProcess& engine() { return *engine_; }
  std::unique_ptr<EngineProcess> engine_;
  std::unique_ptr<Neighbour> neighbour_;
  int limit_ms_ = kWaitMs;  // how long harm is waited for

 private:
  uint64_t HeartbeatAge() {
    const Result<StatsSnapshot> snapshot = stats_->Snapshot();
    const uint64_t beat_ns = snapshot->gauge("heartbeat_ns"), now_ns = MonotonicNs();
    return now_ns > beat_ns ? now_ns - beat_ns : 0;
  }

  std::string FreshClient(const std::vector<std::string>& texts) {
    ClientHandle client;
    if (client.Attach(engine_->socket()) != SUTRA_OK) return std::string("attach: ") + sutra_error_text();
    for (const std::string& text : texts) {
      if (const std::string wrong = WhatIsWrong(client.Embed(text), text); !wrong.empty()) return wrong;
    }
    return "";
  }

  // A different one for each run, so that a wrong vector in the cache would be met by the new client.
  std::string TextOf(const std::string& operation) {
    std::string text = operation + " " + std::to_string(runs_);
    if (operation == "send-long") text.resize(3000, 't');
    return text;
  }
  std::unique_ptr<Stepper> StartClient(const std::string& operation) {
    SpawnOptions spawn;
    ++runs_;
    spawn.args = {SUTRA_STEPPED_CLIENT_PROGRAM, operation == "send-long" ? "send" : operation, engine_->socket(),
                  TextOf(operation)};
    spawn.environment = {"LD_BIND_NOW=1"};
    spawn.log_path = engine_->directory() / "stepped.log";
    return std::make_unique<Stepper>(spawn);
  }

  // Counting is slower than stepping, and what takes long may do more (look for deadlines): about where kills come too
  // late.
  uint64_t KilledLength(const std::string& operation, uint64_t counted, Swept* swept) {
    uint64_t low = 0, high = counted;
    while (high - low > 8 + low / 16 && swept->harm.empty()) {
      const uint64_t middle = low + (high - low) / 2, late = swept->past_end;
      KillAt(operation, {.instructions = middle}, swept);
      (swept->past_end > late ? high : low) = middle;
    }
    return high;
  }

  // Goes through it once, to its end. RETURNS the number of its instructions; *calls of them are system calls.
  uint64_t CountInstructions(const std::string& operation, uint32_t* calls, Swept* swept) {
    const std::unique_ptr<Stepper> client = StartClient(operation);
    bool going = client->ready();
    if (answers_ == Answers::kNotYet) engine_->process().Stop();
    for (; going && !client->AtEnd() && swept->instructions < kInstructionsMax; ++swept->instructions) {
      if (client->AtSystemCall()) {
        ++*calls;
        engine_->process().Continue();
      }
      going = client->Step(1);
    }
    engine_->process().Continue();
    if (!going) swept->harm = "the stepped client failed: " + client->Log();
    if (swept->instructions == kInstructionsMax) swept->harm = "the operation does not end";
    client->Kill();
    return swept->instructions;
  }

  static void AddCall(uint32_t call, std::vector<Point>* points) {
    points->push_back({.call = call});
    points->push_back({.call = call, .inside = true});
    points->push_back({.call = call, .instructions = 1});
  }

  // Stops at the first system call, at the end, or after `instructions`. RETURNS false if the client failed.
  static bool StepToCall(uint64_t instructions, Stepper* client, uint64_t* done) {
    for (; *done < instructions && !client->AtSystemCall() && !client->AtEnd(); ++*done) {
      if (!client->Step(1)) return false;
    }
    return true;
  }

  // RETURNS false if the client failed.
  bool StepTo(const Point& point, Stepper* client) {
    uint64_t done = 0;
    if (answers_ == Answers::kNotYet) {
      engine_->process().Stop();
      const bool going = StepToCall(point.call > 0 ? kInstructionsMax : point.instructions, client, &done);
      engine_->process().Continue();
      if (!going) return false;
    }
    if (point.call == 0) return client->Step(point.instructions - done);
    for (uint32_t call = 1;; ++call) {
      // It may make fewer calls this time: then the end is as good.
      while (!client->AtSystemCall() && !client->AtEnd()) {
        if (!client->Step(1)) return false;
      }
      if (call == point.call || client->AtEnd()) return client->AtEnd() || client->Step(point.instructions);
      if (!client->Step(1)) return false;
    }
  }

  void KillAt(const std::string& operation, const Point& point, Swept* swept) {
    const std::unique_ptr<Stepper> client = StartClient(operation);
    if (!client->ready() || !StepTo(point, client.get())) {
      swept->harm = "the stepped client failed: " + client->Log();
      return;
    }
    swept->past_end += client->AtEnd();
    if (point.inside && client->AtSystemCall()) {
      client->EnterSystemCall();
      ++swept->inside_calls;
    }
    client->Kill();
    ++swept->kills;
    swept->harm = Harm({kStepperKnown, TextOf(operation)});
    if (swept->harm.empty()) return;
    swept->harm = operation + " killed after " +
                  (point.call > 0 ? "system call " + std::to_string(point.call) + " and " : std::string()) +
                  std::to_string(point.instructions) + " instructions: " + swept->harm;
  }

  std::optional<StatsReader> stats_;
  size_t descriptors_ = 0;
  Answers answers_ = Answers::kAtOnce;
  uint64_t runs_ = 0;
  Watchdog watchdog_{std::chrono::seconds(3600)};
};

TEST_F(StepperTest, AClientKilledAtAnyInstructionOfASendHarmsNobody) { ExpectUnharmed("send"); }
TEST_F(StepperTest, AClientKilledAtAnyInstructionOfALongSendHarmsNobody) { ExpectUnharmed("send-long"); }
TEST_F(StepperTest, AClientKilledAtAnyInstructionOfASendOfManyHarmsNobody) { ExpectUnharmed("send-many"); }
TEST_F(StepperTest, AClientKilledAtAnyInstructionOfAReceiveHarmsNobody) { ExpectUnharmed("receive"); }
TEST_F(StepperTest, AClientKilledAtAnyInstructionOfAPollHarmsNobody) { ExpectUnharmed("poll"); }
TEST_F(StepperTest, AClientKilledAtAnyInstructionOfAnEventLoopsPollHarmsNobody) { ExpectUnharmed("poll-event-loop"); }
TEST_F(StepperTest, AClientKilledAtAnyInstructionOfAReleaseHarmsNobody) { ExpectUnharmed("release"); }
TEST_F(StepperTest, AClientKilledAtAnyInstructionOfABlockingCallHarmsNobody) { ExpectUnharmed("embed"); }
TEST_F(StepperTest, AClientKilledAtAnyInstructionOfAnAttachHarmsNobody) { ExpectUnharmed("attach"); }
TEST_F(StepperTest, AClientKilledAtAnyInstructionOfADetachHarmsNobody) { ExpectUnharmed("detach"); }

// The answer is not there yet.
TEST_F(StepperTest, AClientKilledWhileItSpinsForAnAnswerHarmsNobody) {
  ExpectUnharmed("receive-spinning", Answers::kNotYet);
}
TEST_F(StepperTest, AClientKilledAroundItsSleepHarmsNobody) {
  EXPECT_GT(ExpectUnharmed("receive-asleep", Answers::kNotYet).inside_calls, 0u) << "it did not sleep";
}
// The engine sleeps, and the client rings its doorbell.
TEST_F(StepperTest, AClientKilledAroundADoorbellHarmsNobody) {
  EXPECT_GT(ExpectUnharmed("send", Answers::kNotYet).inside_calls, 0u) << "it did not ring";
}
TEST_F(StepperTest, AClientKilledAtAnyInstructionOfReleasingAnUnansweredTextHarmsNobody) {
  ExpectUnharmed("release-unanswered", Answers::kNotYet);
}
TEST_F(StepperTest, AClientKilledAtAnyInstructionOfACancelHarmsNobody) { ExpectUnharmed("cancel", Answers::kNotYet); }
// What is counted are the instructions, each once.
TEST_F(StepperTest, CanaryAnOperationOfKnownLengthIsCountedExactly) {
  StartEngine(Answers::kAtOnce);
  const Swept shorter = Sweep("count-to-a-thousand", 5);
  EXPECT_EQ(shorter.harm, "");
  EXPECT_GE(shorter.instructions, 2001u);  // a move, and a thousand times two
  EXPECT_LE(shorter.instructions, 2040u);  // and the call
}

// A lock that processes share is held for a few instructions: the sweep meets them.
TEST_F(StepperTest, CanaryAHeldLockIsNoticed) {
  std::unique_ptr<CommonLock> lock;
  StartEngine(Answers::kAtOnce, [&lock](const EngineProcess& engine) {
    if (lock == nullptr) lock = std::make_unique<CommonLock>(engine.socket());
    lock->Acquire();
    lock->Release();
  });
  limit_ms_ = 3000;
  const Swept swept = Sweep("take-the-common-lock", 0);
  if (lock == nullptr) return;  // it failed
  EXPECT_NE(swept.harm.find("the neighbour gets no answers"), std::string::npos) << swept.harm;
  EXPECT_GT(swept.kills, 0u);
  lock->Release();  // so that the neighbour ends
  neighbour_.reset();
}

TEST_F(StepperTest, CanaryALaneThatStaysIsNoticed) {
  StartEngine(Answers::kAtOnce);
  limit_ms_ = 3000;
  ClientHandle stays;
  ASSERT_EQ(stays.Attach(engine().socket()), SUTRA_OK);
  EXPECT_NE(Sweep("count-to-a-thousand", 5).harm.find("descriptors of lanes"), std::string::npos);
}

}  // namespace
}  // namespace sutra::test
