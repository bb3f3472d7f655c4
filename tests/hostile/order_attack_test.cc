// Attacks on the order of service and on the queue. What a victim waited is counted in texts of the attacker that were
// served between its own arrival and its own turn, by the engine's stage times: no clock of the test, no bound in time.
#include <signal.h>

#include <algorithm>

#include "tests/hostile/flood_fixture.h"

namespace sutra::test {
namespace {

// Eight texts of 500 bytes fill a batch, which takes 5 ms.
constexpr size_t kTextsPerBatch = 8;
constexpr uint64_t kBacklog = 600;

class OrderAttackTest : public FloodTest {
 protected:
  void StartSlowEngine(std::vector<std::string> args = {}) {
    args.insert(args.end(), {"--batch-tokens-max", "4096"});
    StartEngine(args, {"SUTRA_FAKE_DELAY_US=5000"});
    ASSERT_EQ(victim_.Attach(engine_->socket()), SUTRA_OK) << sutra_error_text();
  }
  static std::string TextOfVictim(int number) { return "victim " + std::to_string(number) + std::string(490, 'v'); }

  // Texts of `times` (taken, batched) that were batched while the victim's text waited for its turn.
  static size_t ServedBefore(const std::vector<Interval>& times, const Waited& victim) {
    return static_cast<size_t>(std::count_if(times.begin(), times.end(), [&](const Interval& text) {
      return text.end_ns > victim.taken_ns && text.end_ns < victim.batched_ns;
    }));
  }

  void Queue(const std::vector<std::string>& values) {
    attacker_ = StartAttacker("queue-texts", values);
    ASSERT_GE(SaidNumber(*attacker_, "attached"), 1U);
    ASSERT_GT(SaidNumber(*attacker_, "queued"), 0U);
  }
  // The victim asks `asked` texts one by one; how many of the attacker's went before each, on average.
  double ServedBeforeEach(int asked) {
    std::vector<Waited> waits;
    for (int i = 0; i < asked; ++i) {
      waits.push_back(victim_.Ask(TextOfVictim(i), Victim::Options(SUTRA_PRIORITY_BULK)));
      EXPECT_EQ(waits.back().wrong, "");
    }
    const std::vector<Interval> times = SaidPairs(*attacker_);
    size_t served = 0;
    for (const Waited& wait : waits) served += ServedBefore(times, wait);
    std::printf("%zu of %zu texts of the attacker served during %d waits\n", served, times.size(), asked);
    return static_cast<double>(served) / asked;
  }
  // The victim queues a hundred texts at once; how many of the attacker's were served until its last.
  double ServedDuringOneHundred() {
    std::vector<embed::Ticket> tickets(100);
    for (int i = 0; i < 100; ++i) {
      EXPECT_EQ(victim_.client().Submit(TextOfVictim(i), &tickets[static_cast<size_t>(i)],
                                        Victim::Options(SUTRA_PRIORITY_BULK)),
                SUTRA_OK);
    }
    Waited whole;
    for (int i = 0; i < 100; ++i) {
      const Waited waited = victim_.Collect(&tickets[static_cast<size_t>(i)], TextOfVictim(i));
      EXPECT_EQ(waited.wrong, "");
      if (i == 0) whole = waited;
      whole.batched_ns = std::max(whole.batched_ns, waited.batched_ns);
    }
    const std::vector<Interval> times = SaidPairs(*attacker_);
    const size_t served = ServedBefore(times, whole);
    std::printf("%zu of %zu texts of the attacker served during a hundred of the victim's\n", served, times.size());
    EXPECT_GT(times.size(), served) << "its backlog ended too early to tell";
    return static_cast<double>(served);
  }

