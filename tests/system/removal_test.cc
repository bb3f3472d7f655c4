// What was removed stays removed, with real engines: beside clients that ask for the doomed texts and so insert them
// again, over kill -9, hand-overs, an operator's death and a drain in the middle.
//
// Entries whose vectors no model would compute are imported, so every answer tells whether it comes from before.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "engine/control/cache_control.h"
#include "engine/control/cache_page.h"
#include "engine/control/control_link.h"
#include "engine/exit_code.h"
#include "shm/base/mutex.h"
#include "shm/handshake.h"
#include "tests/system/standby_fixture.h"

namespace sutra::test {
namespace {

const std::string kMark = "doomed";

CacheControl Operator(const std::string& socket) {
  return CacheControl({.socket_path = socket, .patience_ns = 60 * kNsPerSecond});
}

// No text of the fake model has it.
std::vector<float> ForgedVector() {
  std::vector<float> vector(kTestWidth, 0);
  vector[0] = 1;
  return vector;
}

CacheFilter Containing(const std::string& text) {
  CacheFilter filter;
  filter.contains = text;
  return filter;
}
CacheFilter Everything() {
  CacheFilter filter;
  filter.everything = true;
  return filter;
}

// Clients that ask for these texts without a pause, and look at what they get.
class Flood {
 public:
  Flood(const std::string& socket, std::vector<std::string> texts, int clients) : texts_(std::move(texts)) {
    for (int i = 0; i < clients; ++i) {
      threads_.emplace_back([this, socket, i] { Ask(socket, static_cast<uint64_t>(i)); });
    }
  }
  ~Flood() { Stop(); }
  void Stop() {
    stop_.store(true);
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
  }

  // From here on no answer to a request that comes now may be of before.
  void Forbid() { epoch_.fetch_add(epoch_.load() % 2 == 0 ? 1 : 0); }
  void Allow() { epoch_.fetch_add(epoch_.load() % 2 == 1 ? 1 : 0); }
  // Until `more` further answers are there. False: a client failed, or nothing comes.
  bool Await(uint64_t more) {
    const uint64_t enough = answers_.load() + more, until_ns = MonotonicNs() + kWaitMs * kNsPerMs;
    while (answers_.load() < enough && MonotonicNs() < until_ns && wrong().empty()) poll(nullptr, 0, 1);
    return answers_.load() >= enough;
  }
  uint64_t forged() const { return forged_.load(); }
  uint64_t hot() const { return hot_.load(); }
  std::string wrong() {
    const MutexLock lock(mutex_);
    return wrong_;
  }

 private:
  void Ask(const std::string& socket, uint64_t seed) {
    ClientHandle client;
    if (client.Attach(socket) != SUTRA_OK) return Complain("cannot attach");
    const std::vector<float> forged = ForgedVector();
    for (std::mt19937_64 random(seed); !stop_.load();) {
      const std::string& text = texts_[random() % texts_.size()];
      const uint64_t before = epoch_.load();
      const Reply reply = client.Embed(text);
      const bool forbidden = before % 2 == 1 && epoch_.load() == before;
      const bool is_forged = reply.status == SUTRA_OK && SameVector(reply.vector, forged);
      if (is_forged && forbidden) return Complain("an answer of before, from source " + std::to_string(reply.source));
      if (!is_forged && !WhatIsWrong(reply, text).empty()) return Complain(WhatIsWrong(reply, text));
      if (is_forged) forged_.fetch_add(1);
      if (reply.source == SUTRA_SOURCE_HOT_TABLE) hot_.fetch_add(1);
      answers_.fetch_add(1);
    }
  }
  void Complain(const std::string& what) {
    const MutexLock lock(mutex_);
    if (wrong_.empty()) wrong_ = what;
  }