  std::unique_ptr<ChildProcess> attacker_;
  Victim victim_;
};

// The batch under way, one in preparation, and what the victim's share leaves in its own; doubled and more, because the
// loop thread may have to wait for a CPU meanwhile.
constexpr double kFair = 10 * kTextsPerBatch;

std::vector<std::string> Backlog(sutra_priority priority) {
  return {"slots=1024", "texts=" + std::to_string(kBacklog), "priority=" + std::to_string(priority)};
}

TEST_F(OrderAttackTest, ABacklogOfAnotherIsNotWaitedFor) {
  StartSlowEngine();
  Queue(Backlog(SUTRA_PRIORITY_BULK));
  EXPECT_LE(ServedBeforeEach(5), kFair);
}

TEST_F(OrderAttackTest, AQueryDoesNotPushOthersBehindTheBulkOfItsSender) {
  StartSlowEngine();
  std::vector<std::string> attack = Backlog(SUTRA_PRIORITY_BULK);
  attack.push_back("queries=1");
  Queue(attack);
  EXPECT_LE(ServedBeforeEach(1), kFair);
}

TEST_F(OrderAttackTest, MarkingEverythingAsAQueryGainsNothingOverOthers) {
  StartSlowEngine();
  Queue(Backlog(SUTRA_PRIORITY_QUERY));
  EXPECT_LE(ServedDuringOneHundred(), 100 + kFair);
}

TEST_F(OrderAttackTest, ManyLanesOfOneClientAreOneShare) {
  StartSlowEngine();
  Queue({"lanes=50", "slots=16", "texts=12"});
  EXPECT_LE(ServedDuringOneHundred(), 100 + kFair);
}

// Shares are counted in tokens: its texts are eight times as long as the victim's.
TEST_F(OrderAttackTest, LongTextsAreOneShare) {
  StartSlowEngine();
  Queue({"slots=256", "texts=200", "bytes=4000"});
  EXPECT_LE(ServedDuringOneHundred(), 100 / 8 + 10);
}

// The engine knows no pid of a client there.
TEST_F(OrderAttackTest, ManyLanesOfAClientInAnotherPidNamespaceAreOneShare) {
  if (!IsRoot()) GTEST_SKIP() << "SKIPPED: needs root to make a PID namespace";
  StartSlowEngine();
  Queue({"processes=1", "lanes=50", "slots=16", "texts=12"});
  EXPECT_LE(ServedDuringOneHundred(), 100 + kFair);
}

// The victim's text joins the same text of the attacker, which stands at the end of its backlog.
TEST_F(OrderAttackTest, ATextThatAnotherQueuedBeforeWaitsForNobodysBacklog) {
  StartSlowEngine();
  std::vector<std::string> attack = Backlog(SUTRA_PRIORITY_BULK);
  attack.push_back("last=" + TextOfVictim(0));
  Queue(attack);
  EXPECT_LE(ServedBeforeEach(1), kFair);
}

// They would be fifty clients, each with a share, a turn of the loop and a quota of its own.
TEST_F(OrderAttackTest, LanesOverSocketsThatDeadProcessesConnectedAreRefused) {
  StartSlowEngine();
  attacker_ = StartAttacker("borrow-identities", {"tries=60"});
  EXPECT_EQ(Said(*attacker_, "attached"), "0");
  EXPECT_TRUE(engine_->WaitLanes(1));
}

TEST_F(OrderAttackTest, ClientsInAnotherPidNamespaceAreToldApart) {
  if (!IsRoot()) GTEST_SKIP() << "SKIPPED: needs root to make a PID namespace";
  StartSlowEngine({"--lanes-per-client-max", "10"});
  const auto clients = StartAttacker("queue-texts", {"processes=2", "lanes=15", "start=1"});
  EXPECT_EQ(Said(*clients, "attached"), "10");
  EXPECT_EQ(Said(*clients, "attached"), "10");
  EXPECT_TRUE(engine_->WaitLanes(21));
}

// The count above sees a text that waits behind a backlog: its own.
TEST_F(OrderAttackTest, CanaryATextBehindItsOwnBacklogIsSeen) {
  StartSlowEngine();
  Victim greedy;
  ASSERT_EQ(greedy.Attach(engine_->socket(), 512), SUTRA_OK);
  std::vector<embed::Ticket> tickets(400);
  for (int i = 0; i < 400; ++i) {
    ASSERT_EQ(greedy.client().Submit(TextOfVictim(1000 + i), &tickets[static_cast<size_t>(i)],
                                     Victim::Options(SUTRA_PRIORITY_BULK)),
              SUTRA_OK);
  }
  const Waited last = greedy.Ask("last" + std::string(490, 'v'), Victim::Options(SUTRA_PRIORITY_BULK));
  EXPECT_EQ(last.wrong, "");
  std::vector<Interval> times;
  for (int i = 0; i < 400; ++i) {
    const Waited own = greedy.Collect(&tickets[static_cast<size_t>(i)], TextOfVictim(1000 + i));
    times.push_back({own.taken_ns, own.batched_ns});
  }
  EXPECT_GT(static_cast<double>(ServedBefore(times, last)), 4 * kFair);
}

class QueueAttackTest : public FloodTest {
 protected:
  // Room for 2,048 texts, and a model that is far slower than its clients.
  void StartFullEngine(std::vector<std::string> args = {}) {
    args.insert(args.end(), {"--queue-texts-max", "2048", "--batch-tokens-max", "512"});
    StartEngine(args, {"SUTRA_FAKE_DELAY_US=2000"});
    ASSERT_EQ(victim_.Attach(engine_->socket()), SUTRA_OK) << sutra_error_text();
  }
  // Of 200 new texts of the victim: how many were not answered, and why the first was not.
  size_t Unanswered(sutra_priority priority, std::string* why) const {
    size_t unanswered = 0;
    for (int i = 0; i < 200; ++i) {
      const Waited waited = victim_.Ask("query " + std::to_string(i), Victim::Options(priority));
      if (waited.wrong.empty()) continue;
      if (unanswered++ == 0) *why = waited.wrong;
    }
    return unanswered;
  }
  void ExpectAttackersPay(ChildProcess& attacker) {
    attacker.Signal(SIGTERM);
    const uint64_t ok = SaidNumber(attacker, "ok");
    const uint64_t overloaded = SaidNumber(attacker, "overloaded");
    const uint64_t hinted = SaidNumber(attacker, "hinted");
    std::printf("attacker: %zu answered, %zu overloaded, %zu of them with a hint\n", ok, overloaded, hinted);
    EXPECT_GT(ok, 0u) << "the attacker is a client, too";
    EXPECT_GT(overloaded, 0u) << "the queue was never full";
    EXPECT_EQ(hinted, overloaded);
  }
  void ExpectAFullQueueHurtsNobodyElse(const std::vector<std::string>& attack, sutra_priority victims) {
    StartFullEngine();
    const auto attacker = StartAttacker("flood-texts", attack);
    EXPECT_EQ(Said(*attacker, "attached"), "8");
    Said(*attacker, "full");
    std::string why;
    EXPECT_EQ(Unanswered(victims, &why), 0u) << why;
    ExpectAttackersPay(*attacker);
  }
  Victim victim_;
};

TEST_F(QueueAttackTest, AQueueFilledByOneClientIsFullForNobodyElse) {
  ExpectAFullQueueHurtsNobodyElse({"lanes=8", "slots=1024", "text_bytes_max=256"}, SUTRA_PRIORITY_QUERY);
}

TEST_F(QueueAttackTest, AQueueFilledByQueriesOfOneClientIsFullForNobodysBulk) {
  ExpectAFullQueueHurtsNobodyElse({"lanes=8", "slots=1024", "text_bytes_max=256", "priority=1"}, SUTRA_PRIORITY_BULK);
}

TEST_F(QueueAttackTest, AQueueFilledByManyClientsIsFullForNobodyElse) {
  StartFullEngine();
  std::vector<std::unique_ptr<ChildProcess>> attackers;
  for (int i = 0; i < 12; ++i) {
    attackers.push_back(StartAttacker("flood-texts", {"slots=1024", "text_bytes_max=256"}));
    EXPECT_EQ(Said(*attackers.back(), "attached"), "1");
    Said(*attackers.back(), "full");
  }
  std::string why;
  EXPECT_EQ(Unanswered(SUTRA_PRIORITY_QUERY, &why), 0U) << why;
}

// The attacker's texts are refused, or late, and some of them are the victim's, too: it waits for the same computation.
TEST_F(QueueAttackTest, ARefusalOfATextIsNoRefusalOfAnothersSameText) {
  StartFullEngine();
  const auto filler = StartAttacker("flood-texts", {"lanes=8", "slots=1024", "text_bytes_max=256"});
  Said(*filler, "attached");
  Said(*filler, "full");
  const auto attacker = StartAttacker("flood-texts", {"lanes=4", "slots=1024", "text_bytes_max=256", "kind=popular"});
  Said(*attacker, "attached");
  Said(*attacker, "full");
  std::string why;
  EXPECT_EQ(Unanswered(SUTRA_PRIORITY_NORMAL, &why), 0U) << why;
}

TEST_F(QueueAttackTest, ADeadlineOfATextIsNoDeadlineOfAnothersSameText) {
  StartFullEngine();
  const auto attacker =
      StartAttacker("flood-texts", {"slots=1024", "text_bytes_max=256", "kind=popular", "timeout_ms=3"});
  Said(*attacker, "attached");
  Said(*attacker, "full");
  std::string why;
  EXPECT_EQ(Unanswered(SUTRA_PRIORITY_NORMAL, &why), 0U) << why;
}

// The same count while the victim fills the queue itself: it must see refusals.
TEST_F(QueueAttackTest, CanaryAClientThatFloodsItselfIsRefused) {
  StartFullEngine();
  Victim greedy;
  std::vector<std::unique_ptr<Victim>> lanes;
  std::vector<embed::Ticket> tickets;
  for (int lane = 0; lane < 3; ++lane) {
    lanes.push_back(std::make_unique<Victim>());
    ASSERT_EQ(lanes.back()->Attach(engine_->socket(), 1024), SUTRA_OK) << sutra_error_text();
    for (int i = 0; i < 1024; ++i) {
      embed::Ticket ticket;
      const std::string text = "own " + std::to_string(lane) + "." + std::to_string(i);
      if (lanes.back()->client().Submit(text, &ticket, Victim::Options(SUTRA_PRIORITY_BULK)) == SUTRA_OK) {
        tickets.push_back(std::move(ticket));
      }
    }
  }
  size_t overloaded = 0, hinted = 0;
  for (embed::Ticket& ticket : tickets) {
    const Waited waited = greedy.Collect(&ticket, "");
    overloaded += waited.status == SUTRA_OVERLOADED;
    hinted += waited.status == SUTRA_OVERLOADED && waited.retry_after_ms > 0;
  }
  EXPECT_GT(overloaded, 500u);
  EXPECT_EQ(hinted, overloaded);
  tickets.clear();
}

}  // namespace
}  // namespace sutra::test