  const std::vector<std::string> texts_;
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> epoch_{0};  // odd: nothing of before may be answered
  std::atomic<uint64_t> answers_{0}, forged_{0}, hot_{0};
  Mutex mutex_;
  std::string wrong_ SUTRA_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

class RemovalTest : public StandbyTest {
 protected:
  static void ImportForged(const std::string& socket, const std::vector<std::string>& texts) {
    CacheControl control = Operator(socket);
    const Result<std::string> info = control.Info();
    ASSERT_TRUE(info.ok()) << info.status().message();
    CachePageWriter page(nlohmann::json::parse(*info)["identity"].get<std::string>(), kTestWidth);
    for (const std::string& text : texts) {
      CacheEntry entry;
      entry.text = text;
      entry.vector = ForgedVector();
      entry.value = {.norm = 1, .token_count = static_cast<uint32_t>(text.size())};
      entry.left_s = 3600;
      page.Add(entry);
    }
    const Result<CacheControl::Imported> imported = control.Import(std::move(page).Take());
    ASSERT_TRUE(imported.ok()) << imported.status().message();
    ASSERT_EQ(imported->stored, texts.size()) << imported->first;
  }
  // Until clients are answered with imported vectors. They stay with those that the hot table has before, and whoever
  // computes a text meanwhile replaces the imported one: so it is tried again.
  static void Doom(const std::string& socket, const std::vector<std::string>& texts, Flood* flood) {
    const uint64_t before = flood->forged();
    for (int i = 0; i < 200 && flood->forged() == before; ++i) {
      const Result<CacheAdmin::Removal> removal = Remove(socket, Everything());
      ASSERT_TRUE(removal.ok()) << removal.status().message();
      ImportForged(socket, texts);
      ASSERT_TRUE(flood->Await(200)) << flood->wrong();
    }
    ASSERT_GT(flood->forged(), before);
  }
  static Result<CacheAdmin::Removal> Remove(const std::string& socket, const CacheFilter& filter) {
    CacheControl control = Operator(socket);
    const Result<CacheAdmin::Preview> preview = control.Preview(filter);
    if (!preview.ok()) return preview.status();
    return control.Commit(preview->token);
  }
  static uint64_t CountOf(const std::string& socket, const std::string& words) {
    const Result<CacheAdmin::Preview> preview = Operator(socket).Preview(Containing(words));
    EXPECT_TRUE(preview.ok()) << preview.status().message();
    return preview.ok() ? preview->entries : UINT64_MAX;
  }
  // By filter, all, or text by text; at the engine that comes next, if there is none.
  static void RemoveEither(const std::string& socket, const std::vector<std::string>& texts, int how) {
    const auto confirmed = [](const auto& operation) {
      Status status;
      for (const uint64_t until_ns = MonotonicNs() + kWaitMs * kNsPerMs; MonotonicNs() < until_ns;) {
        status = operation();
        const bool between = status.code() == StatusCode::kEngineGone || status.code() == StatusCode::kShuttingDown;
        if (!between) break;
        poll(nullptr, 0, 1);
      }
      EXPECT_TRUE(status.ok()) << status.message();
    };
    if (how < 2) {
      return confirmed([&] { return Remove(socket, how == 0 ? Containing(kMark) : Everything()).status(); });
    }
    for (const std::string& text : texts) {
      confirmed([&] { return Operator(socket).Erase(text, 0).status(); });
    }
  }
};

TEST_F(RemovalTest, NoAnswerAfterAConfirmationIsOfBeforeAlsoNotAfterAKill) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const std::vector<std::string> texts = NumberedTexts(kMark, 20);
  Flood flood(engine.socket(), texts, 3);
  for (int round = 0; round < 9 && !HasFailure(); ++round) {
    flood.Allow();
    Doom(engine.socket(), texts, &flood);
    ASSERT_FALSE(HasFatalFailure());
    RemoveEither(engine.socket(), texts, round % 3);
    flood.Forbid();
    ASSERT_TRUE(flood.Await(300)) << flood.wrong();
    if (round % 2 == 0) continue;
    engine.Kill();
    ASSERT_TRUE(engine.Start());
    ASSERT_TRUE(flood.Await(300)) << flood.wrong();
  }
  EXPECT_GT(flood.hot(), 0u);
  EXPECT_EQ(flood.wrong(), "");
}

TEST_F(RemovalTest, AnEngineThatTookOverConfirmsOnlyWhatNoClientAnswersFromBefore) {
  EngineProcess first;
  ASSERT_TRUE(first.Start());
  const std::vector<std::string> texts = NumberedTexts(kMark, 20);
  Flood flood(first.socket(), texts, 3);
  ASSERT_TRUE(flood.Await(100)) << flood.wrong();
  EngineProcess* serving = &first;
  std::vector<std::unique_ptr<EngineProcess>> engines;
  for (int round = 0; round < 6 && !HasFailure(); ++round) {
    flood.Allow();
    Doom(first.socket(), texts, &flood);
    ASSERT_FALSE(HasFatalFailure());
    engines.push_back(StandbyOf(first));
    if (round % 2 == 0) {
      serving->Kill();
    } else {
      EXPECT_EQ(serving->Terminate().code, kExitClean);
    }
    serving = engines.back().get();
    // At once: its shard is still being opened, and clients still hold the table of the engine before.
    RemoveEither(first.socket(), texts, round % 3);
    flood.Forbid();
    ASSERT_TRUE(flood.Await(300)) << flood.wrong();
  }
  flood.Stop();  // while there is an engine
  EXPECT_EQ(flood.wrong(), "");
}

// Its result is not stored either, and a request that comes after the confirmation does not wait for it.
TEST_F(RemovalTest, AComputationThatBeganBeforeServesNobodyWhoComesAfter) {
  EngineOptions options;
  options.environment = {"SUTRA_FAKE_DELAY_US=400000"};
  EngineProcess engine(std::move(options));
  ASSERT_TRUE(engine.Start());
  bool seen = false;
  for (int round = 0; round < 30 && !seen && !HasFailure(); ++round) {
    const std::string text = "slow " + std::to_string(round);
    std::atomic<uint64_t> ended_ns{0};
    const uint64_t misses = engine.Stats().counter("misses");
    std::thread early([&] {
      const ClientHandle client = Attached(engine);
      ExpectVector(client.Embed(text), text);
      ended_ns.store(MonotonicNs());
    });
    EXPECT_TRUE(engine.WaitStats([&](const StatsSnapshot& now) { return now.counter("misses") > misses; }));
    const Result<bool> there = Operator(engine.socket()).Erase(text, 0);
    EXPECT_TRUE(there.ok()) << there.status().message();
    const uint64_t confirmed_ns = MonotonicNs();
    const ClientHandle client = Attached(engine);
    const Reply reply = client.Embed(text);
    ExpectVector(reply, text);
    EXPECT_EQ(reply.source, SUTRA_SOURCE_MODEL);
    early.join();
    seen = ended_ns.load() > confirmed_ns;
  }
  EXPECT_TRUE(seen) << "no computation was under way at a confirmation: the machine is too slow for this test";
}

TEST_F(RemovalTest, AnEngineKilledInACommitHasRemovedSomeOfItAndNothingElse) {
  std::mt19937_64 random(11);
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  for (int round = 0; round < 6 && !HasFailure(); ++round) {
    ImportForged(engine.socket(), NumberedTexts(kMark, 20'000));
    ImportForged(engine.socket(), NumberedTexts("kept", 500));
    ASSERT_FALSE(HasFatalFailure());
    const Result<CacheAdmin::Preview> preview = Operator(engine.socket()).Preview(Containing(kMark));
    ASSERT_TRUE(preview.ok()) << preview.status().message();
    EXPECT_EQ(preview->entries, 20'000u);
    std::atomic<bool> confirmed{false};
    std::thread operation([&] { confirmed.store(Operator(engine.socket()).Commit(preview->token).ok()); });
    poll(nullptr, 0, static_cast<int>(random() % 60));
    const bool was_confirmed = confirmed.load();
    engine.Kill();
    operation.join();
    ASSERT_TRUE(engine.Start());
    const uint64_t left = CountOf(engine.socket(), kMark);
    if (was_confirmed) EXPECT_EQ(left, 0u) << "confirmed, and back";
    EXPECT_LE(left, 20'000u);
    EXPECT_EQ(CountOf(engine.socket(), "kept"), 500u);
    ASSERT_TRUE(Remove(engine.socket(), Containing(kMark)).ok());
    engine.Kill();
    ASSERT_TRUE(engine.Start());
    EXPECT_EQ(CountOf(engine.socket(), kMark), 0u) << "confirmed, and back";
  }
}

// Sends a commit and hangs up.
void AbandonCommit(const std::string& socket, uint64_t token) {
  Result<ControlLink> link = ControlLink::Connect(socket, MonotonicNs() + kNsPerSecond * 60);
  ASSERT_TRUE(link.ok()) << link.status().message();
  CacheCallBody body = {};
  body.token = token;
  ASSERT_TRUE(link->Tell(ControlCommand::kCacheCommit, BytesOf(body), MonotonicNs() + kNsPerSecond * 60).ok());
}

TEST_F(RemovalTest, ACommitGoesOnWhenItsOperatorIsGone) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  ImportForged(engine.socket(), NumberedTexts(kMark, 20'000));
  const Result<CacheAdmin::Preview> preview = Operator(engine.socket()).Preview(Containing(kMark));
  ASSERT_TRUE(preview.ok()) << preview.status().message();
  AbandonCommit(engine.socket(), preview->token);
  // The next command waits for it.
  EXPECT_EQ(CountOf(engine.socket(), kMark), 0u);
  std::ifstream audit(engine.data() + "/audit.log");
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(audit, line);) lines.push_back(nlohmann::json::parse(line));
  ASSERT_FALSE(lines.empty());
  EXPECT_EQ(lines.back()["phase"], "done");
  EXPECT_EQ(lines.back()["result"], "20000 entries removed");
}

TEST_F(RemovalTest, ADrainEndsACommitAndTheEngine) {
  std::mt19937_64 random(12);
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  for (int round = 0; round < 4 && !HasFailure(); ++round) {
    ImportForged(engine.socket(), NumberedTexts(kMark, 20'000));
    const Result<CacheAdmin::Preview> preview = Operator(engine.socket()).Preview(Containing(kMark));
    ASSERT_TRUE(preview.ok()) << preview.status().message();
    Result<CacheAdmin::Removal> removal = Status(StatusCode::kModelError, "not run");
    std::thread operation([&] { removal = Operator(engine.socket()).Commit(preview->token); });
    poll(nullptr, 0, static_cast<int>(random() % 30));
    EXPECT_EQ(engine.Terminate().code, kExitClean);
    operation.join();
    if (!removal.ok()) {
      EXPECT_TRUE(removal.code() == StatusCode::kShuttingDown || removal.code() == StatusCode::kEngineGone)
          << removal.status().message();
    }
    ASSERT_TRUE(engine.Start());
    const uint64_t left = CountOf(engine.socket(), kMark);
    if (removal.ok()) EXPECT_EQ(left, 0u);
  }
}

TEST_F(RemovalTest, TwoOperatorsAndTheirStatusTakeTurns) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const auto operate = [&engine](const std::string& words) {
    for (int i = 0; i < 10; ++i) {
      ImportForged(engine.socket(), NumberedTexts(words, 300));
      const Result<CacheAdmin::Removal> removal = Remove(engine.socket(), Containing(words));
      // The other one's preview may come between this one's and its commit.
      if (!removal.ok()) EXPECT_EQ(removal.code(), StatusCode::kBadOption) << removal.status().message();
    }
  };
  std::thread other(operate, "other");
  operate("one");
  other.join();
  EXPECT_TRUE(Operator(engine.socket()).Info().ok());
}

TEST_F(RemovalTest, NothingThatAnOperatorSendsStaysOpenInTheEngine) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  static_cast<void>(Operator(engine.socket()).Info());
  const ProcessFootprint before = FootprintOf(engine.process().pid());
  for (int i = 0; i < 50; ++i) {
    Result<ControlLink> link = ControlLink::Connect(engine.socket(), MonotonicNs() + kNsPerSecond * 60);
    ASSERT_TRUE(link.ok());
    const UniqueFd socket = link->TakeSocket();
    const std::string message = MakeControlMessage(
        {.request_id = 1, .command = static_cast<uint32_t>(ControlCommand::kCachePayload)}, "some text");
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    const UniqueFd reading(ends[0]), writing(ends[1]);
    const int fds[] = {reading.get(), writing.get(), reading.get()};
    const MessageOutcome sent = SendMessage(socket.get(), message.data(), message.size(), fds, 3, 0);
    // A kernel with SO_PASSRIGHTS refuses them at once; on others they are discarded on arrival.
    ASSERT_TRUE(sent == MessageOutcome::kOk || (sent == MessageOutcome::kError && errno == EPERM));
    if (i % 2 == 0) static_cast<void>(shutdown(socket.get(), SHUT_RDWR));
  }
  // Answered after all of these were read.
  EXPECT_TRUE(Operator(engine.socket()).Info().ok());
  const auto opened = [&] { return FootprintOf(engine.process().pid()).descriptors; };
  for (const uint64_t until_ns = MonotonicNs() + kWaitMs * kNsPerMs;
       opened() > before.descriptors && MonotonicNs() < until_ns;) {
    poll(nullptr, 0, 1);
  }
  EXPECT_LE(opened(), before.descriptors);
}

}  // namespace
}  // namespace sutra::test
